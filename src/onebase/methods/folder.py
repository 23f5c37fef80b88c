"""Saves and loads adapters (adapter.json, adapter.safetensors, record.json, manifest.json), and attaches them to a base."""

import copy
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from onebase.artifact.files import ArtifactWriter, canonical_json, check_fast, read_json, read_manifest
from onebase.artifact.record import Record
from onebase.artifact.tensors import fingerprint, load_tensors, save_tensors
from onebase.base.folder import LoadedBase, base_tensors
from onebase.config import from_file
from onebase.config_plain import to_dict, without_defaults
from onebase.errors import ArtifactError, UserError
from onebase.methods.config import AdapterConfig, BoundTo
from onebase.methods.parts import all_or_nothing, holders
from onebase.methods.table import METHODS, PARTS
from onebase.model.proj import AdapterRouting

WEIGHTS = "adapter.safetensors"


@dataclass
class AdapterParts:
    """An adapter in memory: config, its own tensors (never the base's), record, and the folder that it was read from."""

    config: AdapterConfig
    tensors: dict[str, Tensor]
    record: Record
    path: Path | None = None

    @property
    def fingerprint(self) -> str:
        """Content hash of the adapter's tensors and config."""
        return fingerprint(self.tensors, without_defaults(self.config))

    @property
    def shipped(self) -> int:
        """Bytes needed besides the base: its tensors, and its config (with a head's labels; a prompt is config only)."""
        numbers = sum(t.numel() * t.element_size() for t in self.tensors.values())
        return numbers + len(canonical_json(to_dict(self.config)).encode())


@dataclass(frozen=True)
class Attached:
    """An adapter on a base under a name. `base` is the given base, or for method full a sibling with replaced weights.

    record, shipped: as in `AdapterParts`: how the adapter was made, and its bytes without the base. below: the adapters that it is stacked
    on; `routing` is then that of the whole stack. lease: removes the adapter when nothing refers to it any more (methods/stacking.py).
    """

    name: str
    config: AdapterConfig
    base: LoadedBase
    routing: AdapterRouting | None
    fingerprint: str
    record: Record
    shipped: int
    below: tuple["Attached", ...] = ()
    lease: object = field(default=None, repr=False, compare=False)

    @property
    def stack(self) -> tuple["Attached", ...]:
        """All adapters, this one last."""
        return (*self.below, self)

    @property
    def method(self) -> str:
        return self.config.method

    @property
    def task(self) -> str:
        return self.config.task


def bound_to(base: LoadedBase) -> BoundTo:
    """The hashes of a base that an adapter stores."""
    return BoundTo(**base.hashes)


def own_head(base: LoadedBase) -> AdapterParts | None:
    """The head that a base was published with, as an adapter; None if it has none."""
    if base.head is None:
        return None
    cfg = AdapterConfig(method="head", task=base.head.task, base=bound_to(base), head=base.head.config)
    record = Record("adapter")
    record.add_parent("base", base.fingerprint, base.name)
    record.add("task", base.head.task, "read from the source of the base")
    record.add("data", None, "not known: the source does not say what the head learnt from")
    return AdapterParts(cfg, base.head.tensors, record)


def save_adapter(path: Path, parts: AdapterParts, *, overwrite: bool = False) -> None:
    """Write the folder atomically."""
    parts.record.hashes["fingerprint"] = parts.fingerprint
    with ArtifactWriter(
        path, kind="adapter", facts={"fingerprint": parts.fingerprint}, overwrite=overwrite
    ) as w:
        tree = {"schema": 1, "config": to_dict(parts.config)}
        w.path("adapter.json").write_text(json.dumps(tree, indent=1), encoding="utf-8")
        save_tensors(w.path(WEIGHTS), parts.tensors, {"base": parts.config.base.fingerprint})
        parts.record.save(w.path("record.json"))
    parts.path = path


def load_adapter(path: Path) -> AdapterParts:
    """Read and check an adapter folder. Raises ArtifactError that names what is missing, damaged or of another kind."""
    return AdapterParts(
        load_config(path), load_tensors(path / WEIGHTS), Record.load(path / "record.json"), path
    )


