"""Adapting a base: one function for each task and method, all through the one loop and the one adapter folder."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onebase.adapt import lora
from onebase.adapt.config import AdapterConfig, PromptConfig
from onebase.adapt.folder import AdapterParts, adapter_tensors, bound_to, detach
from onebase.adapt.head import HeadConfig, fit_pooled, pooled_as
from onebase.adapt.lora import LoraConfig
from onebase.api import images
from onebase.api.options import AdaptOptions
from onebase.api.texts import answer_scores, chat_rows, completion_rows, features, text_tokens
from onebase.artifact.files import canonical_json, sha256_bytes
from onebase.artifact.record import Record, machine_facts, version_facts
from onebase.base.config import base_flops
from onebase.base.folder import LoadedBase, base_tensors
from onebase.base.model import BaseModel
from onebase.codec.text.codec import check_tokens, ledger, render_ledger
from onebase.codec.text.sample import Tokens
from onebase.codec.text.tokenizer import Tokenizer
from onebase.config import to_dict
from onebase.data import RowPlan, TokenSet, read_rows
from onebase.data.singles import SinglesPlan
from onebase.errors import DataError, UserError
from onebase.model.proj import Active
from onebase.objective.base import Objective
from onebase.objective.label import Label
from onebase.objective.next_token import NextToken
from onebase.train.config import AdamWConfig, ScheduleConfig, TrainConfig
from onebase.train.listen import Listener
from onebase.train.loop import Job, Rows, run
from onebase.train.signals import Stopped

Data = str | Path | Sequence[dict[str, Any]]
SCRATCH = "__adapting"
ROWS_RATE = 3.0
"""Rate of the rows of tokens as a multiple of LoRA's: about the head's rate in pretraining, for they start as untaught. At LoRA's own
rate a base of width 64 needs 120 steps to learn to end an answer, at this one 60; widths 384 and 768 learn it in 18."""


def adapt(
    base: LoadedBase,
    data: Data,
    *,
    task: str,
    method: str,
    options: AdaptOptions,
    listeners: Sequence[Listener] = (),
    tell: Any = None,
) -> AdapterParts:
    """Make an adapter of `base` from `data`; the base is left as it was. Raises UserError for what does not fit."""
    makers = {
        ("classify", "prompt"): _prompt,
        ("classify", "head"): _head,
        ("classify", "lora"): _lora_label,
        ("complete", "lora"): _text,
        ("complete", "full"): _text,
        ("chat", "lora"): _text,
        ("chat", "full"): _text,
    }
    if (task, method) not in makers:
        tasks = sorted({t for t, _ in makers})
        fitting = sorted(m for t, m in makers if t == task)
        what = f"methods for {task}: {', '.join(fitting)}" if fitting else f"tasks: {', '.join(tasks)}"
        raise UserError(f"task {task!r} with method {method!r} is not known", what)
    if base.words is None and (task, method) != ("classify", "head"):
        raise UserError(
            f"this base reads no text, only {', '.join(sorted(base.model.cfg.codecs))}",
            "images are learnt from by task classify with method head",
        )
    job = _Adapting(base, data, task, method, options, tuple(listeners), tell or (lambda _: None))
    return makers[task, method](job)


class _Adapting:
    """What the makers share: the request, the clock and the record."""

    def __init__(
        self,
        base: LoadedBase,
        data: Data,
        task: str,
        method: str,
        options: AdaptOptions,
        listeners: tuple[Listener, ...],
        tell: Any,
    ) -> None:
        self.base, self.data, self.task, self.method = base, data, task, method
        self.options, self.listeners, self.tell = options, listeners, tell
        self.began = time.perf_counter()

    def labelled(self, column: str = "text") -> tuple[list[dict[str, Any]], tuple[str, ...]]:
        """Rows with text (or another column) and label, and the labels in order."""
        rows = read_rows(self.data, (column, "label"))
        labels = tuple(sorted({str(r["label"]) for r in rows}))
        if len(labels) < 2:
            raise DataError(
                f"all {len(rows)} rows have the label {labels[0]!r}", "give rows of at least two labels"
            )
        return rows, labels

    def parts(
        self, config: AdapterConfig, tensors: dict[str, Tensor], facts: dict[str, tuple[Any, str]]
    ) -> AdapterParts:
        """The adapter with its record."""
        record = Record("adapter")
        relied = {k: v for k, v in self.base.hashes.items() if k != "fingerprint"}
        record.add_parent(
            "base", self.base.fingerprint, self.base.path.name if self.base.path else "", **relied
        )
        record.add("task", self.task, "stated by the user")
        record.add("method", self.method, "stated by the user")
        record.add("config.adapter", to_dict(config), "stated by the user")
        record.add("config.options", to_dict(self.options), "stated by the user")
        for name, (value, origin) in facts.items():
            record.add(name, value, origin)
        record.add("seconds", round(time.perf_counter() - self.began, 3), "measured")
        record.add("parameters", sum(t.numel() for t in tensors.values()), "counted")
        record.add("machine", machine_facts(), "read from the system")
        record.add("versions", version_facts(), "read from the packages")
        return AdapterParts(config, tensors, record)


def rows_hash(rows: Sequence[Any]) -> str:
    """Hash of rows and their order: what a record keeps of the data that an adapter learnt from."""
    return sha256_bytes(canonical_json([dict(r) for r in rows]).encode())


def _data_facts(rows: Sequence[Any], labels: Sequence[str] = ()) -> dict[str, tuple[Any, str]]:
    facts: dict[str, tuple[Any, str]] = {
        "data.fingerprint": (rows_hash(rows), "hashed"),
        "data.rows": (len(rows), "counted"),
    }
    if labels:
        facts["data.labels"] = (list(labels), "counted")
    return facts


def _prompt(job: _Adapting) -> AdapterParts:
    """No training and no labels: the template and the answers are the adapter; texts, when given, calibrate it."""
    if not job.options.answers or len(job.options.answers) < 2:
        raise UserError(
            "the prompt method needs `answers`", 'give for example answers={"yes": " yes", "no": " no"}'
        )
    if "{text}" not in job.options.prompt:
        raise UserError(
            f"prompt {job.options.prompt!r} does not say where the text goes", "write {text} in it"
        )
    prompt = PromptConfig(template=job.options.prompt, answers=job.options.answers)
    facts: dict[str, tuple[Any, str]] = {"data.rows": (0, "a prompt learns from no labels")}
    if isinstance(job.data, (str, Path)) or len(job.data):
        rows = read_rows(job.data, ("text",))
        mean = answer_scores(job.base, prompt, [str(r["text"]) for r in rows]).mean(0)
        prompt = replace(prompt, bias=dict(zip(prompt.answers, mean.tolist(), strict=True)))
        facts = _data_facts(rows)
    cfg = AdapterConfig(method="prompt", task="classify", base=bound_to(job.base), prompt=prompt)
    return job.parts(cfg, {}, facts)


def _head(job: _Adapting) -> AdapterParts:
    sees = images.sees_images(job.base, read_rows(job.data, ()))
    rows, labels = job.labelled("image" if sees else "text")
    wide = pooled_as(job.options.pooling)
    learnt: Sequence[Any] = rows
    if sees:
        paths = images.image_paths(rows, job.data)
        x = images.features(job.base, paths, wide, None)
        learnt = images.hashed(paths, rows)
    else:
        texts = text_tokens(job.base, [r["text"] for r in rows], job.options.max_length)
        x = features(job.base, texts, wide, None)
    y = torch.tensor([labels.index(str(r["label"])) for r in rows])
    fitted, pooling = fit_pooled(x, y, len(labels), job.options.pooling, job.options.seed)
    head = fitted.head
    cfg = AdapterConfig(
        method="head",
        task="classify",
        base=bound_to(job.base),
        head=HeadConfig(labels=labels, pooling=pooling, reads="image" if sees else "text"),
    )
    tensors = {"head.weight": head.weight_CP.detach(), "head.bias": head.bias_C.detach()}
    return job.parts(
        cfg,
        tensors,
        _data_facts(learnt, labels) | {"head.l2": (fitted.strength, "chosen by cross-validation")},
    )


def _lora_label(job: _Adapting) -> AdapterParts:
    """Low-rank deltas and a head together; the head starts from the exact fit on the frozen base."""
    rows, labels = job.labelled()
    o, base = job.options, job.base
    texts = text_tokens(base, [r["text"] for r in rows], o.max_length)
    y = [labels.index(str(r["label"])) for r in rows]
    x = features(base, texts, pooled_as(o.pooling), None)
    fitted, pooling = fit_pooled(x, torch.tensor(y), len(labels), o.pooling, o.seed)
    head = fitted.head
    lcfg = LoraConfig(rank=o.rank, alpha=o.alpha, sites=o.sites)
    objective = Label(
        SCRATCH, {t.id: c for t, c in zip(texts, y, strict=True)}, pooling, Active.all_rows(SCRATCH)
    )
    steps = max(1, o.epochs * len(rows) // min(o.rows, len(rows)))
    longest = max(2, *(len(t) for t in texts))  # not the context: it decides how many rows make a micro-batch
    train = _train_config(o, steps, min(o.rows, len(rows)), longest, default_lr=1e-3)
    try:
        deltas = lora.inject(base.model, SCRATCH, lcfg, o.seed)
        base.model.heads[SCRATCH] = head.to(base.model.device)
        plan = SinglesPlan(texts, train.rows, o.seed)
        state = _learn(job, objective, plan, train, [*deltas, *head.parameters()])
        tensors = adapter_tensors(base, SCRATCH)
    finally:
        detach(base, SCRATCH)
    cfg = AdapterConfig(
        method="lora",
        task="classify",
        base=bound_to(base),
        lora=lcfg,
        head=HeadConfig(labels=labels, pooling=pooling),
    )
    return job.parts(cfg, tensors, _data_facts(rows, labels) | state)


def _text(job: _Adapting) -> AdapterParts:
    """Supervised fine-tuning on completions or chats, by LoRA or on all weights."""
    o, base = job.options, job.base
    rows = read_rows(job.data, ("prompt", "completion") if job.task == "complete" else ("messages",))
    tokens = completion_rows(base, rows) if job.task == "complete" else chat_rows(base, rows)
    check_tokens(tokens, base.codec.tokenizer)
    job.tell("what will be learnt, between « »:\n" + render_ledger(ledger(tokens, base.codec.tokenizer)))
    length = o.max_length or base.model.cfg.text.context
    used = sum(len(t.ids) for t in tokens)
    per_step = max(1, min(o.rows, used // length // 4))
    tokenset = TokenSet.from_tokens(tokens, alike=base.codec.tokenizer.roles.chat_framed)
    plan = RowPlan(tokenset, length, per_step, o.seed, long="refuse")
    steps = max(1, round(o.epochs * plan.rows_per_epoch / per_step))
    facts = _data_facts(rows) | {"data.tokens": (used, "counted")}
    if job.method == "lora":
        learnt = _specials(tokens, base.codec.tokenizer)
        lcfg = LoraConfig(rank=o.rank, alpha=o.alpha, sites=o.sites, tokens=learnt)
        train = _train_config(o, steps, per_step, length, default_lr=2e-3, rows_rate=ROWS_RATE)
        try:
            deltas = lora.inject(base.model, SCRATCH, lcfg, o.seed)
            facts |= _learn(job, NextToken(length, Active.all_rows(SCRATCH)), plan, train, deltas)
            tensors = adapter_tensors(base, SCRATCH)
        finally:
            detach(base, SCRATCH)
        cfg = AdapterConfig(method="lora", task=job.task, base=bound_to(base), lora=lcfg)  # type: ignore[arg-type]
        return job.parts(cfg, tensors, facts)
    train = _train_config(o, steps, per_step, length, default_lr=3e-4)
    own = base_tensors(base.model)  # views of the parameters: what is learnt shows in them
    before = {k: t.clone() for k, t in own.items()}
    try:
        facts |= _learn(job, NextToken(length), plan, train, list(base.model.parameters()))
        tensors = {k: t.cpu().clone() for k, t in own.items() if not torch.equal(t, before[k])}
    finally:
        with torch.no_grad():
            for k, t in own.items():
                t.copy_(before[k])
    cfg = AdapterConfig(method="full", task=job.task, base=bound_to(base))  # type: ignore[arg-type]
    return job.parts(cfg, tensors, facts)


def _specials(tokens: Sequence[Tokens], tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids of the special tokens in the samples, less BOS: LoRA learns their rows, for plain text may never have taught them."""
    used = np.unique(np.concatenate([t.ids for t in tokens]))
    return tuple(sorted(set(tokenizer.specials.values()) & set(used.tolist()) - {tokenizer.bos}))


