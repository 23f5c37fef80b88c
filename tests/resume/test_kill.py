"""Kill -9 anywhere, start again: every parameter, optimizer state and later loss is bitwise that of the undisturbed run."""

import json
import multiprocessing
import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from onebase.artifact.files import verify
from onebase.errors import ArtifactError
from onebase.train.checkpoint import list_checkpoints
from tests.resume import workers

# A server process that has imported everything; each run is forked from it, a real process of its own.
fork = multiprocessing.get_context("forkserver")
fork.set_forkserver_preload(["tests.resume.workers"])

# How often each place is passed, at least, in an undisturbed run: a count beyond it would not kill, and the test would say so.
PLACES = {"losses": 27, "optimizer": 9, "log": 9, "fsync": 20, "rename": 5}


def in_process(target: object, *args: object) -> int | None:
    process = fork.Process(target=target, args=args)  # type: ignore[arg-type]
    process.start()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def last(folder: Path) -> Path:
    return list_checkpoints(folder / "checkpoints")[-1]


def losses(folder: Path) -> dict[int, tuple[float, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(workers.STEPS))
    return {line["step"]: (line["loss"], line["grad_norm"]) for line in lines}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert in_process(workers.finish, str(folder)) == 0
    return folder


def points() -> list[tuple[str, int]]:
    rng = random.Random(7)
    chosen = [(place, rng.randint(1, most)) for place, most in PLACES.items()]
    return chosen + [
        (place, rng.randint(1, PLACES[place]))
        for place in ("losses", "fsync", "fsync", "rename", "optimizer")
    ]


@pytest.mark.parametrize(("place", "count"), points())
def test_kill_and_resume(undisturbed: Path, tmp_path: Path, place: str, count: int) -> None:
    assert in_process(workers.die_at, str(tmp_path), place, count) == -signal.SIGKILL
    for checkpoint in list_checkpoints(tmp_path / "checkpoints"):
        verify(checkpoint)  # whatever is there is whole
    assert in_process(workers.finish, str(tmp_path)) == 0
    assert losses(tmp_path) == losses(undisturbed)
    for name in ("model-00001.safetensors", "optim-00001.safetensors"):
        assert (last(tmp_path) / name).read_bytes() == (last(undisturbed) / name).read_bytes(), name


def test_a_run_of_text_and_media_killed_and_resumed(tmp_path: Path) -> None:
    assert in_process(workers.finish, str(tmp_path / "straight"), True) == 0
    assert in_process(workers.die_at, str(tmp_path / "killed"), "losses", 26, True) == -signal.SIGKILL
    assert in_process(workers.finish, str(tmp_path / "killed"), True) == 0
    assert losses(tmp_path / "killed") == losses(tmp_path / "straight")
    for name in ("model-00001.safetensors", "optim-00001.safetensors"):
        assert (last(tmp_path / "killed") / name).read_bytes() == (
            last(tmp_path / "straight") / name
        ).read_bytes()


def test_twice_killed(undisturbed: Path, tmp_path: Path) -> None:
    assert in_process(workers.die_at, str(tmp_path), "losses", 17) == -signal.SIGKILL
    assert in_process(workers.die_at, str(tmp_path), "fsync", 2) == -signal.SIGKILL
    assert in_process(workers.finish, str(tmp_path)) == 0
    assert losses(tmp_path) == losses(undisturbed)


def test_one_flipped_byte_is_refused(undisturbed: Path, tmp_path: Path) -> None:
    import shutil

    for name in ("model-00001.safetensors", "optim-00001.safetensors", "state.json", "manifest.json"):
        folder = tmp_path / name
        shutil.copytree(undisturbed, folder)
        bad = last(folder) / name
        data = bytearray(bad.read_bytes())
        data[len(data) // 2] ^= 1
        bad.write_bytes(bytes(data))
        with pytest.raises(ArtifactError, match=name.split(".")[0]):
            workers.run_job(workers.small_job(folder, steps=workers.STEPS))


def test_other_data_or_recipe_is_refused(undisturbed: Path) -> None:
    with pytest.raises(ArtifactError, match="another recipe"):
        workers.run_job(workers.small_job(undisturbed, seed=5))


def test_a_run_of_before_an_identity_is_not_gone_on_with(undisturbed: Path) -> None:
    """What a later version draws otherwise has a key of its own in the identity; the old checkpoint lacks it."""
    job = workers.small_job(undisturbed, steps=workers.STEPS)
    with pytest.raises(ArtifactError, match="does not record its infill: it was written by another version"):
        workers.run_job(replace(job, identity={"infill": "2"}))