def load_config(path: Path) -> AdapterConfig:
    """The config in an adapter folder, without its tensors. Raises as `load_adapter` does."""
    read_manifest(path, "adapter")
    check_fast(path)
    tree = read_json(path / "adapter.json", "config")
    return from_file(AdapterConfig, tree["config"], str(path / "adapter.json"))


def check_base(parts: AdapterParts, base: LoadedBase, name: str, *, reread: bool = False) -> None:
    """Refuse a base that is not the adapter's. With `reread` the weights in memory are hashed again."""
    cfg, hashes = parts.config, base.hashes
    if reread:
        hashes["fingerprint"] = base.reread()
    needs = {"fingerprint": cfg.base.fingerprint, "tokenizer": cfg.base.tokenizer}
    if cfg.task == "chat" or cfg.chats:
        needs["template"] = cfg.base.template
    for key, wanted in needs.items():
        if hashes.get(key, "") != wanted:
            what = "weights" if key == "fingerprint" else key
            adapter = str(parts.path or name)
            own = next((p["name"] for p in parts.record.parents if p["kind"] == "base" and p["name"]), "")
            raise ArtifactError(
                f"adapter {adapter!r} was made for a base with other {what} ({wanted[:16]}..., this one is {hashes.get(key, '')[:16]}...)",
                f"give its base ({f'{own}, ' if own else ''}{cfg.base.fingerprint[:16]}...; onebase list shows those of the store), or adapt this base again",
            )


def attach(base: LoadedBase, adapter: Path | AdapterParts, name: str) -> Attached:
    """Attach an adapter to a base under `name`, until `detach`. It is attached as a whole or not at all. The base alone still answers as
    before, bitwise. Raises ArtifactError for another base."""
    parts = adapter if isinstance(adapter, AdapterParts) else load_adapter(adapter)
    if not name or "." in name:
        raise UserError(f"adapter name {name!r}", "give a name without dots")
    # The folder's fingerprint does not cover weights changed in memory after loading: hash the weights in memory.
    check_base(parts, base, name, reread=True)
    tensors = {k: t.to(base.model.device) for k, t in parts.tensors.items()}
    has = {kind: part for kind, part in PARTS.items() if parts.config.part(kind) is not None}
    rest = {k: t for k, t in tensors.items() if not any(p.owns(k) for p in has.values())}
    if METHODS[parts.config.method].replaces:
        base = _replaced(base, rest)
    elif rest:
        raise ArtifactError(
            f"adapter {name!r} has a tensor {min(rest)!r} that belongs to no part of its config",
            "use the adapter as it was saved",
        )
    with all_or_nothing(base.model, name):
        for kind, part in has.items():
            mine = {k: t for k, t in tensors.items() if part.owns(k)}
            part.put(base.model, name, parts.config.part(kind), mine)
    for p in base.model.parameters():
        p.requires_grad_(False)
    routing = AdapterRouting.all_rows(name) if any(METHODS[kind].acts for kind in has) else None
    return _attached(name, parts, base, routing)


def detach(base: LoadedBase, name: str) -> None:
    """Remove an adapter from a base. Garbage collection may call this while someone walks over the model's modules, so the dicts that are walked
    stay as they are, and copies take their places."""
    for holder in holders(base.model):
        if name in holder:
            holder._modules = dict(holder._modules)
    for part in PARTS.values():
        part.remove(base.model, name)


def adapter_tensors(base: LoadedBase, name: str) -> dict[str, Tensor]:
    """The tensors of the adapter `name` on this base, copied to the CPU."""
    found = {k: t for part in PARTS.values() for k, t in part.tensors(base.model, name).items()}
    return {k: t.cpu().clone() for k, t in found.items()}


def _attached(name: str, parts: AdapterParts, base: LoadedBase, routing: AdapterRouting | None) -> Attached:
    return Attached(name, parts.config, base, routing, parts.fingerprint, parts.record, parts.shipped)


def _replaced(base: LoadedBase, tensors: dict[str, Tensor]) -> LoadedBase:
    own = base_tensors(base.model)
    unknown = sorted(tensors.keys() - own.keys())
    if unknown:
        raise ArtifactError(
            f"adapter tensor {unknown[0]!r} is not in this base", "use the base the adapter was made for"
        )
    model = copy.deepcopy(base.model)
    model.load_state_dict(tensors, strict=False)
    return replace(base, model=model, origin=None)
