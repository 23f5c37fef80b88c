"""Hostile folders: each trap is refused with a cause that names it, runs no code, and takes no memory. (GGUF: test_gguf_header.py; templates:
codec/test_sandbox.py; random damage: test_fuzz.py.)
"""

import contextlib
import json
import os
import pickle
import resource
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import onebase
from fuzz.targets import good
from onebase.errors import ArtifactError, UserError
from onebase.formats.gguf.source import GGUFFile
from onebase.formats.hf.files import CONFIG, INDEX, WEIGHTS
from onebase.formats.hf.folder import HFFolder

SHARD = "model-00001-of-00002.safetensors"
OTHER = "model-00002-of-00002.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copied("hf", tmp_path)


def copied(kind: str, place: Path) -> Path:
    shutil.copytree(good() / kind, place / "model")
    return place / "model"


def refused(folder: Path, *parts: str) -> str:
    """The folder is refused, and the cause holds the parts. The whole of what was said."""
    with pytest.raises(UserError) as e:
        onebase.load(folder)
    for part in parts:
        assert part in e.value.cause, e.value.cause
    return e.value.cause


def file(header: Any, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(shape: Any, offsets: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


ONE = {"a": entry([4], [0, 16])}
SAFETENSORS: dict[str, bytes] = {
    "nothing": b"",
    "half a length": b"\x00\x00\x00",
    "a length alone": struct.pack("<Q", 100),
    "a header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "a header of 2^64-1 bytes": struct.pack("<Q", 2**64 - 1) + b"{}",
    "a header longer than the file": struct.pack("<Q", 10**6) + b"{}",
    "a header of a gigabyte": struct.pack("<Q", 10**9) + b" " * 1000,
    "a header that is no JSON": file(b"not JSON"),
    "a header that is a list": file([1, 2]),
    "a header that is no UTF-8": file(b'{"\xff": 1}'),
    "a header nested deep": file(b'{"a":' * 50_000),
    "data cut off": file(ONE, bytes(15)),
    "data too long": file(ONE, bytes(17)),
    "offsets beyond the file": file({"a": entry([4], [16, 32])}, bytes(16)),
    "offsets of 2^63": file({"a": entry([4], [2**63, 2**63 + 16])}, bytes(16)),
    "offsets that wrap": file({"a": entry([4], [2**64 - 16, 0])}, bytes(16)),
    "offsets turned round": file({"a": entry([4], [16, 0])}, bytes(16)),
    "offsets below zero": file({"a": entry([4], [-16, 0])}, bytes(16)),
    "tensors that overlap": file({"a": entry([4], [0, 16]), "b": entry([4], [8, 24])}, bytes(24)),
    "tensors in one place": file({"a": entry([4], [0, 16]), "b": entry([4], [0, 16])}, bytes(16)),
    "a hole between tensors": file({"a": entry([4], [0, 16]), "b": entry([4], [32, 48])}, bytes(48)),
    "2^63 dimensions' size": file({"a": entry([2**63], [0, 16])}, bytes(16)),
    "a product that wraps": file({"a": entry([2**32, 2**32], [0, 0])}),
    "a product that wraps to fit": file({"a": entry([2**62, 4, 4], [0, 16])}, bytes(16)),
    "a size below zero": file({"a": entry([-4], [0, 16])}, bytes(16)),
    "a size that is no number": file({"a": entry(["4"], [0, 16])}, bytes(16)),
    "more bytes than the shape": file({"a": entry([2], [0, 16])}, bytes(16)),
    "an unknown type": file({"a": entry([4], [0, 16], "F33")}, bytes(16)),
    "no offsets": file({"a": {"dtype": "F32", "shape": [4]}}, bytes(16)),
    "a pickle by another name": pickle.dumps({"a": 1}),
    "a zip, as torch.save writes": b"PK\x03\x04" + bytes(60),
}


@pytest.mark.parametrize("trap", SAFETENSORS)
def test_a_damaged_file_of_tensors_is_refused(trap: str, folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(SAFETENSORS[trap])
    assert "not a complete safetensors file" in refused(folder, WEIGHTS)


@pytest.mark.parametrize("trap", SAFETENSORS)
def test_a_damaged_shard_is_refused(trap: str, tmp_path: Path) -> None:
    folder = copied("shards", tmp_path)
    (folder / OTHER).write_bytes(SAFETENSORS[trap])
    refused(folder, OTHER)


@pytest.mark.parametrize("trap", SAFETENSORS)
def test_a_damaged_adapter_is_refused(trap: str, tmp_path: Path) -> None:
    folder = copied("peft", tmp_path)
    (folder / "adapter_model.safetensors").write_bytes(SAFETENSORS[trap])
    with pytest.raises(ArtifactError, match=r"adapter_model.safetensors"):
        onebase.load(good() / "hf").with_adapter(folder)


def test_a_file_that_shrinks_or_goes_while_it_is_read_is_named(tmp_path: Path) -> None:
    """A mapped file would end the process with a signal here."""
    folder = copied("hf", tmp_path)
    shutil.copy(good() / "gguf" / "a.gguf", folder)
    for source, file in (
        (HFFolder(folder), folder / WEIGHTS),
        (GGUFFile(folder / "a.gguf"), folder / "a.gguf"),
    ):
        name = max(source.shapes())
        os.truncate(file, 5000)
        with pytest.raises(ArtifactError, match="while it was read"):
            source.read(name)
        file.unlink()
        with pytest.raises(ArtifactError, match="cannot be read"):
            source.read(name)


def test_two_tensors_of_one_name_are_not_both_read(folder: Path) -> None:
    """JSON lets a key stand twice; whichever counts, the bytes of the other are a hole."""
    twice = '{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],"data_offsets":[16,32]}}'
    (folder / WEIGHTS).write_bytes(file(twice.encode(), bytes(32)))
    refused(folder, WEIGHTS)


INDICES: dict[str, tuple[Any, str]] = {
    "the folder above": ({"a": f"../{SHARD}"}, "has the shard"),
    "a folder below": ({"a": f"sub/{SHARD}"}, "has the shard"),
    "the root": ({"a": f"/tmp/{SHARD}"}, "has the shard"),
    "by backslashes": ({"a": f"..\\{SHARD}"}, "missing"),
    "the folder itself": ({"a": "."}, "has the shard"),
    "nothing": ({"a": ""}, "has the shard"),
    "a pickle": ({"a": "pytorch_model.bin"}, "has the shard"),
    "the index itself, in a circle": ({"a": INDEX}, "has the shard"),
    "the index by another name, in a circle": ({"a": "loop.safetensors"}, "loop.safetensors"),
    "a shard that is not there": ({"a": "model-00009-of-00009.safetensors"}, "is missing"),
    "a shard that is a folder": ({"a": "folder.safetensors"}, "is missing"),
    "a NUL": ({"a": "a\0.safetensors"}, "is missing"),
    "a very long name": ({"a": "a" * 5000 + ".safetensors"}, "has the shard"),
    "a number": ({"a": 7}, "has the shard"),
    "a list": ({"a": ["x"]}, "has the shard"),
    "no table": (None, "no weight_map"),
    "a table that is a list": ([], "no weight_map"),
    "an empty table": ({}, "no weight_map"),
}


@pytest.mark.parametrize("trap", INDICES)
def test_an_index_that_leads_elsewhere_is_refused(trap: str, tmp_path: Path) -> None:
    folder = copied("shards", tmp_path)
    (tmp_path / SHARD).write_bytes((folder / SHARD).read_bytes())
    (folder / "loop.safetensors").symlink_to("loop.safetensors")
    (folder / "folder.safetensors").mkdir()
    table, said = INDICES[trap]
    (folder / INDEX).write_text(json.dumps({"weight_map": table}))
    refused(folder, str(folder), said)


def test_an_index_that_says_other_than_its_shards(tmp_path: Path) -> None:
    folder = copied("shards", tmp_path)
    index = json.loads((folder / INDEX).read_text())
    table = index["weight_map"]
    name = next(iter(table))
    for changed, said in (
        (table | {"more.weight": SHARD}, "'more.weight' is in no shard"),
        ({k: v for k, v in table.items() if k != name}, f"{name!r} is not in the index"),
        (dict.fromkeys(table, SHARD), "is in no shard"),
    ):
        (folder / INDEX).write_text(json.dumps({"weight_map": changed}))
        refused(folder, said)
    (folder / INDEX).write_text(json.dumps(index))
    first = load_file(folder / SHARD)
    save_file(load_file(folder / OTHER) | dict([first.popitem()]), folder / OTHER)
    refused(folder, f"is in {SHARD} too")


@pytest.mark.parametrize(
    "name", [CONFIG, INDEX, "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
)
def test_a_file_that_is_far_too_large_is_not_read(name: str, tmp_path: Path) -> None:
    """A hole in the disk: a terabyte that takes no room. A folder that stands where a file should, and a file without end."""
    folder = copied("shards", tmp_path)
    os.truncate(folder / name, 1 << 40)
    refused(folder, name, "1,099,511,627,776 bytes")
    (folder / name).unlink()
    (folder / name).mkdir()
    with contextlib.suppress(UserError):  # where the file may be missing, the folder opens
        onebase.load(folder)
    (folder / name).rmdir()
    os.symlink("/dev/zero", folder / name)
    with contextlib.suppress(UserError):
        onebase.load(folder)


CONFIGS: dict[str, dict[str, Any]] = {
    "as many blocks as can be": {"num_hidden_layers": 2**20},
    "2^63 blocks": {"num_hidden_layers": 2**63},
    "2^63 wide": {"hidden_size": 2**63},
    "a million wide": {"hidden_size": 2**20, "head_dim": 2**19},
    "a vocabulary of 2^62": {"vocab_size": 2**62},
    "a feed-forward as large as can be": {"intermediate_size": 2**20},
    "2^62 positions": {"max_position_embeddings": 2**62},
    "heads of nothing": {"num_attention_heads": 0},
}
MEMORY = """
import resource, sys, time
import onebase, torch
from onebase.errors import UserError
onebase.load(sys.argv[1])
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
for folder in sys.argv[2:]:
    try:
        onebase.load(folder)
        print("opened", folder)
    except UserError:
        pass
print("kilobytes", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, "seconds", time.process_time() - began)
"""


def test_all_of_them_together_take_little_memory_and_time(tmp_path: Path) -> None:
    """In a process of its own, whose address space is bounded."""
    folders = []
    for i, raw in enumerate(SAFETENSORS.values()):
        folders.append(copied("hf", tmp_path / f"tensors{i}"))
        (folders[-1] / WEIGHTS).write_bytes(raw)
    for i, change in enumerate(CONFIGS.values()):
        folders.append(copied("hf", tmp_path / f"config{i}"))
        config = json.loads((folders[-1] / CONFIG).read_text())
        (folders[-1] / CONFIG).write_text(json.dumps(config | change))
    for name in (CONFIG, "tokenizer.json"):
        folders.append(copied("hf", tmp_path / name))
        os.truncate(folders[-1] / name, 1 << 40)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))

    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(good() / "hf"), *map(str, folders)],
        capture_output=True, text=True, timeout=600, preexec_fn=limit, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    *opened, last = done.stdout.splitlines()
    assert not opened
    assert int(last.split()[1]) < 300_000 and float(last.split()[3]) < 60, last
