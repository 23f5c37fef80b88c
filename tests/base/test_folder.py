"""A base on disk: whole, checked, the same when read back."""

import json
from pathlib import Path

import pytest
import torch

import onebase
from onebase.base.folder import base_fingerprint, load_base, save_base
from onebase.errors import ArtifactError
from onebase.govern.verify import verify_artifact
from tests.helpers import tiny_base


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_base(tmp_path / "base", tiny_base())
    return tmp_path / "base"


def test_round_trip(folder: Path) -> None:
    made, read = tiny_base(), load_base(folder)
    assert read.fingerprint == made.fingerprint == base_fingerprint(read.model)
    assert read.codec.tokenizer.digest == made.codec.tokenizer.digest
    ids = torch.tensor([made.codec.tokenizer.encode("def add(a, b)", bos=True)])
    with torch.no_grad():
        assert torch.equal(read.model.logits(ids), made.model.logits(ids))
    assert verify_artifact(folder).fingerprint == read.fingerprint


def test_layout_is_the_documented_one(folder: Path) -> None:
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert names == [
        "base.json",
        "codecs/text/tokenizer.json",
        "manifest.json",
        "model-00001.safetensors",
        "record.json",
        "template.jinja",
    ]


@pytest.mark.parametrize(
    "name", ["base.json", "model-00001.safetensors", "codecs/text/tokenizer.json", "template.jinja"]
)
def test_a_flipped_byte_is_refused(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match=name.rsplit("/", 1)[-1]):
        onebase.load(folder)


def test_a_changed_config_does_not_fit_the_weights(folder: Path) -> None:
    from onebase.artifact.files import ArtifactWriter, read_manifest

    tree = json.loads((folder / "base.json").read_text())
    tree["config"]["trunks"]["text"]["blocks"][0]["ff"]["hidden"] *= 2
    with ArtifactWriter(folder.with_name("other"), kind="base", facts=read_manifest(folder)["facts"]) as w:
        for p in folder.rglob("*"):
            if p.is_file() and p.name != "manifest.json":
                w.path(str(p.relative_to(folder))).write_bytes(p.read_bytes())
        w.path("base.json").write_text(json.dumps(tree))
    with pytest.raises(ArtifactError, match=r"blocks\.0\.ff\.(up|down)\.weight"):
        onebase.load(folder.with_name("other"))


def test_an_adapter_folder_is_no_base(folder: Path, tmp_path: Path) -> None:
    base = onebase.load(folder)
    adapter = base.adapt([], task="classify", method="prompt", answers={"a": "?", "b": "."})
    with pytest.raises(ArtifactError, match="adapter"):
        onebase.load(adapter.save(tmp_path / "adapter"))
