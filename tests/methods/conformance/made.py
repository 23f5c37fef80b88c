"""One learning of a case, of which all the tests of conformance ask: what learnt, what the base was, and the adapter."""

import os
import signal
import tempfile
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from onebase.api.base import Adapter, Base
from onebase.base.folder import base_tensors, load_base, save_base
from onebase.modality.image.pixels import pixels
from onebase.model.proj import AdapterRouting
from onebase.tasks import job as adapting
from onebase.train.callbacks import NoCallback, StepInfo
from onebase.train.loop import Job, Result, run
from onebase.train.optim import Optimizers
from tests.helpers import tiny_base
from tests.methods.conformance.cases import CASES, LABELLED, PICTURES, STEPS
from tests.methods.conformance.kinds import KINDS
from tests.pictures import photos

TEXTS = ["Is it", "Yes it is"]


@cache
def folder(kind: str) -> Path:
    """A base of this kind, saved once in a process."""
    path = Path(tempfile.mkdtemp(prefix=f"onebase-{kind}-"))
    save_base(path / "base", KINDS[kind](path))
    return path / "base"


@cache
def teacher() -> dict[str, str]:
    """Folders of a base of other weights than the decoder's, and of an adapter on it that sorts texts."""
    path = Path(tempfile.mkdtemp(prefix="onebase-teacher-"))
    save_base(path / "writer", tiny_base(5))
    Base(load_base(path / "writer")).adapt(LABELLED, task="classify", method="head").save(path / "sorter")
    return {name: str(path / name) for name in ("writer", "sorter")}


@dataclass(frozen=True)
class Made:
    """kind, options: of the case. base: as it is after learning. before: its tensors before. adapter: what was learnt. learnt: names of the
    parameters that the loop was given; moved: those that had a gradient above zero at some step."""

    kind: str
    options: dict[str, Any]
    base: Base
    before: dict[str, Tensor]
    adapter: Adapter
    learnt: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)

    @property
    def method(self) -> str:
        return str(self.options["method"])

    @property
    def sees(self) -> bool:
        return self.options["data"] is PICTURES

    @cached_property
    def on(self) -> Base:
        """The base with the adapter on it."""
        return self.base.with_adapter(self.adapter)


class Stops(NoCallback):
    """Asks the process to stop after a step, as a scheduler would."""

    def step(self, info: StepInfo) -> None:
        if info.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)


@cache
def pictures() -> dict[str, Path]:
    """Files of noise by name."""
    names = sorted(set(PICTURES))
    return dict(zip(names, photos(Path(tempfile.mkdtemp(prefix="onebase-photos-")), *names), strict=True))


def adapted(base: Base, options: dict[str, Any], **more: Any) -> Adapter:
    given = dict(options)
    data = given.pop("data")
    if data is PICTURES:
        data = [{"image": str(pictures()[x]), "label": "odd" if x in "ac" else "even"} for x in data]
    if "distil" in given:
        given["distil"] = {k: teacher()[name] for k, name in given["distil"].items()}
    return base.adapt(data, **given, **STEPS, **more)


@cache
def made(case: str) -> Made:
    """The case, learnt once in a process."""
    kind, options = case.split()[0], CASES[case]
    base = Base(load_base(folder(kind)))
    before = {k: t.clone() for k, t in base_tensors(base.loaded.model).items()}
    learnt: set[str] = set()
    moved: set[str] = set()
    step = Optimizers.step

    def seen(loop: Job) -> Result:
        named = dict(loop.model.named_parameters())
        learnt.update(n for n, p in named.items() if p.requires_grad)

        def spy(self: Optimizers) -> None:
            moved.update(n for n, p in named.items() if p.grad is not None and bool(p.grad.any()))
            step(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Optimizers, "step", spy)
            return run(loop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapting, "run", seen)
        adapter = adapted(base, options)
    return Made(kind, options, base, before, adapter, learnt, moved)


@torch.no_grad()
def states(base: Base, routing: AdapterRouting | None, rows: int = 1, *, sees: bool = False) -> Tensor:
    """Hidden states of rows of one text, and what the base predicts where it does, [B, T, D or V]; of a picture where asked (`sees`) or where
    the base reads no text."""
    model = base.loaded.model
    if sees or "text" not in model.cfg.codecs:
        seen_BCHW = pixels([pictures()["a"]], model.cfg.image).expand(rows, -1, -1, -1)
        return model.states("image", seen_BCHW, routing=routing).hidden
    tokenizer = base.tokenizer
    ids_BT = torch.tensor([tokenizer.framed(tokenizer.encode("is it so or not"))] * rows)
    hidden = model.hidden(ids_BT, routing=routing).hidden
    return model.text.logits(hidden, routing) if model.text.cfg.head else hidden


def answer(base: Base) -> Any:
    """What the adapter is for: classes, numbers, spans (and the scores behind them), vectors, or logits of text."""
    on = base.attached
    assert on is not None
    if on.task == "classify" and on.config.head is not None and on.config.head.reads == "image":
        return [tuple(x.scores.items()) for x in base.classify_images(list(pictures().values()))]
    if on.task == "classify":
        return [tuple(x.scores.items()) for x in base.classify(TEXTS)]
    if on.task == "regress":
        return base.predict(TEXTS)
    if on.task == "tag":
        return base.tag(TEXTS), base.loaded.model.heads[on.name](states_of(base)).tolist()
    if on.task == "embed":
        return base.embed(TEXTS).tolist()
    return states(base, base.routing).tolist()


def states_of(base: Base) -> Tensor:
    """Hidden states of a text under the adapter, whatever the base predicts."""
    ids = base.tokenizer.framed(base.tokenizer.encode("is it so"))
    return base.hidden(ids)
