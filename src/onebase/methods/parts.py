"""All modules that adapters have added to a model."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from onebase.base.model import BaseModel


def holders(model: BaseModel) -> Iterator[nn.ModuleDict]:
    """Every module dict of a model whose keys are adapter names."""
    yield model.heads
    yield model.virtual
    if "text" in model.cfg.codecs:
        yield model.text.deltas
    for proj in model.sites().values():
        yield proj.deltas


@contextmanager
def all_or_nothing(model: BaseModel, name: str) -> Iterator[None]:
    """On any error in the block, restore what the model had under `name` before."""
    before = [(holder, dict(holder.items()).get(name)) for holder in holders(model)]
    try:
        yield
    except BaseException:
        for holder, module in before:
            if module is not None:
                holder[name] = module
            elif name in holder:
                del holder[name]
        raise
