"""Whatever is being written when the disk is full: the error names the file and the disk, nothing half-written stays, and no traceback."""

import errno
import io
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as shapes

from onebase.artifact.disk import user_error
from onebase.artifact.files import ArtifactWriter
from onebase.artifact.raw import array_bytes, save_array
from onebase.artifact.tensors import save_tensors
from onebase.data import Dataset, Document, TokenSet, prepare
from onebase.data.tokens import PLACE
from onebase.errors import ArtifactError
from onebase.govern.store import Store
from onebase.modality.text import Tokenizer


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A file system of so many KiB."""
    made: list[Path] = []

    def mount(size: int) -> Path:
        place = tmp_path / f"disk{len(made)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting is not allowed here")
        made.append(place)
        return place

    yield mount
    for place in made:
        subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)  # token sets map it


def documents() -> list[Document]:
    rng = np.random.default_rng(0)
    return [Document(" ".join(map(str, rng.integers(0, 10**9, 60))), "a") for _ in range(400)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare(documents(), tmp_path_factory.mktemp("full") / "data", shard_bytes=50_000)


@pytest.fixture(scope="module")
def tokenizer(dataset: Dataset) -> Tokenizer:
    return Tokenizer.train((d.text for d in dataset.documents("train")), 300)


def tensors(out: Path) -> None:
    with ArtifactWriter(out, "base") as w:
        save_tensors(w.path("model.safetensors"), {"a": torch.zeros(50_000)})


def text(out: Path) -> None:
    with ArtifactWriter(out, "base") as w:
        w.path("some/base.json").write_text("x" * 200_000)


def array(out: Path) -> None:
    with ArtifactWriter(out, "tokens") as w:
        save_array(w.path("ids.npy"), np.zeros(50_000, np.uint32))


def numpys_own(out: Path) -> None:
    """As a library that we call might do it."""
    with ArtifactWriter(out, "tokens") as w:
        np.save(w.path("ids.npy"), np.zeros(50_000, np.uint32))


WRITERS = {"model.safetensors": tensors, "some/base.json": text, "ids.npy": array, "./ids.npy": numpys_own}


@pytest.mark.parametrize("name", WRITERS)
def test_the_file_is_named(disk: Callable[[int], Path], name: str) -> None:
    out = disk(64) / "new"
    with pytest.raises(ArtifactError) as e:
        WRITERS[name](out)
    assert e.value.cause == f"cannot write {out / name}: the disk is full"
    assert "free some space" in e.value.remedy
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("size", [4, 12, 40, 72, 120, 160, 200, 240, 300])
def test_wherever_preparation_and_tokens_fill_it(
    disk: Callable[[int], Path], dataset: Dataset, tokenizer: Tokenizer, size: int
) -> None:
    place = disk(size)
    for out, work in (
        (place / "data", lambda: prepare(documents(), place / "data", shard_bytes=50_000)),
        (place / "tokens", lambda: TokenSet.build(dataset, "train", tokenizer, place / "tokens")),
        (place / "store", lambda: Store(place / "store").add(dataset.dir, "copied", copy=True)),
    ):
        try:
            work()
        except ArtifactError as error:
            said = error
        else:
            continue
        assert "the disk is full" in said.cause or "disk is full" in said.cause, said
        assert str(out) in said.cause and ".tmp-" not in said.cause, said
        left = [p.name for p in out.parent.rglob("*.npy")] + [p.name for p in out.parent.rglob("*tmp-*")]
        assert not left


NUMBERS = shapes.arrays(
    st.sampled_from([np.dtype("<u2"), np.dtype("<u4"), np.dtype("<f4"), np.dtype("?")]),
    shapes.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5),
)


@given(NUMBERS)
def test_numpy_reads_the_same(array: np.ndarray) -> None:
    for one in (array, array.T, array[::-1]):
        found = np.load(io.BytesIO(b"".join(array_bytes(one))), allow_pickle=False)
        assert found.dtype == one.dtype and found.shape == one.shape and found.tobytes() == one.tobytes()
        ours, theirs = io.BytesIO(b"".join(array_bytes(np.ascontiguousarray(one)))), io.BytesIO()
        np.save(theirs, np.ascontiguousarray(one))
        assert ours.getvalue() == theirs.getvalue()


def test_records_of_numbers(tmp_path: Path) -> None:
    places = np.zeros(3, PLACE)
    places["length"] = [1, 2, 3]
    save_array(tmp_path / "a.npy", places)
    assert (np.load(tmp_path / "a.npy", allow_pickle=False) == places).all()


def test_what_the_system_says_in_its_own_way() -> None:
    there = Path("/x/.base.tmp-0123abcd/ids.npy")
    for error in (OSError("100443 requested and 90048 written"), OSError(errno.ENOSPC, "full"), RuntimeError("os error 28")):  # fmt: skip
        said = user_error(error, there)
        assert said is not None and said.cause == "cannot write /x/base/ids.npy: the disk is full"
    assert user_error(OSError("3 requested and written"), there) is None
