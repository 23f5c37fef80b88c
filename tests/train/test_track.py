"""TensorBoard and Weights & Biases for real, offline and without a login; what they wrote is read back."""

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.pretrain_tiny import write_corpus
from onebase.train.callbacks import JsonLog, StepInfo, read_log
from onebase.train.track import WandB
from tests.pretrained import onebase

pytest.importorskip("wandb", reason='needs: pip install "onebase[track]"')
pytest.importorskip("tensorboard", reason='needs: pip install "onebase[track]"')
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STEPS = list(range(9))
KILLED = 5  # the checkpoint before it is of step 4: steps 4 and 5 are done twice


def tracked(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the program with a home of its own, no W&B settings, nobody to answer a question."""
    home = out.with_name(f"{out.name}-home")
    home.mkdir(exist_ok=True)
    env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_") and k != "NETRC"}
    env |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(home)}
    program = [sys.executable, str(ROOT / "tests/train/tracked.py"), str(out), *words]
    return subprocess.run(
        program, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600
    )


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: LevelDB's log format after a head of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, part, block = path.read_bytes(), 7, b"", 1 << 15
    while at + 7 <= len(data):
        left = block - at % block
        _, size, kind = struct.unpack_from("<IHB", data, at)
        if left < 7 or kind == 0:  # the end of a block is filled with zeros
            at += left
            continue
        part += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(part)
            part = b""


def wandb_curves(path: Path) -> list[dict[str, float]]:
    """The history of a .wandb file, line by line."""
    lines = (r.history for r in wandb_records(path) if r.WhichOneof("record_type") == "history")
    return [{(i.key or ".".join(i.nested_key)): json.loads(i.value_json) for i in h.item} for h in lines]


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was killed by SIGKILL and started again."""
    out = tmp_path_factory.mktemp("tracked") / "run"
    assert tracked(out, "self", str(KILLED)).returncode == -signal.SIGKILL
    rest = tracked(out)
    assert rest.returncode == 0, rest.stderr
    assert "wandb sync" in rest.stderr  # W&B says where the files are
    return out


def test_a_killed_and_resumed_run_is_one_run_of_wandb(resumed: Path) -> None:
    files = sorted(resumed.glob("wandb/offline-run-*/*.wandb"))
    id = (resumed / "wandb/id").read_text()
    assert [f.name for f in files] == [f"run-{id}.wandb"] * 2
    newest = (resumed / "wandb/latest-run").resolve() / files[0].name
    curves = wandb_curves(newest)
    assert [
        line["_step"] for line in curves
    ] == STEPS  # whole: of the killed leg nothing may have reached the disk
    log = read_log(resumed / "log.jsonl")
    for name, key in {"loss": "loss", "grad_norm": "grad_norm", "rate_factor": "factor"}.items():
        assert [line[name] for line in curves] == [line[key] for line in log]
    assert [r.exit.exit_code for r in wandb_records(newest) if r.WhichOneof("record_type") == "exit"] == [0]


def test_tensorboard_shows_every_step_once(resumed: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def steps(path: Path) -> list[tuple[int, float]]:
        found = EventAccumulator(str(path)).Reload()
        return [(e.step, e.value) for e in found.Scalars("loss")]

    first, _ = sorted((resumed / "tensorboard").iterdir())
    assert [s for s, _ in steps(first)] == list(range(KILLED + 1))  # a kill loses nothing
    shown = steps(resumed / "tensorboard")
    assert [s for s, _ in shown] == STEPS
    assert [v for _, v in shown] == pytest.approx([line["loss"] for line in read_log(resumed / "log.jsonl")])


def test_the_run_goes_on_when_wandb_dies(tmp_path: Path) -> None:
    done = tracked(tmp_path / "run", "service", "3")
    assert done.returncode == 0, done.stderr
    assert "Weights & Biases failed" in done.stderr
    assert [line["step"] for line in read_log(tmp_path / "run/log.jsonl")] == STEPS


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.usefixtures("offline")
def test_a_run_from_its_beginning_is_a_new_run_of_wandb(tmp_path: Path) -> None:
    ids = []
    for step in (0, 3, 0):
        listener = WandB(tmp_path, "x")
        listener.start(step, 9)
        listener.close()
        ids.append((tmp_path / "wandb/id").read_text())
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.usefixtures("offline")
def test_what_wandb_has_is_not_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its server says which steps it has: here 0 to 2 of the 0 to 4 in the log, while the run goes on at 4."""
    monkeypatch.setattr("wandb.Run.starting_step", property(lambda _: 3))
    infos = [StepInfo(i, 6, 1.0, 1.0, 1.0, 10, 10.0, 1.0, scores={"held": float(i)}) for i in range(6)]
    log, tracker = JsonLog(tmp_path / "log.jsonl"), WandB(tmp_path, "x")
    log.start(0, 6)
    for info in infos[:5]:
        log.step(info)
    log.close()
    tracker.start(4, 6)
    for info in infos[4:]:
        tracker.step(info)
    tracker.close()
    curves = wandb_curves(next(tmp_path.glob("wandb/offline-run-*/*.wandb")))
    assert [(line["_step"], line["held"]) for line in curves] == [(3, 3.0), (4, 4.0), (5, 5.0)]


@pytest.mark.usefixtures("offline")
def test_the_command_line_asks_for_both(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", documents=50)
    (tmp_path / "recipe.yaml").write_text(
        f"name: x\ndata: {{sources: [{{name: a, kind: jsonl, path: {corpus}}}]}}\n"
        "model: {width: 32, depth: 1, head_dim: 16, context: 64, vocab_size: 300}\n"
        "train: {steps: 3, rows: 2, length: 64, device: cpu}\n"
    )
    out = tmp_path / "run"
    said = onebase("pretrain", tmp_path / "recipe.yaml", "--tensorboard", "--wandb", "--out", out)
    assert said.status == 0, said.err
    assert len(wandb_curves(next(out.glob("wandb/offline-run-*/*.wandb")))) == 3
    assert len(list((out / "tensorboard").iterdir())) == 1
    assert onebase("verify", out).status == 0
