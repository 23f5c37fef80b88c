"""A recipe that pretrains one base on text, images and sound, from files to scores; and what such a recipe refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from onebase import config as configs
from onebase.base.config import base_parameters
from onebase.base.folder import load_base
from onebase.errors import ConfigError, DataError
from onebase.pretraining.documents import documents_read
from onebase.pretraining.recipe import Recipe
from onebase.pretraining.run import run_recipe
from tests.data.test_media_tokens import png, wav


def files(root: Path) -> Path:
    """Twenty images, twelve sounds, some text, and documents of all of them."""
    root.mkdir()
    for name, suffix, n in (("images", "png", 20), ("sounds", "wav", 12)):
        (root / name).mkdir()
        rows = []
        for i in range(n):
            (root / name / f"{i}.{suffix}").write_bytes(png(i) if suffix == "png" else wav(2000 + 100 * i))
            rows.append({"file_name": f"{i}.{suffix}", "text": f"number {i}"})
        (root / name / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (root / "text.txt").write_text("\n---\n".join(f"one line of text, number {i}" for i in range(30)))
    parts: list[list[dict[str, str]]] = [
        [
            {"type": "text", "text": f"see {i} "},
            {"type": "image", "path": f"images/{i}.png"},
            {"type": "text", "text": " hear "},
            {"type": "audio", "path": f"sounds/{i}.wav"},
        ]
        for i in range(10)
    ]
    (root / "both.jsonl").write_text("".join(json.dumps({"text": p}) + "\n" for p in parts))
    return root


def recipe(root: Path, **train: Any) -> Recipe:
    sources = [
        {"name": "images", "kind": "imagefolder", "path": str(root / "images"), "licence": "CC0-1.0"},
        {"name": "sounds", "kind": "mediafolder", "path": str(root / "sounds")},
        {"name": "text", "kind": "text", "path": str(root / "text.txt"), "separator": "---"},
        {"name": "both", "kind": "jsonl", "path": str(root / "both.jsonl")},
    ]
    tree = {
        "name": "native",
        "data": {"sources": sources, "holdout": 0.2},
        "modalities": [
            {"kind": "image_patches", "channels": 1, "bottleneck": 8, "limit": 16},
            {"kind": "sound_patches", "bottleneck": 8, "limit": 20},
        ],
        "objective": {"kind": "mixed", "flow": {"generate": 0.5}},
        "model": {"width": 32, "depth": 2, "head_dim": 16, "context": 64, "vocab_size": 280},
        "train": {"steps": 6, "batch_size": 8, "sequence_length": 64, "device": "cpu"} | train,
    }
    return configs.from_dict(Recipe, tree, "recipe")


def test_one_recipe_for_all_of_them(tmp_path: Path) -> None:
    root, said = files(tmp_path / "in"), list[str]()
    asked = recipe(root, ema=0.9, eval_every=3)
    done = run_recipe(asked, tmp_path / "run", log=said.append)
    assert done.base is not None
    base = load_base(tmp_path / "run" / "base")
    assert sorted(base.model.cfg.codecs) == ["image_patches", "sound_patches", "text"]
    assert base.model.cfg.trunks["text"].groups == ("text", "vision", "audio")
    ledger = next(line for line in said if "supervised" in line)
    assert "[image 8x8]" in ledger or "[audio" in ledger
    scores = {e.field for e in base.record.events}
    assert {f"scores.heldout_bits_per_byte.{s}" for s in ("images", "text")} <= scores
    assert "scores.heldout_flow_loss.images.image_patches.t0.5" in scores
    assert "scores.ngram_bits_per_byte.text" in scores and "scores.ngram_bits_per_byte.images" not in scores
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    parts = [v for k, v in lines[0].items() if k.startswith("loss/")]
    assert len(parts) == 3 and sum(parts) == pytest.approx(lines[0]["loss"], rel=1e-6)
    assert "heldout_flow_loss/images.image_patches.t0.1" in lines[2]
    read = documents_read(tmp_path / "run")
    assert read.sources["images"].never == 0 and read.sources["both"].tokens_read > 0


def test_an_interrupted_run_goes_on_bitwise_with_its_average(tmp_path: Path) -> None:
    root = files(tmp_path / "in")
    whole = run_recipe(recipe(root, ema=0.9), tmp_path / "a").base
    plain = run_recipe(recipe(root), tmp_path / "b").base
    checkpoint = {"checkpoint": {"every": 2}}

    class Stop(Exception):
        pass

    class Kill:
        def start(self, step: int, total: int | None) -> None: ...
        def close(self) -> None: ...
        def step(self, info: Any) -> None:
            if info.step == 3:
                raise Stop

    asked = recipe(root, ema=0.9, **checkpoint)
    with pytest.raises(Stop):
        run_recipe(asked, tmp_path / "c", callbacks=[Kill()])
    again = run_recipe(asked, tmp_path / "c").base
    assert whole is not None and again is not None and plain is not None
    pairs = zip(whole.model.state_dict().items(), again.model.state_dict().items(), strict=True)
    assert all(torch.equal(a, b) for (_, a), (_, b) in pairs)
    names = [n for n, p in whole.model.named_parameters()]
    assert any(not torch.equal(whole.model.get_parameter(n), plain.model.get_parameter(n)) for n in names), (
        "an average is not the last weights"
    )


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    root = files(tmp_path / "in")
    good = recipe(root)
    for change, says in (
        (["objective.kind=next_token"], "reads text alone, and modalities has image_patches, sound_patches"),
        (["modalities=[{kind: image_patches}, {kind: image_patches}]"], "image_patches twice"),
        (["modalities=[{kind: video_patches}]"], "video_patches"),
        (["train.ema=1.5"], "ema is 1.5"),
    ):
        with pytest.raises(ConfigError, match=says):
            changed = [c.replace("objective.kind=next_token", "objective={kind: next_token}") for c in change]
            configs.override(good, changed)
    with pytest.raises(DataError, match="modalities"):
        text = configs.override(good, ["modalities=[]", "objective={kind: next_token}"])
        run_recipe(text, tmp_path / "run")
    only = configs.override(good, ["modalities=[{kind: image_patches, limit: 16}]"])
    with pytest.raises(DataError, match=r"0.wav \(sounds\) has audio.*\n.*sound_patches"):
        run_recipe(only, tmp_path / "other")


def test_shared_feed_forwards_by_config(tmp_path: Path) -> None:
    shared = configs.override(
        recipe(files(tmp_path / "in")), ["modalities=[{kind: image_patches, group: text}]"]
    ).base()
    assert shared.trunks["text"].groups == ()
    split = recipe(tmp_path / "in").base()
    assert split.trunks["text"].groups == ("text", "vision", "audio")
    assert base_parameters(shared) < base_parameters(split)
