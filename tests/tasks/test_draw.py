"""Task draw: a tiny base of patches learns what pictures of a text look like; its scores, its command, and rows that it cannot learn from."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import onebase
from onebase.api.base import Adapter, Base
from onebase.cli import app
from onebase.data import BadRows
from onebase.errors import UserError
from onebase.evaluation.pictures import frechet, nearest_labels
from onebase.methods.bound import Bound
from onebase.objective.flow_config import FlowConfig
from onebase.objective.mixed import Mixed
from onebase.tasks import rows as reading
from onebase.tasks.draw import drawing
from onebase.tasks.media_rows import flow_losses_of
from onebase.tasks.options import read_options
from onebase.tasks.table import TASKS
from tests.helpers import tiny_base
from tests.native import native, saved

COLOURS = {"red": (220, 20, 30), "blue": (20, 30, 220)}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows.jsonl and its pictures of 8 x 8 pixels: four red ones, four blue ones."""
    root = tmp_path_factory.mktemp("draws")
    rows = []
    for i in range(8):
        name = list(COLOURS)[i % 2]
        Image.new("RGB", (8, 8), tuple(c + i for c in COLOURS[name])).save(root / f"{i}.png")
        rows.append({"image": f"{i}.png", "text": name})
    (root / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


@pytest.fixture(scope="module")
def learnt(room: Path) -> tuple[Base, Adapter]:
    base = native()
    rows = room / "rows.jsonl"
    return base, base.adapt(
        rows, task="draw", method="lora", lr=1e-2, epochs=60, batch_size=4, solver_steps=8
    )


def test_a_style_is_learnt_and_scored(learnt: tuple[Base, Adapter], room: Path) -> None:
    base, adapter = learnt
    before = onebase.evaluate(base, room / "rows.jsonl", task="draw")
    on = base.with_adapter(adapter)
    after = onebase.evaluate(on, room / "rows.jsonl")
    assert list(after) == ["flow_loss", "recognised", "recognised_real", "frechet_distance"]
    assert after["flow_loss"].value < 0.5 * before["flow_loss"].value
    assert after["recognised"].value == after["recognised_real"].value == 1.0
    assert after["frechet_distance"].value < 0.3 * before["frechet_distance"].value
    assert after["frechet_distance"].low <= after["frechet_distance"].value <= after["frechet_distance"].high
    again = onebase.evaluate(base, room / "rows.jsonl", task="draw", scores=["flow_loss"])
    assert again["flow_loss"] == before["flow_loss"]  # the base is as it was
    # The base writes how large a picture is, too, and its own call draws with the adapter.
    (picture,) = on.draw("red", 1, seed=3)
    assert picture.size == (8, 8)
    red, _, blue = np.asarray(picture).reshape(-1, 3).mean(0)
    assert red > blue + 60


def test_its_answers_are_png_files(learnt: tuple[Base, Adapter]) -> None:
    base, adapter = learnt
    task = TASKS["draw"]
    assert task.answer is not None
    (shown,) = task.answer(base.with_adapter(adapter), [{"text": "blue"}])
    assert base64.b64decode(shown.fields["image"]).startswith(b"\x89PNG")
    assert (shown.fields["width"], shown.fields["height"]) == (8, 8)


def test_the_picture_is_learnt_and_its_text_is_not(room: Path) -> None:
    """The opening with the size, every patch and the end are supervised; the share `drop` is learnt without its text."""
    base = native()
    options = read_options({"drop": 0.5}, "draw", "lora")
    rows = reading.read(base.loaded, room / "rows.jsonl", TASKS["draw"], "lora", options)
    (sample,) = rows.samples[0]
    (media,) = sample.media
    names = base.tokenizer.decode(sample.ids[sample.loss].tolist(), skip_special=False)
    assert media.noise and names == "<|image|>2x2<|patches|><|eos|>"
    flow = FlowConfig(generate=0.0, drop=0.5, damage=0.0)
    objective = Mixed.of(base.loaded.model, 96, flow)
    sizes = [len(objective.direction(sample, i)) for i in range(40)]
    assert {len(sample), min(sizes)} == set(sizes) and 8 < sizes.count(min(sizes)) < 32
    plan = base.plan_adapt(room / "rows.jsonl", task="draw", method="lora")
    assert "red«<|image|>2x2<|patches|>»«[image 8x8]»" in plan.text


def test_the_flow_loss_is_that_of_training(room: Path) -> None:
    """Each picture's mean over its patches is the loss of training at the same time and noise."""
    base = native()
    rows = reading.read(
        base.loaded, room / "rows.jsonl", TASKS["draw"], "lora", read_options({}, "draw", "lora")
    )
    model, texts = base.loaded.model, rows.texts[:3]
    found = flow_losses_of(model, texts, "image_patches", 0.3)
    for i, sample in enumerate(texts):
        flow = FlowConfig(weight=1.0, generate=0.0, drop=0.0, damage=0.0)
        objective = Mixed(40, {"image_patches": 1, "sound_patches": 2}, flow, time=0.3)
        with torch.no_grad():
            total, count = objective.losses(model, objective.batch([[sample]], i))["flow.image_patches"]
        assert count == 4 and float(total) / count == pytest.approx(found[i], rel=1e-5)


def test_the_options_of_drawing_are_those_of_the_record(room: Path) -> None:
    base = native()
    adapter = base.adapt(
        room / "rows.jsonl", task="draw", method="lora", epochs=1, guidance=3.0, solver_steps=4
    )
    how = drawing(base.with_adapter(adapter), 7)
    assert (how.steps, how.guidance, how.seed) == (4, 3.0, 7)
    assert drawing(Bound(base.loaded)).steps == 25
    for bad in ({"drop": 2.0}, {"solver_steps": 0}, {"guidance": -1.0}):
        with pytest.raises(UserError, match=next(iter(bad))):
            base.adapt(room / "rows.jsonl", task="draw", method="lora", **bad)


def test_bad_rows_are_named(room: Path, tmp_path: Path) -> None:
    whole = (room / "0.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) - 30])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "ok.png").write_bytes(whole)
    rows: list[dict[str, Any]] = [{"image": n, "text": "red"} for n in ("none.png", "cut.png", "text.png")]
    rows += [{"image": "ok.png", "text": "red " * 100}, {"image": "ok.png", "text": "red"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(BadRows) as e:
        native().adapt(tmp_path / "rows.jsonl", task="draw", method="lora")
    lines = e.value.cause.splitlines()
    assert lines[0].startswith("4 of 5 rows")
    for i, name in enumerate(("none.png", "cut.png", "text.png"), 1):
        assert f"rows.jsonl:{i}" in lines[i] and name in lines[i], lines[i]
    assert "the limit is 96" in lines[4]


def test_what_does_not_fit_is_refused(room: Path) -> None:
    for method, why in (("head", "predicts labels"), ("prompt", "answers of text"), ("soft", "virtual")):
        with pytest.raises(UserError, match=why):
            native().adapt(room / "rows.jsonl", task="draw", method=method)
    with pytest.raises(UserError, match="has no patches of image"):
        Base(tiny_base()).adapt(room / "rows.jsonl", task="draw", method="lora")


def test_the_commands(room: Path, tmp_path: Path) -> None:
    base, run = saved(tmp_path / "base"), CliRunner().invoke
    words = ["--data", str(room / "rows.jsonl"), "--task", "draw", "--method", "lora", "-o", "epochs=2"]
    done = run(app, ["adapt", str(base), *words, "--out", str(tmp_path / "a")])
    assert done.exit_code == 0, done.output
    on = ["--adapter", str(tmp_path / "a")]
    done = run(app, ["eval", str(base), *on, "--data", str(room / "rows.jsonl")])
    assert done.exit_code == 0 and "flow_loss" in done.output and "frechet_distance" in done.output
    done = run(app, ["draw", str(base), "red", *on, "--size", "8x8", "--out", str(tmp_path / "p")])
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "p" / "0000.png") as picture:
        assert picture.size == (8, 8)


def test_the_distance_is_the_formula_of_fid() -> None:
    """With enough pictures for covariances: by their root; and none between a set and itself."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(60, 4)), rng.normal(0.5, 2.0, size=(50, 4)) @ rng.normal(size=(4, 4))
    values, vectors = np.linalg.eigh(np.cov(a.T))
    root = vectors * np.sqrt(values) @ vectors.T
    inner = np.sqrt(np.linalg.eigvalsh(root @ np.cov(b.T) @ root)).sum()
    want = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T)) + np.trace(np.cov(b.T)) - 2 * inner
    assert frechet(a, b) == pytest.approx(want) and frechet(a, a) == pytest.approx(0, abs=1e-9)
    twice = np.ones(60)
    twice[3] = 2
    assert frechet(a, b, twice) == pytest.approx(frechet(np.vstack([a, a[3:4]]), b))
    assert nearest_labels(a[:5] + 1e-6, a, [str(i) for i in range(60)]) == list("01234")
    assert nearest_labels(a, a, [str(i) for i in range(60)], itself=False)[0] != "0"
