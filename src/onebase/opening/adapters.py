"""Adapters of ours and of PEFT, as folders or on the Hub, in memory."""

from pathlib import Path

from onebase.artifact.record import Record
from onebase.base.folder import LoadedBase
from onebase.formats.hf.base import layout_of
from onebase.formats.hub.models import fetch, is_name
from onebase.formats.peft.folder import Target
from onebase.formats.recognise import is_peft
from onebase.methods.config import AdapterConfig, part_field
from onebase.methods.folder import AdapterParts, bound_to, load_adapter
from onebase.methods.peft import read
from onebase.opening.bases import note_hub


def read_adapter(base: LoadedBase, path: Path) -> AdapterParts:
    """An adapter folder of ours, or one that PEFT saved for this base (perhaps on the Hub). Raises ArtifactError or ConfigError."""
    path = fetch(path) if is_name(path) else path
    if not is_peft(path):
        return load_adapter(path)
    found = read(path, Target(base.model, lambda: layout_of(base)[0], base.head))
    record = Record("adapter")
    relied = {k: v for k, v in base.hashes.items() if k != "fingerprint"}
    # PEFT does not say which weights an adapter was made on: that it belongs to this base is the user's word.
    record.add_parent("base", base.fingerprint, base.path.name if base.path else "", **relied)
    record.add("imported.from", path.resolve().name, "name of the source")
    record.add("imported.format", "peft", "read from the source")
    note_hub(record, path)
    record.add("base", base.fingerprint, "stated by the user, who put it on this base")
    record.add("data", None, "not known: the source does not say what the adapter learnt from")
    own = part_field(found.method, found.config)
    cfg = AdapterConfig(method=found.method, task=found.task, base=bound_to(base), **own, **found.parts)
    return AdapterParts(cfg, found.tensors, record, path)
