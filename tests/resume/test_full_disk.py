"""The disk is full when the log is to be written: one clear error, the last checkpoint whole, and the run goes on when there is room."""

import multiprocessing
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from onebase.artifact.files import verify
from onebase.train.callbacks import read_log
from onebase.train.checkpoint import list_checkpoints
from tests.resume import workers

fork = multiprocessing.get_context("forkserver")
fork.set_forkserver_preload(["tests.resume.workers"])

SAID = {
    "limit": "the file exceeds the size limit\n  raise the file size limit (ulimit -f) or choose another disk",
    "disk": "the disk is full\n  free some space or choose another path; existing files are unchanged",
}


def in_process(target: object, *args: object) -> int | None:
    process = fork.Process(target=target, args=args)  # type: ignore[arg-type]
    process.start()
    process.join(120)
    return process.exitcode


@pytest.fixture
def place(tmp_path: Path, how: str) -> Iterator[Path]:
    """A folder, for "disk" on a small file system of its own."""
    found = tmp_path / "place"
    found.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(found)]
    if how == "disk" and subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield found / "run"
    if how == "disk":
        subprocess.run(["umount", str(found)], capture_output=True, check=False)


@pytest.mark.parametrize("how", ["limit", "disk"])
def test_a_log_that_cannot_be_written(tmp_path: Path, place: Path, how: str) -> None:
    said = tmp_path / "said"
    assert in_process(workers.fill_at, str(place), how, 4, str(said)) == 1
    assert said.read_text() == f"cannot write {place / 'log.jsonl'}: {SAID[how]}"
    assert [line["step"] for line in read_log(place / "log.jsonl")] == [0, 1, 2, 3, 4]
    kept = list_checkpoints(place / "checkpoints")
    assert [p.name for p in kept] == ["step_00000002", "step_00000004"]
    for checkpoint in kept:
        verify(checkpoint)

    (place / "filler").unlink(missing_ok=True)
    assert in_process(workers.finish, str(place)) == 0
    assert in_process(workers.finish, str(tmp_path / "undisturbed")) == 0
    there, here = (read_log(p / "log.jsonl") for p in (place, tmp_path / "undisturbed"))
    assert [(line["step"], line["loss"]) for line in there] == [(line["step"], line["loss"]) for line in here]
    for name in ("model-00001.safetensors", "optim-00001.safetensors"):
        last = [list_checkpoints(p / "checkpoints")[-1] / name for p in (place, tmp_path / "undisturbed")]
        assert last[0].read_bytes() == last[1].read_bytes()
