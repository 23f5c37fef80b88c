import json
from pathlib import Path
from typing import Any

import pytest
import torch

from onebase.artifact.files import ArtifactWriter, verify
from onebase.artifact.record import Record
from onebase.artifact.tensors import save_tensors
from onebase.base.config import TextShape, text_base
from onebase.config_plain import to_dict
from onebase.errors import ArtifactError
from onebase.govern.verify import verify_artifact, verify_tree
from tests.govern.conftest import Family, make_base, make_other


def rewrite(folder: Path, facts: dict[str, Any], **changed: Any) -> None:
    """Write the base anew with other content and a manifest that fits it: only the meaning is wrong."""
    old = {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.name != "manifest.json"
    }
    with ArtifactWriter(folder, "base", facts, overwrite=True) as w:
        for name, content in old.items():
            w.path(name).write_bytes(content)
        for name, content in changed.items():
            if name == "record":
                content.save(w.path("record.json"))
            elif name == "config":
                w.path("base.json").write_text(json.dumps({"config": content}))
            else:
                save_tensors(w.path("model-00002.safetensors"), content)
    verify(folder)


def test_good(family: Family) -> None:
    report = verify_artifact(family.root / "base")
    assert (report.kind, report.files, report.fingerprint) == ("base", 4, family.base)
    assert report.checks == (
        "every byte reread",
        "record agrees with the manifest",
        "fingerprint recomputed",
    )
    assert report.line().startswith(f"ok  {family.root / 'base'}  base  {family.base}")
    assert verify_artifact(family.root / "adapter").fingerprint == "ob1-adapter"


@pytest.mark.parametrize(
    "changed",
    [
        {"tensors": {"b": torch.ones(3, dtype=torch.bfloat16) * 2}},
        {"tensors": {"b": torch.ones(3)}},
        {"tensors": {"c": torch.ones(3, dtype=torch.bfloat16)}},
        {"config": to_dict(text_base(TextShape(width=32, depth=1, head_dim=16, vocab_size=301)))},
    ],
)
def test_weights_that_are_not_those_recorded(family: Family, changed: dict[str, Any]) -> None:
    rewrite(family.root / "base", {"fingerprint": family.base}, **changed)
    with pytest.raises(ArtifactError, match="the fingerprint computed from its files"):
        verify_artifact(family.root / "base")


def test_a_tensor_twice(family: Family) -> None:
    rewrite(family.root / "base", {"fingerprint": family.base}, tensors={"a": torch.zeros(2, 2)})
    with pytest.raises(ArtifactError, match=r"model-00002\.safetensors: tensor 'a' is in two files"):
        verify_artifact(family.root / "base")


def test_no_fingerprint_stated(family: Family) -> None:
    rewrite(family.root / "base", {}, record=Record("base"))
    with pytest.raises(ArtifactError, match="states none"):
        verify_artifact(family.root / "base")


@pytest.mark.parametrize(
    ("record", "part"),
    [
        (Record("adapter"), "has kind adapter"),
        (Record("base", {"fingerprint": "ob1-0"}), "has fingerprint ob1-0"),
        (Record("base", {"base.json": "0" * 64}), r"has base\.json 0000"),
    ],
)
def test_record_and_manifest_differ(family: Family, record: Record, part: str) -> None:
    rewrite(family.root / "base", {"fingerprint": family.base}, record=record)
    with pytest.raises(ArtifactError, match=part):
        verify_artifact(family.root / "base")


def test_a_flipped_byte_names_the_file(family: Family) -> None:
    for path in sorted((family.root / "base").iterdir()):
        whole = path.read_bytes()
        path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
        with pytest.raises(ArtifactError) as e:
            verify_artifact(family.root / "base")
        assert str(path) in e.value.cause
        path.write_bytes(whole)
    verify_artifact(family.root / "base")


def test_own_recomputation(family: Family) -> None:
    assert (
        verify_artifact(family.root / "adapter", {"adapter": lambda _: "ob1-adapter"})
        .checks[-1]
        .startswith("fingerprint")
    )
    with pytest.raises(ArtifactError, match="computed from its files is other"):
        verify_artifact(family.root / "adapter", {"adapter": lambda _: "other"})


def test_tree(tmp_path: Path) -> None:
    make_base(tmp_path / "run/base")
    make_other(tmp_path / "run/deep/adapter", "adapter", "x")
    make_other(tmp_path / "run/.base.tmp-00", "base", "left by a killed writer")
    assert [r.kind for r in verify_tree(tmp_path / "run")] == ["base", "adapter"]
    assert [r.kind for r in verify_tree(tmp_path / "run/base")] == ["base"]
    (tmp_path / "run/deep/adapter/record.json").unlink()
    with pytest.raises(ArtifactError, match=r"adapter/record\.json is missing"):
        verify_tree(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="there is no artifact in"):
        verify_tree(tmp_path / "empty")
    with pytest.raises(ArtifactError, match="there is no folder"):
        verify_tree(tmp_path / "none")
