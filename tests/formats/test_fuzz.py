"""Damaged copies of good files: each is read or refused by a UserError, in little time. More of it: fuzz/README.md, ONEBASE_FUZZ=1000."""

import json
import os
import struct
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("gguf")

from fuzz.targets import TARGETS, good

EXAMPLES = int(os.environ.get("ONEBASE_FUZZ", "25"))
SLOW = 10.0
"""Seconds that any one file may take."""
JSONS = [n for n, (_, file) in TARGETS.items() if file.endswith(".json")]
HEADERS = ["safetensors", "peft_weights"]
THRIFTY = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=EXAMPLES == 25,
)

numbers = st.sampled_from(
    [0, 1, -1, 2, 7, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 0.5, -0.0, 1e308]
)
words = st.sampled_from(
    [
        "",
        "a",
        "..",
        "../x",
        "/etc/passwd",
        "F32",
        "F64",
        "BF16",
        "I8",
        "\u0000",
        "<|eos|>",
        "BPE",
        "silu",
        "x" * 5000,
    ]
)
leaves = st.one_of(numbers, words, st.booleans(), st.none())
values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=5,
)


@st.composite
def damage(draw: st.DrawFn, tree: Any, times: int) -> Any:
    """The tree with some of its values changed, taken out, moved or doubled."""
    tree = json.loads(json.dumps(tree))
    for _ in range(draw(st.integers(1, times))):
        place = tree
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            inside = place[key]
            if isinstance(inside, dict | list) and inside and draw(st.booleans()):
                place = inside
                continue
            act = draw(st.sampled_from(["change", "change", "drop", "copy"]))
            if act == "change":
                place[key] = draw(values)
            elif act == "drop":
                del place[key]
            elif isinstance(place, dict):
                place[draw(words)] = inside
            else:
                place.append(inside)
            break
    return tree


def runs(name: str, data: bytes) -> None:
    began = time.process_time()
    TARGETS[name][0](data)
    assert time.process_time() - began < SLOW


@pytest.mark.parametrize("name", TARGETS)
def test_a_good_file_is_read(name: str) -> None:
    runs(name, (good() / TARGETS[name][1]).read_bytes())


@pytest.mark.parametrize("name", JSONS)
@THRIFTY
@given(data=st.data())
def test_json_with_other_values(name: str, data: st.DataObject) -> None:
    tree = json.loads((good() / TARGETS[name][1]).read_bytes())
    runs(name, json.dumps(data.draw(damage(tree, 3))).encode())


@pytest.mark.parametrize("name", HEADERS)
@THRIFTY
@given(data=st.data())
def test_a_header_of_safetensors_with_other_values(name: str, data: st.DataObject) -> None:
    """Shapes, types and offsets that do not fit, in a header that is whole."""
    raw = (good() / TARGETS[name][1]).read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.dumps(data.draw(damage(json.loads(raw[8 : 8 + size]), 3))).encode()
    runs(name, struct.pack("<Q", len(header)) + header + raw[8 + size :])


EDIT = st.tuples(st.integers(0, 2**20), st.one_of(st.binary(min_size=1, max_size=9), st.integers(0, 3)))


@pytest.mark.parametrize("name", TARGETS)
@THRIFTY
@given(edits=st.lists(EDIT, min_size=1, max_size=4), cut=st.one_of(st.none(), st.integers(0, 2**20)))
def test_bytes_changed_or_cut_off(name: str, edits: list[Any], cut: int | None) -> None:
    raw = bytearray((good() / TARGETS[name][1]).read_bytes())
    for at, what in edits:
        at %= min(len(raw), 20_000)  # where headers are
        new = what if isinstance(what, bytes) else struct.pack("<Q", (0, 2**63, 2**64 - 1, 2**32)[what])
        raw[at : at + len(new)] = new
    runs(name, bytes(raw[: None if cut is None else cut % len(raw)]))


DEEP = {
    "nested lists": b"[" * 100_000,
    "nested maps": b'{"a":' * 100_000,
    "a long number": b'{"hidden_size": ' + b"9" * 100_000 + b"}",
    "no text": b"\xff\xfe\x00\x01",
    "nothing": b"",
    "a pickle": b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94.",
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("kind", DEEP)
def test_what_is_no_such_file(kind: str, name: str) -> None:
    runs(name, DEEP[kind])
