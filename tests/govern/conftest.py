"""A small family of artifacts: dataset -> base -> adapter -> run."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from onebase.artifact.files import ArtifactWriter
from onebase.artifact.record import Record
from onebase.artifact.tensors import fingerprint, save_tensors
from onebase.base.config import TextShape, text_base
from onebase.config_plain import to_dict, without_defaults
from onebase.govern.store import Store

CONFIG = text_base(TextShape(width=32, depth=1, head_dim=16, vocab_size=300))


def make_base(
    folder: Path, *parents: tuple[str, str, str], value: float = 0.0, overwrite: bool = False
) -> str:
    tensors = {"a": torch.full((2, 2), value), "b": torch.ones(3, dtype=torch.bfloat16)}
    mark = fingerprint(tensors, without_defaults(CONFIG))
    record = Record("base", {"fingerprint": mark, "tokenizer": "t" * 8})
    for parent in parents:
        record.add_parent(*parent)
    record.add("tokens", {"talk": 1_234_567, "code": None}, "counted while training")
    record.add("loss", 3.25, "measured")
    record.add("loss", 2.125, "measured")
    with ArtifactWriter(folder, "base", {"fingerprint": mark}, overwrite) as w:
        w.path("base.json").write_text(json.dumps({"schema": 1, "config": to_dict(CONFIG)}))
        save_tensors(w.path("model-00001.safetensors"), {"a": tensors["a"]})
        save_tensors(w.path("model-00002.safetensors"), {"b": tensors["b"]})
        record.save(w.path("record.json"))
    return mark


def make_other(folder: Path, kind: str, mark: str, *parents: tuple[str, str, str]) -> str:
    record = Record(kind, {"fingerprint": mark})
    for parent in parents:
        record.add_parent(*parent)
    with ArtifactWriter(folder, kind, {"fingerprint": mark}) as w:
        record.save(w.path("record.json"))
    return mark


@dataclass(frozen=True)
class Family:
    store: Store
    root: Path
    base: str  # fingerprints
    data: str
    adapter: str


@pytest.fixture
def family(tmp_path: Path) -> Family:
    root, store = tmp_path / "made", Store(tmp_path / "store")
    data = make_other(root / "data", "dataset", "ob1-data")
    base = make_base(root / "base", ("dataset", data, "talk"), ("dataset", "ob1-lost", "lost"))
    adapter = make_other(root / "adapter", "adapter", "ob1-adapter", ("base", base, "b"))
    make_other(root / "run", "run", "", ("adapter", adapter, "a"))
    for name in ("data", "base", "adapter", "run"):
        store.add(root / name, f"my-{name}")
    return Family(store, root, base, data, adapter)
