"""A base of its own from a base and the adapter on it."""

import copy

from onebase.adapt import lora
from onebase.adapt.folder import Attached
from onebase.artifact.record import Record
from onebase.base.folder import LoadedBase


def merged(base: LoadedBase, attached: Attached, name: str) -> LoadedBase:
    """The adapter's deltas, or replaced weights, in a copy of the base's weights, and both as parents in its record. `name` is the base's."""
    model = copy.deepcopy(attached.base.model)
    lora.merge(model, attached.name)
    for other in {n for p in model.sites().values() for n in p.deltas}:
        lora.remove(model, other)
    model.heads.clear()
    record = Record("base")
    record.add("name", f"{name}-merged", "made from a base and an adapter")
    record.add_parent("base", base.fingerprint, name)
    record.add_parent("adapter", attached.fingerprint, attached.name)
    if model.cfg != base.model.cfg:
        record.add("untied", True, "the adapter adds different rows to the two ends, which shared a matrix")
    return LoadedBase(model, base.words, record, embedding=base.embedding, speech=base.speech)
