"""Number formats that the chip decides: kept in the checkpoint, and said when a run goes on with others."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from onebase.artifact.files import ArtifactWriter, verify
from onebase.model import device
from onebase.train import muon
from onebase.train.callbacks import NoCallback, StepInfo
from onebase.train.checkpoint import list_checkpoints
from onebase.train.formats import go_on
from onebase.train.loop import run
from tests.resume.workers import small_job

NATIVE = {"activations": "bf16", "newton_schulz": "bf16"}
PLAIN = {"activations": "fp32", "newton_schulz": "fp32"}


class Stops(NoCallback):
    def step(self, info: StepInfo) -> None:
        if info.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)


def chip(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    for room in (muon, device):
        monkeypatch.setattr(room, "has_bf16", lambda _: native)


@pytest.mark.parametrize("first", [True, False])
def test_a_run_goes_on_on_another_chip_and_says_so(
    first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses within what docs/training.md says."""
    before, after = (NATIVE, PLAIN) if first else (PLAIN, NATIVE)
    chip(monkeypatch, first)
    job = small_job(tmp_path, dtype="auto", steps=12)
    stopped = run(replace(job, callbacks=[Stops()]))
    assert stopped.state.formats == {"0": before}
    straight = run(small_job(None, dtype="auto", steps=12)).losses
    chip(monkeypatch, not first)
    told: list[str] = []
    rest = run(replace(small_job(tmp_path, dtype="auto", steps=12), log=told.append))
    assert rest.state.formats == {"0": before, "5": after}
    a, b = before["activations"], after["activations"]
    assert told == [
        f"from step 5 on activations in {b} (before: {a}), newton-schulz in {b} (before: {a}), because of the chip; "
        "losses differ from those of an uninterrupted run by rounding"
    ]
    assert stopped.losses == straight[:5]
    assert rest.losses == pytest.approx(straight[5:], abs=5e-3)
    assert rest.losses != straight[5:]


def test_nothing_is_said_on_the_same_chip(tmp_path: Path) -> None:
    told: list[str] = []
    stopped = run(replace(small_job(tmp_path, steps=8), callbacks=[Stops()]))
    rest = run(replace(small_job(tmp_path, steps=8), log=told.append))
    assert not told
    assert rest.state.formats == stopped.state.formats


@pytest.mark.parametrize(
    ("now", "said"),
    [(PLAIN, "newton-schulz in fp32 (before: bf16)"), (NATIVE, ""), ({"activations": "fp32"}, "")],
)
def test_an_earlier_checkpoint_had_newton_schulz_in_bf16(now: dict[str, str], said: str) -> None:
    kept: dict[str, dict[str, str]] = {}
    line = go_on(kept, now, 7)
    assert said in (line or "") and bool(line) == bool(said)
    assert kept["0"]["activations"] == "unknown"


def test_a_checkpoint_without_formats_is_resumed(tmp_path: Path) -> None:
    """As all were that an earlier version wrote."""
    run(replace(small_job(tmp_path, steps=8), callbacks=[Stops()]))
    path = list_checkpoints(tmp_path / "checkpoints")[-1]
    facts = json.loads((path / "state.json").read_text())
    del facts["formats"]
    files = {p.name: p.read_bytes() for p in path.iterdir() if p.name != "manifest.json"}
    files["state.json"] = json.dumps(facts).encode()
    for p in path.iterdir():
        p.unlink()
    path.rmdir()
    with ArtifactWriter(path, kind="checkpoint", facts={"step": 5, "identity": facts["identity"]}) as w:
        for name, data in files.items():
            w.path(name).write_bytes(data)
    verify(path)
    assert len(run(small_job(tmp_path, steps=8)).losses) == 3
