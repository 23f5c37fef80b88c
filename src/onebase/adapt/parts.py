"""The kinds of weights that an adapter may have. Each is a module of this room with the functions of `Part`; an adapter's config has a field
of that name, and has the part where the field is set."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor, nn

from onebase.adapt import head, lora, prefix, prompt, soft
from onebase.base.model import BaseModel


class Part(Protocol):
    """Weights on a model under an adapter's name. Nothing of a part is left when it is taken off."""

    def owns(self, key: str) -> bool:
        """Is a tensor of this name in an adapter's file of this part?"""
        ...

    def tensors(self, model: BaseModel, name: str) -> dict[str, Tensor]:
        """The part's tensors by their names in the file; none where the model has no such part under `name`."""
        ...

    def put(self, model: BaseModel, name: str, cfg: Any, found: dict[str, Tensor]) -> None:
        """Attach saved tensors. Raises ConfigError naming one that does not fit."""
        ...

    def remove(self, model: BaseModel, name: str) -> None:
        """Take it off, where it is."""
        ...


PARTS: dict[str, Part] = {"lora": lora, "head": head, "soft": soft, "prefix": prefix, "prompt": prompt}


def holders(model: BaseModel) -> Iterator[nn.ModuleDict]:
    """Every place of a model that has something under an adapter's name."""
    yield model.heads
    yield model.leads
    if "text" in model.cfg.codecs:
        yield model.text.deltas
    for proj in model.sites().values():
        yield proj.deltas


@contextmanager
def all_or_nothing(model: BaseModel, name: str) -> Iterator[None]:
    """What an error (of any kind) leaves under `name` is what was there before the block."""
    before = [(holder, dict(holder.items()).get(name)) for holder in holders(model)]
    try:
        yield
    except BaseException:
        for holder, kept in before:
            if kept is not None:
                holder[name] = kept
            elif name in holder:
                del holder[name]
        raise
