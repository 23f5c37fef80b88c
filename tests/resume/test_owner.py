"""One process writes a folder at a time: the second is told who has it, a dead owner is followed. Real processes throughout."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from onebase.artifact import owned as module
from onebase.artifact.owned import owned
from onebase.data import Document, prepare
from onebase.errors import ArtifactError
from onebase.modality.text import Tokenizer
from onebase.train.callbacks import read_log
from tests.pretrained import onebase, tiny_run

ROOT = Path(__file__).parents[2]
ENV = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}


def start(*words: str | Path, module: str = "tests.resume.owners", ranks: int = 1) -> subprocess.Popen[str]:
    many = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    line = [sys.executable, *many, "-m", module, *map(str, words)]
    return subprocess.Popen(line, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=180)
    return process.returncode, out + err


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = start("hold", tmp_path / "run")
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def refusal(folder: Path, **how: bool) -> str:
    with pytest.raises(ArtifactError) as e, owned(folder, **how):
        pass
    assert e.value.remedy
    return e.value.cause


def test_the_owner_is_named_and_a_killed_one_is_followed(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    run = tmp_path / "run"
    (tmp_path / "link").symlink_to(run)
    for name in (run, tmp_path / "link", tmp_path / "." / "run"):
        said = refusal(name)
        assert f"{run} is being written by process {holder.pid} on {socket.gethostname()} (since 20" in said
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with owned(run):
        assert json.loads((run / ".owner").read_text())["pid"] == os.getpid()
        assert f"process {os.getpid()} " in refusal(run)
    assert list(run.iterdir()) == []


def test_nothing_is_left_and_what_was_there_stays(tmp_path: Path) -> None:
    with owned(tmp_path / "a" / "b" / "adapter", beside=True):
        assert (tmp_path / "a" / "b" / ".adapter.owner").is_file()
        assert "adapter is being written" in refusal(tmp_path / "a" / "b" / "adapter", beside=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run").mkdir()
    with owned(tmp_path / "run"):
        (tmp_path / "run" / "log.jsonl").touch()
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["log.jsonl"]


def test_two_are_never_inside(tmp_path: Path) -> None:
    """The file of the claim goes and comes while others are opening it."""
    (tmp_path / "run").mkdir()
    each = [start("take_turns", tmp_path / "run", "8") for _ in range(4)]
    assert [ended(p)[0] for p in each] == [0] * 4


RECIPE = {
    "name": "x",
    "model": {"width": 32, "depth": 1, "head_dim": 16, "context": 64, "vocab_size": 300},
    "train": {
        "steps": 5000,
        "batch_size": 8,
        "sequence_length": 64,
        "device": "cpu",
        "checkpoint": {"every": 20},
    },
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    rows = [json.dumps({"text": f"Text {i} of some words {i * i}."}) for i in range(300)]
    (tmp_path / "data.jsonl").write_text("\n".join(rows))
    sources = [{"name": "a", "kind": "jsonl", "path": str(tmp_path / "data.jsonl")}]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | {"data": {"sources": sources}}))
    return tmp_path / "recipe.yaml"


def begun(log: Path, steps: int, process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if len(read_log(log)) >= steps:
            return
        assert process.poll() is None, ended(process)
        time.sleep(0.1)
    raise AssertionError("it does not begin")


def test_two_pretrain_to_one_folder(tmp_path: Path, recipe: Path) -> None:
    words = ("pretrain", recipe, "--out", tmp_path / "run")
    log = tmp_path / "run" / "log.jsonl"
    first = start(*words, module="onebase.cli")
    try:
        begun(log, 3, first)
        second = onebase(*words)
        assert second.status == 1 and f"is being written by process {first.pid} on" in second.err, second
        # Ranks of one run that all hear of it: none waits for the others.
        status, said = ended(start(*words, module="onebase.cli", ranks=2))
        assert status != 0 and f"is being written by process {first.pid} on" in said, said
        kept = len(read_log(log))
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert [line["step"] for line in read_log(log)] == list(range(len(read_log(log))))
        assert len(read_log(log)) >= kept
        third = start(*words, module="onebase.cli")
        try:
            begun(log, len(read_log(log)) + 3, third)
            third.send_signal(signal.SIGTERM)
            status, said = ended(third)
            assert status == 75, said
        finally:
            third.kill()
        assert [line["step"] for line in read_log(log)] == list(range(len(read_log(log))))
        assert not list((tmp_path / "run").rglob(".owner"))
    finally:
        first.kill()


def test_commands_that_make_an_artifact_claim_its_place(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a b", "label": "x"}\n{"text": "c d", "label": "y"}\n' * 6)
    run, rows = tiny_run(), tmp_path / "rows.jsonl"
    out = tmp_path / "made" / "it"
    commands: list[tuple[str | Path, ...]] = [
        ("adapt", run, "--data", rows, "--method", "head", "--out", out),
        ("quantize", run, "--bits", "8", "--out", out),
        ("import", run / "base", "--out", out),
        ("export", run, "--format", "hf", "--out", out),
        ("merge", run, rows, "--out", out),
    ]
    with owned(out, beside=True):
        for words in commands:
            said = onebase(*words)
            assert said.status == 1 and f"{out} is being written by process {os.getpid()} on" in said.err, (
                said
            )
        assert onebase(*commands[0], "--dry-run").status == 0  # writes nothing
    said = onebase(*commands[0])
    assert said.status == 0, said
    assert [p.name for p in out.parent.iterdir()] == ["it"]


def test_one_process_tokenises_and_the_others_wait(tmp_path: Path) -> None:
    data = prepare([Document(f"Text {i}.", "a") for i in range(50)], tmp_path / "data", holdout=0)
    Tokenizer.train((d.text for d in data.documents("train")), 300).save(tmp_path / "tokenizer.json")
    (tmp_path / "seen").mkdir()
    words = ("tokenise", tmp_path / "data", tmp_path / "tokenizer.json", tmp_path / "seen")
    each = [start(*words) for _ in range(3)]
    assert [ended(p)[0] for p in each] == [0, 0, 0]
    assert len(list((tmp_path / "seen").iterdir())) == 1
    assert [p.name for p in (tmp_path / "data.tokens").iterdir() if p.name.startswith(".")] == []


def no_locks(*_: Any) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize(
    ("change", "free"),
    [
        ({}, False),
        ({"pid": 2**22 + 1}, True),  # above the largest number that Linux gives
        ({"born": "another"}, True),  # the number was given to a new process
        ({"host": "elsewhere"}, False),
        (None, True),  # rubbish, of a crash
    ],
)
def test_where_the_disk_has_no_locks_its_words_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any] | None, free: bool
) -> None:
    monkeypatch.setattr(fcntl, "flock", no_locks)
    mine = {"pid": os.getpid(), "host": socket.gethostname(), "born": module._born(os.getpid())}
    (tmp_path / ".owner").write_text("{" if change is None else json.dumps(mine | change))
    if free:
        with owned(tmp_path):
            pass
        assert not (tmp_path / ".owner").exists()
    else:
        assert "is being written by process" in refusal(tmp_path)
    with owned(tmp_path, wait=True):  # waiting there could last for ever
        pass
