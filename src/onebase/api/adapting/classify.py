"""Task classify: by a prompt alone, by a head fitted exactly, or by a head and what the method learns, together. Rows with `labels` in the
place of `label` are for `many`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from onebase.adapt.config import AdapterConfig, PromptConfig
from onebase.adapt.folder import AdapterParts, bound_to
from onebase.adapt.head import HeadConfig, fit_pooled, pooled_as
from onebase.api import images
from onebase.api.adapting import heads, many
from onebase.api.adapting.job import Adapting, Facts, data_facts
from onebase.api.adapting.learning import SCRATCH, learn, learner, train_config
from onebase.api.adapting.ledgers import check_labelled
from onebase.api.texts import answer_scores, features, text_tokens
from onebase.data import read_rows
from onebase.data.singles import SinglesPlan
from onebase.errors import UserError
from onebase.objective.label import Label

RATES = {"lora": 1e-3, "soft": 1e-3, "prefix": 1e-3, "full": 1e-4}
"""AdamW's peak rate by method, where none is given."""


def by_prompt(job: Adapting) -> AdapterParts:
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
    facts: Facts = {"data.rows": (0, "a prompt learns from no labels")}
    if isinstance(job.data, (str, Path)) or len(job.data):
        rows = read_rows(job.data, ("text",))
        facts = data_facts(rows) | check_labelled(job, rows)
        mean = answer_scores(job.base, prompt, [str(r["text"]) for r in rows]).mean(0)
        prompt = replace(prompt, bias=dict(zip(prompt.answers, mean.tolist(), strict=True)))
    cfg = AdapterConfig(method="prompt", task="classify", base=bound_to(job.base), prompt=prompt)
    return job.parts(cfg, {}, facts)


def by_head(job: Adapting) -> AdapterParts:
    """Logistic regression on pooled states, of texts or of images."""
    given = read_rows(job.data, ())
    sees = images.sees_images(job.base, given)
    if many.has_many(given):
        if sees:
            raise UserError("images with many labels each", "give one label an image: the column `label`")
        return heads.by_head(job, many.prepare(job))
    rows, labels = job.labelled("image" if sees else "text")
    wide = pooled_as(job.options.pooling)
    learnt: Sequence[Any] = rows
    if sees:
        paths = images.image_paths(rows, job.data)
        learnt = images.hashed(paths, rows)
        facts = check_labelled(job, learnt, "image")
        x = images.features(job.base, paths, wide, None)
    else:
        facts = check_labelled(job, rows)
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
        data_facts(learnt, labels) | facts | {"head.l2": (fitted.strength, "chosen by cross-validation")},
    )


def by_steps(job: Adapting) -> AdapterParts:
    """A head and what the method learns, together; the head starts from the exact fit on the frozen base (behind what the method puts
    before the text)."""
    if many.has_many(read_rows(job.data, ())):
        return heads.by_steps(job, many.prepare(job))
    rows, labels = job.labelled()
    facts = data_facts(rows, labels) | check_labelled(job, rows)
    o, base = job.options, job.base
    y = [labels.index(str(r["label"])) for r in rows]
    steps = max(1, o.epochs * len(rows) // min(o.rows, len(rows)))
    with learner(job) as found:
        texts = text_tokens(base, [r["text"] for r in rows], o.max_length, found.before)
        # Not the context: it decides how many rows make a micro-batch.
        longest = max(2, *(found.before + len(t) for t in texts))
        train = train_config(
            o, steps, min(o.rows, len(rows)), longest, default_lr=RATES[job.method], rows_rate=found.rate
        )
        targets = {t.id: c for t, c in zip(texts, y, strict=True)}
        x = features(base, texts, pooled_as(o.pooling), found.active if found.before else None)
        fitted, pooling = fit_pooled(x, torch.tensor(y), len(labels), o.pooling, o.seed)
        head = fitted.head.to(base.model.device)
        base.model.heads[SCRATCH] = head
        objective = Label(SCRATCH, targets, pooling, found.active)
        plan = SinglesPlan(texts, train.rows, o.seed)
        state = learn(job, objective, plan, train, [*found.params, *head.parameters()])
        tensors = found.tensors()
    cfg = AdapterConfig(
        method=job.method,
        task="classify",
        base=bound_to(base),
        head=HeadConfig(labels=labels, pooling=pooling),
        **found.fields,
    )
    return job.parts(cfg, tensors, facts | state)
