"""A recipe that trains a base of masks on cut-outs, or on pictures with masks, from files to `Base.segment`; and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import onebase
from onebase import config as configs
from onebase.errors import ConfigError, DataError
from onebase.pretraining.planning import plan_recipe
from onebase.pretraining.recipe import Recipe
from onebase.pretraining.run import run_recipe


def cutouts(folder: Path, count: int = 24) -> Path:
    """Bright discs and boxes on nothing; the last one is a picture without transparency."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        thing = Image.new("RGBA", (20, 26), (0, 0, 0, 0))
        pen, colour = ImageDraw.Draw(thing), tuple(rng.integers(150, 255, 3).tolist())
        (pen.ellipse if i % 2 else pen.rectangle)((2, 3, 17, 22), fill=(*colour, 255))
        (thing if i < count - 1 else thing.convert("RGB")).save(folder / f"{i}.png")
    return folder


def masked(folder: Path, count: int = 16) -> Path:
    """Pictures of 16 x 16 pixels with masks, as documents of two parts."""
    folder.mkdir(parents=True)
    rows = []
    for i in range(count):
        mask = np.zeros((16, 16), np.uint8)
        mask[2 + i % 5 : 10 + i % 5, 3 : 4 + i % 9] = 255
        Image.fromarray(mask).save(folder / f"{i}-mask.png")
        Image.fromarray(mask // 2 + 40 + i).convert("RGB").save(folder / f"{i}.png")
        parts = [{"type": "image", "path": f"{i}.png"}, {"type": "image", "path": f"{i}-mask.png"}]
        rows.append(json.dumps({"text": parts}))
    (folder / "rows.jsonl").write_text("\n".join(rows))
    return folder / "rows.jsonl"


def recipe(source: dict[str, Any], **train: Any) -> Recipe:
    tree = {
        "name": "sam",
        "data": {"sources": [{"name": "stamps"} | source], "holdout": 0.2},
        "modalities": [{"kind": "image_patches", "patch": 4, "limit": 16}],
        "objective": {"kind": "segment", "detail": 4},
        "model": {"width": 32, "depth": 1, "head_dim": 16, "context": 64, "vocab_size": 280},
        "train": {"steps": 6, "batch_size": 4, "sequence_length": 64, "device": "cpu"} | train,
    }
    return configs.from_dict(Recipe, tree, "recipe")


def test_a_recipe_of_cut_outs_gives_a_base_that_segments(tmp_path: Path) -> None:
    folder, said = cutouts(tmp_path / "in"), list[str]()
    asked = recipe({"kind": "imagefolder", "path": str(folder), "licence": "CC0-1.0"}, eval_every=3, steps=60)
    done = run_recipe(asked, tmp_path / "run", log=said.append)
    assert done.result is not None
    losses = done.result.losses
    assert sum(losses[-10:]) < 0.95 * sum(losses[:10]), losses
    base = onebase.load(tmp_path / "run" / "base")
    found = base.segment(folder / "1.png", points=[(9, 12)], boxes=[(2, 3, 18, 23)])
    assert found.masks.shape == (1, 26, 20)
    scores = {e.field: e.value for e in done.base.record.events} if done.base else {}
    assert 0 <= scores["scores.heldout_iou_one_click.stamps"]["value"] <= 1
    assert any("held-out iou one click, stamps" in line for line in said)
    lines = [json.loads(x) for x in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert {"loss/mask", "loss/quality"} <= set(lines[0])
    assert "heldout_iou_one_click/stamps" in lines[2]


def test_it_goes_on_bitwise(tmp_path: Path) -> None:
    source = {"kind": "imagefolder", "path": str(cutouts(tmp_path / "in"))}
    whole = run_recipe(recipe(source), tmp_path / "a").base

    class Stop(Exception):
        pass

    class Kill:
        def start(self, step: int, total: int | None) -> None: ...
        def close(self) -> None: ...
        def step(self, info: Any) -> None:
            if info.step == 3:
                raise Stop

    asked = recipe(source, checkpoint={"every": 2})
    with pytest.raises(Stop):
        run_recipe(asked, tmp_path / "b", callbacks=[Kill()])
    again = run_recipe(asked, tmp_path / "b").base
    assert whole is not None and again is not None and whole.head is not None and again.head is not None
    mine, other = whole.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(t, other[k]) for k, t in mine.items())
    assert all(torch.equal(t, again.head.tensors[k]) for k, t in whole.head.tensors.items())
    assert whole.head.config.detail == 4 and any(k.startswith("head.detail") for k in whole.head.tensors)


def test_pictures_with_masks(tmp_path: Path) -> None:
    path = masked(tmp_path / "in")
    asked = recipe({"kind": "jsonl", "path": str(path)})
    done = run_recipe(asked, tmp_path / "run")
    assert done.base is not None and done.result is not None
    assert done.result.state.tokens > 6 * 4 * 32, "a picture and its mask are 32 patches"
    Image.new("L", (5, 5), 255).save(path.parent / "3-mask.png")
    with pytest.raises(
        DataError, match=r"document [0-9a-f]+ \(stamps\): .* has 5 x 5 pixels, its picture .* has 16 x 16"
    ):
        run_recipe(asked, tmp_path / "other")


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    source = {"kind": "imagefolder", "path": str(cutouts(tmp_path / "in"))}
    good = recipe(source)
    for change, says in (
        ("modalities=[]", "reads square pictures"),
        ("modalities=[{kind: image_patches, limit: 15}]", "reads square pictures"),
        ("modalities=[{kind: sound_patches}]", "reads square pictures"),
        ("objective={kind: segment, detail: -1}", "detail is -1"),
    ):
        with pytest.raises(ConfigError, match=says):
            configs.override(good, [change])
    text = tmp_path / "text.txt"
    text.write_text("\n---\n".join(f"only words {i}" for i in range(40)))
    plan = plan_recipe(good)
    assert plan.facts["fits"] and "cache " not in plan.text
    with pytest.raises(DataError, match="has no pictures.*\n.*one picture with transparency"):
        run_recipe(recipe({"kind": "text", "path": str(text), "separator": "---"}), tmp_path / "run")
