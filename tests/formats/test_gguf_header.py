"""GGUF files that are damaged or made to harm: each is refused with a word of what is wrong, in little time and memory."""

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

gguf = pytest.importorskip("gguf")

from onebase.errors import ArtifactError, UserError  # noqa: E402
from onebase.formats.gguf import open_gguf  # noqa: E402
from onebase.formats.gguf.header import TENSOR_TYPES, read_header  # noqa: E402
from onebase.formats.gguf.source import GGUFFile  # noqa: E402
from tests.formats.gguf_files import bytes_vocab, write  # noqa: E402


def text(s: str | bytes) -> bytes:
    raw = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<Q", len(raw)) + raw


def key(name: str | bytes, code: int, raw: bytes) -> bytes:
    return text(name) + struct.pack("<I", code) + raw


def tensor(name: str, shape: tuple[int, ...], code: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, code, offset)


def file(
    keys: tuple[bytes, ...] = (),
    tensors: tuple[bytes, ...] = (),
    *,
    data: int = 4096,
    start: bytes = b"GGUF" + struct.pack("<I", 3),
    counts: tuple[int, int] | None = None,
) -> bytes:
    """A file of these parts, with so much data behind it."""
    head = start + struct.pack("<QQ", *(counts or (len(tensors), len(keys)))) + b"".join(keys + tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


def array(code: int, count: int, raw: bytes = b"") -> bytes:
    return struct.pack("<IQ", code, count) + raw


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a GGUF"),
    "magic": (b"PK\x03\x04" + bytes(64), "not a GGUF"),
    "magic alone": (b"GGUF", "version"),
    "version 1": (file(start=b"GGUF" + struct.pack("<I", 1)), "version 1"),
    "version 99": (file(start=b"GGUF" + struct.pack("<I", 99)), "version 99"),
    "version 0": (file(start=b"GGUF" + struct.pack("<I", 0)), "version 0"),
    "big endian": (file(start=b"GGUF" + struct.pack(">I", 3)), "big-endian"),
    "2^63 tensors": (file(counts=(2**63, 0)), "tensors are declared"),
    "2^64-1 keys": (file(counts=(0, 2**64 - 1)), "keys are declared"),
    "many keys": (file(counts=(0, 10**6), data=14 * 10**6), "at most 65,536"),
    "key length": (file((struct.pack("<Q", 2**62) + b"a",)), "key"),
    "key not UTF-8": (file((key(b"\xff\xfe", 4, bytes(4)),)), "UTF-8"),
    "key empty": (file((key("", 4, bytes(4)),)), "empty"),
    "key twice": (file((key("a", 4, bytes(4)), key("a", 4, bytes(4)))), "'a' appears twice"),
    "type": (file((key("a", 13, bytes(8)),)), "unknown type 13"),
    "bool": (file((key("a", 7, b"\x02"),)), "neither true nor false"),
    "NaN": (file((key("a", 6, struct.pack("<f", float("nan"))),)), "nan"),
    "text length": (file((key("a", 8, struct.pack("<Q", 2**63)),)), "'a'"),
    "text not UTF-8": (file((key("a", 8, text(b"\xc3\x28")),)), "UTF-8"),
    "array of 2^62": (file((key("a", 9, array(4, 2**62)),)), "numbers of key 'a'"),
    "array of 2^61 texts": (file((key("a", 9, array(8, 2**61)),)), "texts of key 'a'"),
    "array of bools": (file((key("a", 9, array(7, 2**61)),)), "key 'a'"),
    "text in an array": (file((key("a", 9, array(8, 1, struct.pack("<Q", 2**60))),)), "element 0"),
    "texts not UTF-8": (file((key("a", 9, array(8, 2, text("x") + text(b"\xff"))),)), "element 1"),
    "arrays nested": (file((key("a", 9, array(9, 1, array(4, 1, bytes(4)))),)), "array of arrays"),
    "array type": (file((key("a", 9, array(77, 1, bytes(8))),)), "unknown type 77"),
    "alignment 0": (file((key("general.alignment", 4, bytes(4)),)), "alignment"),
    "alignment 3": (file((key("general.alignment", 4, struct.pack("<I", 3)),)), "alignment"),
    "alignment text": (file((key("general.alignment", 8, text("32")),)), "alignment"),
    "alignment 2^31": (file((key("general.alignment", 4, struct.pack("<I", 2**31)),)), "alignment"),
    "name too long": (file((), (tensor("a" * 65, (4,)),)), "65 bytes"),
    "tensor twice": (file((), (tensor("a", (4,)), tensor("a", (4,), offset=32))), "'a' appears twice"),
    "overlap": (file((), (tensor("a", (16,)), tensor("b", (4,), offset=32))), "'a' and 'b' overlap"),
    "same place": (file((), (tensor("a", (4,)), tensor("b", (4,)))), "overlap"),
    "offset": (file((), (tensor("a", (4,), offset=2**40),)), "ends at byte"),
    "offset 2^64-32": (file((), (tensor("a", (4,), offset=2**64 - 32),)), "ends at byte"),
    "offset odd": (file((), (tensor("a", (4,), offset=4),)), "multiple of 32"),
    "too large": (file((), (tensor("a", (2**20, 4)),)), "ends at byte"),
    "2^63 rows": (file((), (tensor("a", (4, 2**63)),)), "ends at byte"),
    "product wraps to 0": (file((), (tensor("a", (2**32, 2**32)),)), "ends at byte"),
    "no rows": (file((), (tensor("a", (4, 0)),)), "shape"),
    "no dimensions": (file((), (tensor("a", ()),)), "0 dimensions"),
    "2^31 dimensions": (file((), (text("a") + struct.pack("<I", 2**31),)), "dimensions"),
    "part of a block": (file((), (tensor("a", (33,), 8),)), "cannot store"),
    "type not read": (file((), (tensor("a", (256,), 10),)), "Q2_K"),
    "type unknown": (file((), (tensor("a", (256,), 4242),)), "number 4242"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_header_is_refused_by_name(name: str) -> None:
    data, said = BAD[name]
    tracemalloc.start()
    with pytest.raises(ArtifactError, match=said):
        read_header(data, "x.gguf")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20 + len(data)


def test_what_is_good_is_read() -> None:
    head = read_header(
        file(
            (
                key("general.alignment", 4, struct.pack("<I", 64)),
                key("eps", 6, struct.pack("<f", 1e-5)),
                key("yes", 7, b"\1"),
                key("ids", 9, array(5, 2, struct.pack("<ii", -1, 7))),
                key("words", 9, array(8, 2, text("a") + text("é"))),
            ),
            (tensor("b", (4, 2), offset=64), tensor("a", (3,))),
        ),
        "x.gguf",
    )
    assert head.metadata["eps"] == 1e-5 and head.metadata["yes"] is True
    assert head.metadata["ids"].tolist() == [-1, 7] and head.metadata["words"] == ["a", "é"]
    assert head.tensors["b"].shape == (2, 4) and head.tensors["b"].start % 64 == 0


def test_every_type_says_what_the_package_says(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for code, kind in TENSOR_TYPES.items():
        size = kind.size * 6 * (256 // kind.block)
        raw = generator.integers(0, 120, size, dtype=np.uint8)  # small enough that no scale is infinite
        path = tmp_path / f"{kind.name}.gguf"
        shape = (kind.block * (256 // kind.block) * 2, 3)
        path.write_bytes(file((), (tensor("a", shape, code),), data=0) + raw.tobytes())
        found = GGUFFile(path).read("a")
        wanted = gguf.quants.dequantize(raw.reshape(3, -1), gguf.GGMLQuantizationType(code))
        assert found.shape == (3, shape[0])
        assert torch.equal(found.float(), torch.from_numpy(np.array(wanted)).float().view(3, -1)), kind.name


def split(folder: Path, parts: list[dict[str, Any]]) -> Path:
    for i, part in enumerate(parts):
        keys = [key(f"split.{n}", 2, struct.pack("<H", part[n])) for n in ("no", "count") if n in part]
        keys.append(key("split.tensors.count", 5, struct.pack("<i", part.get("total", len(parts)))))
        name = part.get("name", f"m-{i + 1:05}-of-{len(parts):05}.gguf")
        (folder / name).write_bytes(file(tuple(keys), (tensor(part["tensor"], (4,)),)))
    return folder / "m-00001-of-00002.gguf"


def test_a_split_file_is_read_whole(tmp_path: Path) -> None:
    first = split(tmp_path, [{"no": 0, "count": 2, "tensor": "a"}, {"no": 1, "count": 2, "tensor": "b"}])
    assert set(GGUFFile(first).shapes()) == {"a", "b"}
    with pytest.raises(ArtifactError, match="not the first"):
        GGUFFile(tmp_path / "m-00002-of-00002.gguf")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tensor": "a"}, "in another part"),
        ({"no": 0}, "is not part 2"),
        ({"count": 3}, "is not part 2"),
        ({"name": "other.gguf"}, "there is no file"),
    ],
)
def test_a_split_file_that_does_not_fit_together(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    parts = [{"no": 0, "count": 2, "tensor": "a"}, {"no": 1, "count": 2, "tensor": "b"} | change]
    with pytest.raises(ArtifactError, match=said):
        GGUFFile(split(tmp_path, parts))


def test_a_count_of_parts_that_is_not_in_the_name(tmp_path: Path) -> None:
    for count, total, said in ((60000, 2, "its name has"), (2, 7, "7 are declared")):
        parts = [
            {"no": 0, "count": count, "tensor": "a", "total": total},
            {"no": 1, "count": count, "tensor": "b"},
        ]
        with pytest.raises(ArtifactError, match=said):
            GGUFFile(split(tmp_path, parts))


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.gguf").touch()
    for name in ("missing.gguf", "empty.gguf", "."):
        with pytest.raises(ArtifactError, match="file|read"):
            GGUFFile(tmp_path / name)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A whole valid model in some kilobytes."""
    folder = tmp_path_factory.mktemp("tiny")
    vocab = bytes_vocab(["</s>"])
    size = len(vocab["tokenizer.ggml.tokens"])
    own = {
        "block_count": 1,
        "context_length": 16,
        "embedding_length": 4,
        "feed_forward_length": 4,
        "attention.head_count": 2,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }
    names = {"attn_q": (4, 4), "attn_k": (4, 4), "attn_v": (4, 4), "attn_output": (4, 4), "ffn_gate": (4, 4)}
    names |= {"ffn_up": (4, 4), "ffn_down": (4, 4), "attn_norm": (4,), "ffn_norm": (4,)}
    tensors = {f"blk.0.{n}.weight": torch.ones(s) for n, s in names.items()}
    tensors |= {"token_embd.weight": torch.ones(size, 4), "output_norm.weight": torch.ones(4)}
    metadata = {f"llama.{k}": v for k, v in own.items()} | vocab
    return write(folder / "a.gguf", "llama", metadata, tensors).read_bytes()


EDIT = st.tuples(st.integers(0, 2**20), st.one_of(st.binary(min_size=1, max_size=9), st.integers(0, 3)))


@settings(max_examples=300)
@given(edits=st.lists(EDIT, min_size=1, max_size=4), cut=st.one_of(st.none(), st.integers(0, 2**20)))
def test_a_file_with_changed_bytes_opens_or_is_refused(
    tiny: bytes, tmp_path_factory: pytest.TempPathFactory, edits: list[Any], cut: int | None
) -> None:
    data = bytearray(tiny)
    for at, what in edits:
        at %= len(data)
        # Bytes anew, or a 64-bit number that is far too large, negative, or one off.
        raw = what if isinstance(what, bytes) else struct.pack("<Q", (0, 2**63, 2**64 - 1, 2**32)[what])
        data[at : at + len(raw)] = raw
    _opens_or_is_refused(tmp_path_factory, bytes(data[: None if cut is None else cut % len(data)]))


@settings(max_examples=100)
@given(junk=st.binary(max_size=400), counts=st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_junk_behind_a_good_start_is_refused(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, counts: tuple[int, int]
) -> None:
    start = b"GGUF" + struct.pack("<IQQ", 3, *counts)
    _opens_or_is_refused(tmp_path_factory, start + junk)


def _opens_or_is_refused(factory: pytest.TempPathFactory, data: bytes) -> None:
    path = factory.getbasetemp() / "fuzzed.gguf"
    path.write_bytes(data)
    try:
        open_gguf(path)
    except UserError:
        return