def _train_config(
    o: AdaptOptions, steps: int, rows: int, length: int, *, default_lr: float, rows_rate: float = 1.0
) -> TrainConfig:
    """`rows_rate`: the rate of what is learnt at the codec's ends, as a multiple of all else's."""
    lr = o.lr or default_lr
    ends = rows_rate * lr
    return TrainConfig(
        steps=steps,
        rows=rows,
        length=length,
        seed=o.seed,
        muon=None,
        adamw=AdamWConfig(matrix=lr, embed=ends, head=ends, other=lr, betas=(0.9, 0.99)),
        schedule=ScheduleConfig(warmup=min(10, steps // 4), warmdown=0.7, final=0.0),
    )


def _learn(
    job: _Adapting, objective: Objective, rows: Rows, train: TrainConfig, learnt: Sequence[torch.nn.Parameter]
) -> dict[str, tuple[Any, str]]:
    """Run the loop on the parameters `learnt` and no others, in the number format that the base runs in; returns facts."""
    base = job.base
    model: BaseModel = base.model
    kept = model.compute_dtype
    train = replace(train, dtype="bf16" if kept == torch.bfloat16 else "fp32")
    for p in model.parameters():
        p.requires_grad_(False)
    for p in learnt:
        p.requires_grad_(True)
    try:
        result = run(Job(model, objective, rows, train, listeners=job.listeners))
    finally:
        model.compute_dtype = kept
        for p in learnt:
            p.requires_grad_(False)
    state = result.state
    if result.stopped:
        raise Stopped(
            f"stopped after step {state.step} of {state.total}; half an adapter is not kept",
            "run the same command again: it begins anew",
        )
    per_token = base_flops(model.cfg, train.length)
    return {
        "train.steps": (state.step, "counted by the loop"),
        "tokens.read": (state.tokens, "counted by the loop"),
        "tokens.supervised": (state.supervised, "counted by the loop"),
        "flops.formula": (per_token * state.tokens, "formula of the config x tokens, full backward assumed"),
        "train.final_loss": (result.losses[-1], "measured on the last batch"),
    }
