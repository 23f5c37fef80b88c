"""Adapters of ours and of PEFT, as folders or on the Hub, in memory."""

from pathlib import Path
from typing import Any

from onebase.adapt import soft
from onebase.adapt.config import AdapterConfig
from onebase.adapt.folder import AdapterParts, bound_to, load_adapter
from onebase.adapt.lora import LoraConfig
from onebase.adapt.soft import SoftConfig
from onebase.artifact.record import Record
from onebase.base.folder import LoadedBase
from onebase.formats.opening import note_hub
from onebase.interop.hf import layout_of
from onebase.interop.hub import fetch, is_name
from onebase.interop.peft import is_peft, load_peft
from onebase.interop.prompts import is_soft, load_soft


def read_adapter(base: LoadedBase, path: Path) -> AdapterParts:
    """An adapter folder of ours, or one that PEFT saved for this base (perhaps on the Hub). Raises ArtifactError or ConfigError."""
    path = fetch(path) if is_name(path) else path
    if not is_peft(path):
        return load_adapter(path)
    if is_soft(path):
        tensors = {soft.KEY: load_soft(path, base.model)}
        made: dict[str, Any] = {"method": "soft", "soft": SoftConfig(virtual=len(tensors[soft.KEY]))}
    else:
        low = load_peft(path, base.model, layout_of(base)[0])
        tensors, made = low.tensors, {"method": "lora", "lora": LoraConfig(**low.settings)}
    record = Record("adapter")
    relied = {k: v for k, v in base.hashes.items() if k != "fingerprint"}
    # PEFT does not say which weights an adapter was made on: that it belongs to this base is the user's word.
    record.add_parent("base", base.fingerprint, base.path.name if base.path else "", **relied)
    record.add("imported.from", path.resolve().name, "name of the source")
    record.add("imported.format", "peft", "read from the source")
    note_hub(record, path)
    record.add("base", base.fingerprint, "stated by the user, who put it on this base")
    record.add("data", None, "not known: the source does not say what the adapter learnt from")
    cfg = AdapterConfig(task="complete", base=bound_to(base), **made)
    return AdapterParts(cfg, tensors, record, path)
