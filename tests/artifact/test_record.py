import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.artifact.record import Origin, Record, by_given, machine_facts, version_facts
from onebase.errors import ArtifactError, ConfigError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


origins = st.builds(lambda o, more: f"{o}: {more}", st.sampled_from(list(Origin)), st.text())


@settings(max_examples=40)
@given(st.lists(st.tuples(st.text(min_size=1), values, origins), max_size=4))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, facts: list[tuple[str, Any, str]]) -> None:
    record = Record("base", {"fingerprint": "ob1-0"})
    record.add_parent("dataset", "ob1-1", "talk", relied_on=["tokenizer"])
    for fact in facts:
        record.add(*fact)
    path = tmp_path_factory.getbasetemp() / "record.json"
    record.save(path)
    assert Record.load(path) == record
    assert Record.load(path.parent) == record


def test_the_latest_counts_and_the_earlier_stays() -> None:
    record = Record("run")
    record.add("loss", 2.0, "measured")
    record.add("loss", float("nan"), "measured")
    assert record.get("loss") == "nan"
    assert [e.value for e in record.events] == [2.0, "nan"]
    assert record.get("absent") is None and record.get("absent", 3) == 3
    assert record.events[0].time.endswith("+00:00")
    with pytest.raises(AssertionError):
        record.add("", 1.0, "measured")


@pytest.mark.parametrize("origin", ["", "stated", "made up", "defaulted", "countedx"])
def test_an_origin_is_one_of_the_list(origin: str) -> None:
    with pytest.raises(ConfigError, match="unknown origin") as e:
        Record("run").add("loss", 1.0, origin)
    assert all(o in e.value.remedy for o in Origin)


leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
keys = st.text("abc", min_size=1, max_size=2)
trees = st.recursive(
    st.dictionaries(keys, leaves, min_size=1, max_size=3),
    lambda inner: st.dictionaries(
        keys, leaves | inner | st.lists(inner, min_size=1, max_size=2), min_size=1, max_size=3
    ),
    max_leaves=6,
)


@given(trees, st.integers(0, 2**32))
def test_a_tree_in_parts_is_the_same_tree(tree: dict[str, Any], seed: int) -> None:
    """Whichever values were given: put together it is what it was, and each part has the origin of all that is in it."""
    draws = random.Random(seed)
    chosen: dict[tuple[str, ...], str] = {}
    record = Record("run")
    record.add_tree("a", tree, lambda path: chosen.setdefault(path, draws.choice(list(Origin))))
    assert record.get("a") == tree
    for path, origin in chosen.items():
        assert {
            e.origin for e in record.events if path == () or ("a." + ".".join(path)).startswith(e.field)
        } >= {origin}


def test_what_was_given_of_a_config_and_what_was_not() -> None:
    of = by_given({"a": {"b": 1}, "c": [{"d": 1}], "e": "name", "f": [1, 2], "g": {}})
    stated = [("a", "b"), ("c", "0", "d"), ("e", "kind"), ("f",)]
    default = [("a", "x"), ("c", "0", "x"), ("c", "1", "d"), ("e", "rate"), ("h",), ("g", "x")]
    assert {of(p) for p in stated} == {Origin.USER} and {of(p) for p in default} == {Origin.DEFAULT}


def test_undecodable_text(tmp_path: Path) -> None:
    record = Record("run")
    record.add("file", "a\udc80", "stated by the user")
    record.save(tmp_path / "record.json")
    assert Record.load(tmp_path).get("file") == "a\udc80"


GOOD = {"schema": 1, "kind": "base", "hashes": {}, "parents": [], "events": []}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"schema": 2}, "schema 2"),
        ({"kind": 1}, "not a record"),
        ({"hashes": {"a": 1}}, "hashes must be text"),
        ({"parents": [{"kind": "base"}]}, "not a record"),
        ({"parents": 3}, "not a record"),
        ({"events": [{"field": "x"}]}, "not a record"),
        ({"events": [{"time": 1, "field": "x", "value": 1, "origin": "y"}]}, "not a record"),
    ],
)
def test_not_a_record(tmp_path: Path, change: dict[str, Any], part: str) -> None:
    (tmp_path / "record.json").write_text(json.dumps(GOOD | change))
    with pytest.raises(ArtifactError, match=part):
        Record.load(tmp_path)


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"record\.json cannot be read"):
        Record.load(tmp_path)
    for text in (b"{", b"\xff", b"[]"):
        (tmp_path / "record.json").write_bytes(text)
        with pytest.raises(ArtifactError, match=r"record\.json"):
            Record.load(tmp_path)


def test_facts() -> None:
    machine, versions = machine_facts(), version_facts()
    assert set(machine) == {"cpu", "cores", "memory_bytes", "platform", "python", "accelerators"}
    assert machine["cores"] >= 1
    assert {"torch", "numpy"} <= set(versions)
    json.dumps([machine, versions])
