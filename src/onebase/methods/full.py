"""Method full: trains all weights of the base; the adapter stores those that changed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from onebase.base.folder import base_tensors
from onebase.base.model import BaseModel
from onebase.errors import UserError
from onebase.methods.method import Learner, Method, Start
from onebase.modality.text.rows import FewRows
from onebase.modality.text.sample import Tokens


@contextmanager
def learn(start: Start) -> Iterator[Learner]:
    """The base's own weights as parameters, restored at the end of the block. Raises UserError for a quantized base."""
    model = start.base.model
    if model.cfg.storage is not None:
        raise UserError(
            f"the base is quantized to {model.cfg.storage.bits} bits, and quantized weights cannot be trained",
            "use method lora on it, or full on the base that it was quantized from",
        )
    own = base_tensors(model)  # views of the parameters: training changes them
    before = {k: t.clone() for k, t in own.items()}
    params = list(model.parameters())

    def reads_only(texts: Sequence[Tokens]) -> None:
        stem = model.text.stem
        assert stem.weight is not None
        stem.few = FewRows(stem.weight, [int(i) for t in texts for i in t.ids])
        # In place: holders of the list see the trained rows.
        params[[p is stem.weight for p in params].index(True)] = stem.few.rows_KD

    def tensors() -> dict[str, Tensor]:
        if "text" in model.codecs and (few := model.text.stem.few) is not None:
            assert model.text.stem.weight is not None
            few.put_back(model.text.stem.weight)
        return {k: t.cpu().clone() for k, t in own.items() if not torch.equal(t, before[k])}

    @torch.no_grad()
    def swap() -> None:
        for k, t in own.items():
            current = t.clone()
            t.copy_(before[k])
            before[k].copy_(current)

    @contextmanager
    def plain() -> Iterator[None]:
        swap()
        try:
            yield
        finally:
            swap()

    try:
        yield Learner(params, None, tensors=tensors, reads_only=reads_only, plain=plain)
    finally:
        if "text" in model.codecs:
            model.text.stem.few = None
        with torch.no_grad():
            for k, t in own.items():
                t.copy_(before[k])


def merge(model: BaseModel, name: str) -> dict[str, Any]:
    """Nothing to do: the adapter's weights have already replaced the base's."""
    return {}


METHOD = Method(
    name="full",
    learn=learn,
    rate=1e-4,
    rates={"vectors": 5e-5, "answers": 3e-4, "pairs": 1e-5, "rewards": 1e-5},
    replaces=True,
    alone="replace the weights",
    merge=merge,
    peft="it replaces the base's weights, which is a model and no PEFT adapter: export the merged base",
)
