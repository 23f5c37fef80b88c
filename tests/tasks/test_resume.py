"""Going on: what a folder to resume from keeps, and what it is refused for. (That it is bitwise the same: `conformance`.)"""

from pathlib import Path
from typing import Any

import pytest

from onebase.api.base import Adapter, Base
from onebase.artifact.tensors import load_tensors
from onebase.base.folder import load_base, save_base
from onebase.cli import app
from onebase.errors import ArtifactError
from tests.helpers import tiny_base

ROWS = [{"text": t, "label": k} for t, k in [("Is it so", "ask"), ("It is so", "tell"), ("What", "ask")] * 4]
ASKED: dict[str, Any] = {"task": "classify", "method": "lora", "rank": 2, "batch_size": 4, "epochs": 2}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resume")
    save_base(path / "base", tiny_base())
    Base(load_base(path / "base")).adapt(ROWS, resume=path / "state", **ASKED).save(path / "adapter")
    return path


def test_only_what_learns_is_kept(done: Path) -> None:
    newest = sorted((done / "state" / "checkpoints").iterdir())[-1]
    assert newest.name == "step_00000006"
    kept = load_tensors(newest / "model-00001.safetensors")
    assert kept and all(".deltas." in k or k.startswith("heads.") for k in kept)


def test_a_run_at_its_end_gives_the_same_adapter_again(done: Path) -> None:
    again = Base(load_base(done / "base")).adapt(ROWS, resume=done / "state", **ASKED)
    assert again.fingerprint == Adapter.load(done / "adapter").fingerprint
    assert again.record.get("train.final_loss") is None and again.record.get("train.steps") == 6


@pytest.mark.parametrize(
    ("change", "said"),
    [({"rank": 3}, "another adapter"), ({"seed": 1}, "another"), ({"labels": "turned"}, "another rows")],
)
def test_another_request_is_refused(change: dict[str, Any], said: str, done: Path) -> None:
    asked = ASKED | {k: v for k, v in change.items() if k != "labels"}
    rows = (
        [r | {"label": {"ask": "tell", "tell": "ask"}[r["label"]]} for r in ROWS]
        if "labels" in change
        else ROWS
    )
    with pytest.raises(ArtifactError, match=said):
        Base(load_base(done / "base")).adapt(rows, resume=done / "state", **asked)


def test_the_command_goes_on(done: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("text,label\n" + "".join(f"{r['text']},{r['label']}\n" for r in ROWS))
    line = [
        "adapt",
        str(done / "base"),
        "--data",
        str(data),
        "--task",
        "classify",
        "--method",
        "lora",
        "--device",
        "cpu",
    ]
    line += [
        "--dtype",
        "fp32",
        "-o",
        "rank=2",
        "-o",
        "batch_size=4",
        "-o",
        "epochs=2",
        "--resume",
        str(tmp_path / "state"),
    ]
    for name in ("one", "two"):
        app([*line, "--out", str(tmp_path / name)], standalone_mode=False)
    made = [Adapter.load(tmp_path / name) for name in ("one", "two")]
    assert made[0].fingerprint == made[1].fingerprint == Adapter.load(done / "adapter").fingerprint
    assert [x.record.get("train.final_loss") is None for x in made] == [False, True]
