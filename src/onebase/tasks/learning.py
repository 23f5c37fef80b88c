"""A method while it learns: what is put on the base, the loop over it, and what is taken off again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from onebase.adapt import lora, prefix, soft
from onebase.adapt.folder import adapter_tensors, detach
from onebase.adapt.lora import LoraConfig
from onebase.adapt.prefix import PrefixConfig
from onebase.adapt.soft import SoftConfig
from onebase.base.config import base_flops
from onebase.base.folder import base_tensors
from onebase.base.model import BaseModel
from onebase.codec.text.rows import FewRows
from onebase.codec.text.sample import Tokens
from onebase.config import digest, to_dict
from onebase.errors import UserError
from onebase.model.proj import Active
from onebase.objective.base import Objective, Row
from onebase.tasks.job import Adapting, Facts, rows_hash
from onebase.tasks.options import AdaptOptions
from onebase.train.config import AdamWConfig, CheckpointConfig, ScheduleConfig, TrainConfig
from onebase.train.loop import Job
from onebase.train.signals import Stopped

SCRATCH = "__adapting"
"""The name under which an adapter is on its base while it learns."""
KEEPS = 10
"""Times that the state of learning is kept on the way, where the job has a folder to resume from."""
ROWS_RATE = 3.0
"""Rate of the rows of tokens as a multiple of LoRA's: about the head's rate in pretraining, for they start as untaught. At LoRA's own
rate a base of width 64 needs 120 steps to learn to end an answer, at this one 60; widths 384 and 768 learn it in 18."""

SOFT_RATE, PREFIX_RATE = 300.0, 100.0
"""Rate of soft prompts and prefixes as a multiple of all else's, times the root mean square of what they start from, as Adafactor's rate (0.3
in the paper on soft prompts) is: embeddings are near 0.02 in one base and near 1 in another."""


@dataclass(frozen=True)
class Learner:
    """What a method has put on the base under SCRATCH.

    params: what learns. active: how it acts in a forward. fields: the fields of AdapterConfig that say what it is. tensors: those of the
    adapter as they are now, a head's among them where there is one. before: places that it takes before the first token of a row, which is
    then one sample. rate: that of what learns at the codec's ends, or before the text, as a
    multiple of all else's. reads_only: says that nothing but these texts will be read and no token predicted, before `params` is asked for. plain: inside `with plain():` a forward without `active` is the base's own, as before anything was learnt.
    """

    params: list[nn.Parameter]
    active: Active | None
    fields: dict[str, Any]
    tensors: Callable[[], dict[str, Tensor]]
    before: int = 0
    rate: float = 1.0
    reads_only: Callable[[Sequence[Tokens]], None] = lambda texts: None
    plain: Callable[[], AbstractContextManager[None]] = nullcontext


@contextmanager
def learner(job: Adapting, tokens: tuple[int, ...] = (), trunk: str = "text") -> Iterator[Learner]:
    """The method of `job` put on its base; at the end of the block the base is what it was. tokens: ids whose rows are learnt too, where
    the method leaves the base's own alone. trunk: the one that the rows go through. Whatever ends the block early, the base is what it was,
    and what says which of its weights learn too."""
    flags = [(p, p.requires_grad) for p in job.base.model.parameters()]
    try:
        with LEARNERS[job.method](job, tokens, trunk) as found:
            yield found
    except BaseException:
        for p, learns in flags:
            p.requires_grad_(learns)
        raise
    finally:
        detach(job.base, SCRATCH)
        for p, _ in flags:
            p.grad = None


@contextmanager
def _lora(job: Adapting, tokens: tuple[int, ...], trunk: str) -> Iterator[Learner]:
    o = job.options
    more = {k: getattr(o, k) for k in ("ranks", "alphas", "rslora", "dora")}
    sites = lora.sites_of(job.base.model, o.sites, trunk)
    cfg = LoraConfig(rank=o.rank, alpha=o.alpha, sites=sites, tokens=tokens, **more)
    params = lora.inject(job.base.model, SCRATCH, cfg, o.seed)
    active = Active.all_rows(SCRATCH)
    yield Learner(params, active, {"lora": cfg}, lambda: adapter_tensors(job.base, SCRATCH), rate=ROWS_RATE)


@contextmanager
def _soft(job: Adapting, tokens: tuple[int, ...], trunk: str) -> Iterator[Learner]:
    cfg = SoftConfig(virtual=job.options.virtual)
    params = soft.inject(job.base.model, SCRATCH, _started(job))
    yield _leading(job, params, {"soft": cfg}, SOFT_RATE)


@contextmanager
def _prefix(job: Adapting, tokens: tuple[int, ...], trunk: str) -> Iterator[Learner]:
    cfg = PrefixConfig(virtual=job.options.virtual)
    params = prefix.inject(job.base.model, SCRATCH, _started(job))
    yield _leading(job, params, {"prefix": cfg}, PREFIX_RATE)


def _leading(job: Adapting, params: list[nn.Parameter], fields: dict[str, Any], rate: float) -> Learner:
    size = torch.cat([p.detach().flatten() for p in params]).square().mean().sqrt()
    return Learner(
        params,
        Active.all_rows(SCRATCH),
        fields,
        lambda: adapter_tensors(job.base, SCRATCH),
        before=job.options.virtual,
        rate=rate * float(size.clamp(min=1e-6)),
    )


def _started(job: Adapting) -> Tensor:
    """The tokens [P] that virtual ones start from: of the given text (again and again, or its first), or drawn by seed."""
    o, tokenizer = job.options, job.base.codec.tokenizer
    if o.soft_text is None:
        names = min(tokenizer.vocab_size, job.base.model.cfg.text.vocab_size)
        return torch.randint(names, (o.virtual,), generator=torch.Generator().manual_seed(o.seed))
    ids = tokenizer.encode(o.soft_text)
    if not ids:
        raise UserError("'soft_text' has no token", "give some text, or leave it out")
    return torch.tensor([ids[i % len(ids)] for i in range(o.virtual)])


@contextmanager
def _full(job: Adapting, tokens: tuple[int, ...], trunk: str) -> Iterator[Learner]:
    model = job.base.model
    if model.cfg.storage is not None:
        raise UserError(
            f"the base is kept in {model.cfg.storage.bits} bits, which do not learn",
            "use method lora on it, or full on the base that it was made of",
        )
    own = base_tensors(model)  # views of the parameters: what is learnt shows in them
    before = {k: t.clone() for k, t in own.items()}
    params = list(model.parameters())

    def reads_only(texts: Sequence[Tokens]) -> None:
        stem = model.text.stem
        assert stem.weight is not None
        stem.few = FewRows(stem.weight, [int(i) for t in texts for i in t.ids])
        # In place: who has the list has what learns.
        params[[p is stem.weight for p in params].index(True)] = stem.few.rows_KD

    def tensors() -> dict[str, Tensor]:
        if "text" in model.codecs and (few := model.text.stem.few) is not None:
            assert model.text.stem.weight is not None
            few.put_back(model.text.stem.weight)
        changed = {k: t.cpu().clone() for k, t in own.items() if not torch.equal(t, before[k])}
        return changed | adapter_tensors(job.base, SCRATCH)

    @torch.no_grad()
    def swap() -> None:
        for k, t in own.items():
            kept = t.clone()
            t.copy_(before[k])
            before[k].copy_(kept)

    @contextmanager
    def plain() -> Iterator[None]:
        swap()
        try:
            yield
        finally:
            swap()

    try:
        yield Learner(params, None, {}, tensors, reads_only=reads_only, plain=plain)
    finally:
        if "text" in model.codecs:
            model.text.stem.few = None
        with torch.no_grad():
            for k, t in own.items():
                t.copy_(before[k])


LEARNERS: dict[str, Callable[[Adapting, tuple[int, ...], str], AbstractContextManager[Learner]]] = {
    "lora": _lora,
    "soft": _soft,
    "prefix": _prefix,
    "full": _full,
}
"""By method: what learns by steps."""


MICRO_TOKENS = 512
"""Tokens of a micro-batch on a CPU where the base's own weights do not learn. Activations are most of the memory there: 768 tokens of
SmolLM2 in one take 1.7 GB in all, in two 1.5, in three 1.3, but these a quarter more time."""


class Rows(Protocol):
    """Rows of whole epochs, `rows_per_step` a step: in `steps` steps each of them once an epoch."""

    @property
    def digest(self) -> str: ...

    @property
    def steps(self) -> int: ...

    @property
    def rows_per_step(self) -> int: ...

    def rows(self, step: int) -> Sequence[Row]: ...


def train_config(
    o: AdaptOptions, rows: Rows, length: int, *, default_lr: float, rows_rate: float = 1.0
) -> TrainConfig:
    """As many steps as the rows have. `rows_rate`: the rate of what is learnt at the codec's ends, as a multiple of all else's."""
    lr = o.lr or default_lr
    ends = rows_rate * lr
    steps = rows.steps
    return TrainConfig(
        steps=steps,
        rows=rows.rows_per_step,
        length=length,
        micro=o.micro or 0,
        seed=o.seed,
        muon=None,
        adamw=AdamWConfig(matrix=lr, embed=ends, head=ends, other=lr, betas=(0.9, 0.99)),
        schedule=ScheduleConfig(warmup=min(10, steps // 4), warmdown=0.7, final=0.0),
    )


def learn(
    job: Adapting,
    objective: Objective,
    rows: Rows,
    train: TrainConfig,
    learnt: Sequence[torch.nn.Parameter],
    scores: Callable[[BaseModel], dict[str, float]] | None = None,
) -> Facts:
    """Run the loop on the parameters `learnt` and no others, in the number format that the base runs in; returns facts. scores: what
    listeners hear of each step beside the loss. Where the job has a folder to resume from, the state of learning is kept there."""
    base = job.base
    model: BaseModel = base.model
    kept = model.compute_dtype
    train = replace(
        train, dtype="bf16" if kept == torch.bfloat16 else "fp32", eval_every=0 if scores is None else 1
    )
    if not train.micro and job.method != "full" and model.device.type == "cpu":
        train = replace(train, micro=max(1, MICRO_TOKENS // train.length))
    if job.resume:
        train = replace(train, checkpoint=CheckpointConfig(every=max(1, (train.steps or 0) // KEEPS)))
    for p in model.parameters():
        p.requires_grad_(False)
    for p in learnt:
        p.requires_grad_(True)
    try:
        result = job.run(
            Job(
                model,
                objective,
                rows,
                train,
                out=job.resume,
                listeners=job.listeners,
                evaluate=scores,
                identity=_identity(job) if job.resume else {},
                called=job.called,
            )
        )
    finally:
        model.compute_dtype = kept
        for p in learnt:
            p.requires_grad_(False)
    state = result.state
    if result.stopped:
        raise Stopped(
            f"stopped after step {state.step} of {state.total}; half an adapter is not kept",
            f"run the same command again: it goes on from {job.resume}"
            if job.resume
            else "run the same command again: it begins anew (--resume DIR keeps what was learnt)",
        )
    per_token = base_flops(model.cfg, train.length)
    by_source: Facts = {"tokens.by_source": (dict(state.sources), "counted by the loop")}
    return (by_source if len(state.sources) > 1 else {}) | {
        "train.steps": (state.step, "counted by the loop"),
        "train.rows": (state.rows, "counted by the loop"),
        "tokens.read": (state.tokens, "counted by the loop"),
        "tokens.supervised": (state.supervised, "counted by the loop"),
        "flops.formula": (per_token * state.tokens, "formula of the config x tokens, full backward assumed"),
        # Of a run that was at its end already there is no batch to measure.
        **({"train.final_loss": (result.losses[-1], "measured on the last batch")} if result.losses else {}),
    }


def _identity(job: Adapting) -> dict[str, str]:
    """What a checkpoint must agree with beside the loop's own: the base, the request, the rows with their labels, and the content of all
    files and folders that the request names, wherever they lie."""
    options = to_dict(job.options)
    for name in job.bound:
        *path, last = name.split(".")
        kept = options
        for part in path:
            kept = kept[part]
        kept.pop(last, None)
    asked = {"task": job.task, "method": job.method, "options": options}
    rows = job.data if isinstance(job.data, Sequence) else []
    base = {f"base's {k}" if k != "fingerprint" else "weights": v for k, v in job.base.hashes.items()}
    return (
        base
        | {"date": str(job.options.date)}
        | {"adapter": digest(asked), "rows": rows_hash(rows)}
        | job.bound
    )
