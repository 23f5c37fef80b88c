"""What adapters have put on a model, all of it."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from onebase.base.model import BaseModel


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
