"""What is quickest here: the quickest way is chosen, kept, asked anew for another machine, and never believed from a damaged file."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from onebase import machine


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own, nothing chosen yet, and no other program that wants the cores."""
    monkeypatch.setenv("ONEBASE_HOME", str(tmp_path))
    monkeypatch.setattr(machine, "_here", {})
    monkeypatch.setattr(machine, "is_busy", lambda: False)


def sleeps(seconds: float, calls: list[float] | None = None) -> Callable[[], None]:
    def run() -> None:
        time.sleep(seconds)
        if calls is not None:
            calls.append(seconds)

    return run


def test_the_quickest_way_is_chosen_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []
    ways = {"usual": sleeps(0.02, calls), "quick": sleeps(0.002, calls)}
    found = machine.choose("which?", ways)
    assert found.chosen == "quick" and found.seconds["quick"] < found.seconds["usual"]
    made = len(calls)
    assert machine.choose("which?", ways) == found and len(calls) == made
    monkeypatch.setattr(machine, "_here", {})  # another process
    assert machine.choose("which?", ways) == found and len(calls) == made
    assert [c.question for c in machine.known()] == ["which?"]


def test_the_usual_way_stays_where_the_other_is_hardly_quicker() -> None:
    found = machine.choose("which?", {"usual": sleeps(0.0205), "other": sleeps(0.02)})
    assert found.chosen == "usual"


def test_other_ways_ask_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    machine.choose("which?", {"a": sleeps(0), "b": sleeps(0.005)})
    monkeypatch.setattr(machine, "_here", {})
    assert machine.choose("which?", {"a": sleeps(0.02), "c": sleeps(0)}).chosen == "c"


def test_another_chip_or_number_of_threads_asks_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    machine.choose("which?", {"a": sleeps(0), "b": sleeps(0.005)})
    facts = machine.facts()
    for key in ("cpu", "threads", "instructions", "torch"):
        monkeypatch.setattr(machine, "_here", {})
        monkeypatch.setattr(machine, "facts", lambda key=key: facts | {key: "another"})
        assert machine.known() == []


def test_what_is_measured_on_a_busy_machine_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "is_busy", lambda: True)
    assert machine.choose("which?", {"a": sleeps(0), "b": sleeps(0.005)}).busy
    assert not machine.path().exists() and len(machine.known()) == 1


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"choices": 3}',
        '{"choices": [{"question": "which?"}]}',
        '{"choices": [{"question": "which?", "chosen": "gone", "seconds": {"a": 1, "b": 1}}]}',
        '{"choices": [{"question": [], "chosen": "a", "seconds": {"a": 1}}]}',
        "\ud800".encode("utf-8", "surrogatepass"),
    ],
)
def test_a_damaged_file_is_measured_again(content: str | bytes) -> None:
    machine.path().parent.mkdir(parents=True)
    machine.path().write_bytes(content if isinstance(content, bytes) else content.encode())
    assert machine.choose("which?", {"a": sleeps(0.01), "b": sleeps(0)}).chosen == "b"
    assert json.loads(machine.path().read_text())["choices"][0]["chosen"] == "b"


def test_without_a_folder_it_holds_for_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("ONEBASE_HOME", str(tmp_path / "file"))
    assert machine.choose("which?", {"a": sleeps(0.01), "b": sleeps(0)}).chosen == "b"
    assert len(machine.known()) == 1


@pytest.mark.parametrize(
    ("files", "share"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "nonsense"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "0\n"}, None),
    ],
)
def test_the_share_of_a_control_group(tmp_path: Path, files: dict[str, str], share: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine._share(tmp_path) == share
