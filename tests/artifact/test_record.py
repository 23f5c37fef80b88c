import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.artifact.record import Record, machine_facts, version_facts
from onebase.errors import ArtifactError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.text(min_size=1), values, st.text(min_size=1)), max_size=4))
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
        record.add("loss", 1.0, "")


def test_undecodable_text(tmp_path: Path) -> None:
    record = Record("run")
    record.add("file", "a\udc80", "stated")
    record.save(tmp_path / "record.json")
    assert Record.load(tmp_path).get("file") == "a\udc80"


GOOD = {"schema": 1, "kind": "base", "hashes": {}, "parents": [], "events": []}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"schema": 2}, "schema 2"),
        ({"kind": 1}, "not a record"),
        ({"hashes": {"a": 1}}, "hashes are text"),
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
