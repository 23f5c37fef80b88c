"""Facts added to a record: the artifact is whole at every instant, and its fingerprint the same."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from onebase.artifact import appending
from onebase.artifact.appending import add_facts
from onebase.artifact.files import ArtifactWriter, check_fast, read_manifest, verify
from onebase.artifact.record import Record
from onebase.errors import ArtifactError


def made(folder: Path) -> Path:
    record = Record("adapter", {"fingerprint": "ob1-1"})
    record.add("task", "classify", "default")
    with ArtifactWriter(folder, "adapter", {"fingerprint": "ob1-1"}) as w:
        w.path("weights").write_bytes(b"w" * 1000)
        record.save(w.path("record.json"))
    return folder


def note(folder: Path, value: object) -> None:
    add_facts(folder, lambda r: r.add("scores.a", value, "measured"))


def test_an_event_is_added_and_all_else_stays(tmp_path: Path) -> None:
    folder = made(tmp_path / "a")
    before = read_manifest(folder)
    note(folder, 1)
    note(folder, 2)
    verify(folder)
    check_fast(folder)
    record, after = Record.load(folder), read_manifest(folder)
    assert [e.value for e in record.events] == ["classify", 1, 2]
    assert after["facts"] == before["facts"] and after["files"]["weights"] == before["files"]["weights"]
    assert set(after["files"]["record.json"]) == {"sha256", "bytes"}
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    add_facts(folder, lambda r: None)
    assert read_manifest(folder) == after


@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_step_it_is_whole(
    step: int, after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real, calls = made(tmp_path / "a"), appending._replace, []

    def killed(path: Path, content: bytes) -> None:
        calls.append(path)
        if len(calls) == step + 1 and not after:
            raise KeyboardInterrupt
        real(path, content)
        if len(calls) == step + 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(appending, "_replace", killed)
    with pytest.raises(KeyboardInterrupt):
        note(folder, 1)
    verify(folder)
    assert len(Record.load(folder).events) == 1 + (step + after > 1)
    monkeypatch.undo()
    note(folder, 2)
    verify(folder)
    assert Record.load(folder).get("scores.a") == 2


def test_a_record_changed_by_hand_is_still_seen_halfway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real = made(tmp_path / "a"), appending._replace
    with monkeypatch.context() as patch:
        steps: list[Path] = []

        def first(path: Path, content: bytes) -> None:
            if steps:
                raise KeyboardInterrupt
            steps.append(path)
            real(path, content)

        patch.setattr(appending, "_replace", first)
        with pytest.raises(KeyboardInterrupt):
            note(folder, 1)
    raw = (folder / "record.json").read_text()
    (folder / "record.json").write_text(raw.replace("classify", "regressy"))
    with pytest.raises(ArtifactError, match=r"record\.json is"):
        verify(folder)


def _many(folder: Path, name: int) -> None:
    for i in range(5):
        note(folder, f"{name}.{i}")


def test_several_processes_lose_nothing(tmp_path: Path) -> None:
    folder = made(tmp_path / "a")
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=_many, args=(folder, i)) for i in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    verify(folder)
    assert {e.value for e in Record.load(folder).events} == {"classify"} | {
        f"{n}.{i}" for n in range(3) for i in range(5)
    }


def test_what_cannot_take_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArtifactError):
        note(tmp_path / "nothing", 1)
    with ArtifactWriter(tmp_path / "b", "run") as w:
        w.path("x").write_text("x")
    with pytest.raises(ArtifactError, match="has no record"):
        note(tmp_path / "b", 1)
    folder = made(tmp_path / "a")
    monkeypatch.setattr(
        os, "access", lambda *_: False
    )  # tests may run as root, whom nothing is read-only for
    with pytest.raises(ArtifactError, match="cannot be written"):
        note(folder, 1)
    assert json.loads((folder / "record.json").read_text())["events"][-1]["field"] == "task"
