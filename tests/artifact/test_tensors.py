import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from onebase.artifact.tensors import (
    DTYPES,
    fingerprint,
    load_tensors,
    read_header,
    save_tensors,
    tensors_digest,
)
from onebase.errors import ArtifactError


def some() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    grid = torch.randn(4, 6)
    return {
        "w": grid,
        "view": grid.t(),  # not contiguous, shares memory
        "half": grid.to(torch.bfloat16),
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "none": torch.empty(0, 3),
        "flag": torch.tensor([True, False]),
        "odd": torch.arange(3, dtype=torch.uint8),
        "naïve.名": torch.ones(2, requires_grad=True),
    }


def test_round_trip(tmp_path: Path) -> None:
    given = some()
    save_tensors(tmp_path / "x.safetensors", given, {"step": "3"})
    found = load_tensors(tmp_path / "x.safetensors")
    assert found.keys() == given.keys()
    for name, tensor in given.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
    meta, shapes = read_header(tmp_path / "x.safetensors")
    assert meta == {"format": "pt", "step": "3"}
    assert shapes["half"] == (torch.bfloat16, (4, 6)) and shapes["scalar"] == (torch.float64, ())


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_reads_back_in_the_library(tmp_path: Path, name: str) -> None:
    tensor = torch.tensor([0, 1, 1]).to(DTYPES[name])
    save_tensors(tmp_path / "x.safetensors", {"t": tensor})
    with safe_open(tmp_path / "x.safetensors", framework="pt") as f:
        assert f.get_slice("t").get_dtype() == name
        found = f.get_tensor("t")
    assert found.dtype == tensor.dtype
    assert torch.equal(found.view(torch.uint8), tensor.view(torch.uint8))


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / "0", tmp_path / "1"]
    items, meta = list(some().items()), {f"k{i}": "v" for i in range(20)}
    save_tensors(paths[0], dict(items), meta)
    save_tensors(paths[1], dict(reversed(items)), dict(reversed(meta.items())))
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_loaded_tensors_are_our_own(tmp_path: Path) -> None:
    path = tmp_path / "x"
    save_tensors(path, {"t": torch.zeros(4)})
    before = path.read_bytes()
    load_tensors(path)["t"].add_(1)
    assert path.read_bytes() == before
    assert torch.equal(load_tensors(path)["t"], torch.zeros(4))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, some())
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1], whole[:20], b"\xff" * 8 + whole[8:], b"pickle"):
        path.write_bytes(damaged)
        for read in (load_tensors, read_header):
            with pytest.raises(ArtifactError, match=r"x\.safetensors is not an intact"):
                read(path)
    with pytest.raises(ArtifactError, match="there is no file"):
        load_tensors(tmp_path / "none")


def test_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="is a file, not a folder"):
        save_tensors(tmp_path / "file" / "x", some())


@settings(max_examples=30)
@given(st.permutations(list(some())))
def test_digest_knows_no_order(order: list[str]) -> None:
    tensors = some()
    assert tensors_digest({n: tensors[n] for n in order}) == tensors_digest(tensors)


def test_digest_sees_names_shapes_dtypes_and_bits() -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.zeros(3, dtype=torch.bfloat16)}
    minus = base["a"].clone()
    minus[1, 2] = -0.0  # equal as a number, another bit
    others = [
        base,
        {"a": base["a"], "c": base["b"]},
        {"a": base["b"], "b": base["a"]},
        {"a": base["a"].reshape(3, 2), "b": base["b"]},
        {"a": base["a"], "b": base["b"].half()},
        {"a": minus, "b": base["b"]},
        {"a": base["a"]},
        {},
    ]
    assert len({tensors_digest(t) for t in others}) == len(others)
    copy = {n: t.clone().requires_grad_() for n, t in base.items()}
    assert tensors_digest(copy) == tensors_digest(base)


def test_fingerprint(tmp_path: Path) -> None:
    tensors = some()
    mark = fingerprint(tensors, {"width": 4, "rate": 1.0})
    assert mark.startswith("ob1-") and len(mark) == 4 + 64
    assert fingerprint(tensors, {"rate": 1, "width": 4}) == mark
    assert fingerprint(tensors, {"rate": 1, "width": 5}) != mark
    save_tensors(tmp_path / "x", tensors)
    assert fingerprint(load_tensors(tmp_path / "x"), {"width": 4, "rate": 1.0}) == mark


def test_fingerprint_is_pinned() -> None:
    # A change of this value orphans every adapter that was ever saved.
    mark = fingerprint({"w": torch.arange(6, dtype=torch.float32).reshape(2, 3)}, {"width": 3})
    assert mark == "ob1-54ff52331c17357e717e8968114039e81c6f61a800ceefb5f8bfac172d853433"


def test_hashing_needs_no_torch() -> None:
    code = "import sys, onebase.artifact.files, onebase.artifact.record; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
