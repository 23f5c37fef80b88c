"""Pictures and sounds that are learnt by hiding patches: what is read and what is predicted, by hand; and a recipe, from files to a head on its states."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import onebase
from onebase import config as configs
from onebase.base.model import BaseModel
from onebase.base.patch_decoder import normalised, places_of
from onebase.engine.features import features
from onebase.engine.media_prompts import file_tokens
from onebase.errors import ConfigError
from onebase.modality.text.sample import Media, MediaContent, Tokens
from onebase.objective.masked_patches import MaskedPatches
from onebase.pretraining.picture_objectives import (
    DECODER,
    MaskedPatchesConfig,
    begin_masked_patches,
    end_masked_patches,
)
from onebase.pretraining.recipe import Recipe
from onebase.pretraining.run import run_recipe
from tests.data.test_media_tokens import png, wav


def recipe(root: Path, **train: Any) -> Recipe:
    """Of sixteen pictures and ten sounds."""
    for name, suffix, n in (("images", "png", 16), ("sounds", "wav", 10)):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            data = png(i) if suffix == "png" else wav(2000 + 100 * i)
            (root / name / f"{i}.{suffix}").write_bytes(data)
    tree = {
        "name": "mae",
        "data": {
            "sources": [
                {"name": "images", "kind": "imagefolder", "path": str(root / "images")},
                {"name": "sounds", "kind": "audiofolder", "path": str(root / "sounds")},
            ],
            "holdout": 0.2,
        },
        "modalities": [
            {"kind": "image_patches", "patch": 2, "channels": 1, "bottleneck": 8, "limit": 16},
            {"kind": "sound_patches", "bottleneck": 8, "limit": 20},
        ],
        "objective": {"kind": "masked_patches", "width": 32, "depth": 1, "head_dim": 16},
        "model": {"width": 32, "depth": 2, "head_dim": 16, "context": 64, "vocab_size": 280},
        "train": {"steps": 8, "batch_size": 8, "sequence_length": 64, "device": "cpu"} | train,
    }
    return configs.from_dict(Recipe, tree, "recipe")


def piece(kind: str, values: torch.Tensor, at: np.ndarray) -> Tokens:
    content = MediaContent("00", len(values), lambda: (values.numpy(), at), shape=(len(values),))
    n = len(values) + 3
    return Tokens(np.zeros(n, np.int32), np.ones(n, np.bool_), "a", "s", media=(Media(kind, 2, content),))


def model_of(asked: Recipe) -> BaseModel:
    model = BaseModel(asked.base(280))
    model.reset(0)
    begin_masked_patches(MaskedPatchesConfig(width=32, depth=1, head_dim=16), model)
    with torch.no_grad():
        for p in model.heads.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return model


def test_what_is_read_and_what_is_predicted(tmp_path: Path) -> None:
    asked = recipe(tmp_path)
    model = model_of(asked)
    objective = MaskedPatches.of(DECODER, model.cfg, seed=3)
    draw = torch.Generator().manual_seed(0)
    pictures = [torch.randn(n, 4, generator=draw) for n in (16, 6)]
    sound = torch.randn(9, 320, generator=draw)
    grid = [np.stack(np.divmod(np.arange(len(p)), 4), -1) for p in pictures]
    rows = [
        [piece("image_patches", pictures[0], grid[0]), piece("sound_patches", sound, np.arange(9)[:, None])],
        [piece("image_patches", pictures[1], grid[1])],
    ]
    batch = objective.batch(rows, 5)
    seen = batch.inputs["text"].media
    assert batch.counts == {"patches.image_patches": 12 + 4, "patches.sound_patches": 7}
    assert len(seen["image_patches"].place_N) == 4 + 2 and len(seen["sound_patches"].place_N) == 2
    assert batch.inputs["text"].ids_BT.shape == (2, 6), "the trunk reads no hidden patch and no text"
    assert batch.inputs["text"].cols.doc.tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, -1, -1, -1, -1]]

    # Hidden patches do not reach the prediction; the error is that of normalised patches, by hand.
    errors = objective.errors(model, batch)
    for name, values in (("image_patches", torch.cat(pictures)), ("sound_patches", sound)):
        hidden = places_of(batch.targets, name).state_N < 0
        assert torch.equal(batch.targets[f"{name}.patch"], values)
        places, h = places_of(batch.targets, name), model.hidden
        read = batch.inputs["text"]
        made = model.heads[DECODER](name, h(read.ids_BT, read.cols, media=read.media).hidden, places)
        wanted = (values - values.mean(1, keepdim=True)) / values.std(1, correction=0, keepdim=True)
        assert torch.allclose(normalised(values), wanted, atol=1e-4)
        assert torch.allclose(errors[name], (made - wanted[hidden]).square().mean(1), atol=1e-3)

    # A picture is the same alone and beside others.
    alone = objective.errors(model, _only(objective, rows[1], batch, 1))["image_patches"]
    assert torch.allclose(alone, errors["image_patches"][12:], atol=1e-4)


def _only(objective: MaskedPatches, row: list[Tokens], whole: Any, b: int) -> Any:
    return objective.batch([row], 5 + b)


def test_absent_modalities_have_gradients_of_zero(tmp_path: Path) -> None:
    model = model_of(recipe(tmp_path))
    objective = MaskedPatches.of(DECODER, model.cfg)
    batch = objective.batch([[piece("image_patches", torch.randn(4, 4), np.zeros((4, 2), np.int64))]], 0)
    sum(s for s, _ in objective.losses(model, batch).values()).backward()  # type: ignore[union-attr]
    for name, p in model.named_parameters():
        if "sound_patches" in name and "head" not in name.split(".")[2:] and "modulate" not in name:
            assert p.grad is not None and not p.grad.any(), name


def test_a_recipe_learns_and_its_base_takes_a_head(tmp_path: Path) -> None:
    asked, said = recipe(tmp_path / "in", steps=40, eval_every=20), list[str]()
    done = run_recipe(asked, tmp_path / "run", log=said.append)
    assert done.result is not None and done.base is not None and DECODER not in done.base.model.heads
    losses = done.result.losses
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:3])
    names = {e.field for e in done.base.record.events}
    assert "scores.heldout_masked_patch_error.images.image_patches" in names
    assert any("held-out masked patch error, images.image_patches" in line for line in said)
    base = onebase.load(tmp_path / "run" / "base")
    files = [tmp_path / "in" / "images" / f"{i}.png" for i in range(12)]
    vectors = base.embed_images(files)
    assert vectors.shape == (12, 32) and torch.allclose(vectors[3:4], base.embed_images(files[3]), atol=1e-5)
    rows = [{"image": str(f), "label": "ab"[i % 2]} for i, f in enumerate(files)]
    head = base.adapt(rows, task="classify", method="head")
    assert base.with_adapter(head).classify_images(files[:1])[0].label in "ab"
    tuned = base.adapt(rows, task="classify", method="lora", epochs=1)
    assert base.with_adapter(tuned).classify_images(files[:1])[0].label in "ab"
    alone = features(base.loaded, [file_tokens(base.loaded, "image", files[0])], "mean", None)
    torch.testing.assert_close(vectors[:1], alone)


def test_it_goes_on_bitwise(tmp_path: Path) -> None:
    whole = run_recipe(recipe(tmp_path / "in"), tmp_path / "a").base

    class Stop(Exception):
        pass

    class Kill:
        def start(self, step: int, total: int | None) -> None: ...
        def close(self) -> None: ...
        def step(self, info: Any) -> None:
            if info.step == 5:
                raise Stop

    asked = recipe(tmp_path / "in", checkpoint={"every": 3})
    with pytest.raises(Stop):
        run_recipe(asked, tmp_path / "b", callbacks=[Kill()])
    again = run_recipe(asked, tmp_path / "b").base
    assert whole is not None and again is not None
    other = again.model.state_dict()
    assert all(torch.equal(t, other[k]) for k, t in whole.model.state_dict().items())


def test_the_decoder_is_dropped_and_bad_settings_are_refused(tmp_path: Path) -> None:
    asked = recipe(tmp_path)
    for change, says in (
        ("objective={kind: masked_patches, rate: 1}", "rate is 1"),
        ("objective={kind: masked_patches, width: 48}", "not a multiple of objective.head_dim"),
        ("objective={kind: masked_patches, depth: 0}", "depth is 0"),
        ("modalities=[]", "there are no modalities"),
    ):
        with pytest.raises(ConfigError, match=says):
            configs.override(asked, [change])
    model = model_of(asked)
    end_masked_patches(MaskedPatchesConfig(), type("B", (), {"model": model})())  # type: ignore[arg-type]
    assert not model.heads


def test_lines_of_the_log(tmp_path: Path) -> None:
    run_recipe(recipe(tmp_path / "in", steps=2), tmp_path / "run")
    first = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert {"loss/patches.image_patches", "loss/patches.sound_patches"} <= set(first)


@pytest.mark.slow
def test_a_head_on_it_beats_one_on_its_untrained_twin(tmp_path: Path) -> None:
    """Handwritten digits of 8 x 8 pixels, 100 of them labelled: the features of a base that was trained without labels, and of the same base after one step."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    (tmp_path / "in").mkdir()
    files = [tmp_path / "in" / f"{i}.png" for i in range(1200)]
    for file, image in zip(files, digits.images, strict=False):
        Image.fromarray((image * 255 / 16).astype("uint8")).save(file)
    tree = {
        "name": "mae",
        "data": {"sources": [{"name": "digits", "kind": "imagefolder", "path": str(tmp_path / "in")}]},
        "modalities": [{"kind": "image_patches", "patch": 2, "channels": 1, "bottleneck": 4, "limit": 16}],
        "objective": {"kind": "masked_patches", "width": 64, "depth": 1},
        "model": {"width": 64, "depth": 2, "head_dim": 32, "context": 128, "vocab_size": 300},
        "train": {"steps": 1, "batch_size": 32, "sequence_length": 128, "device": "cpu"},
    }
    found = []
    for steps in (1, 300):
        base = onebase.pretrain(tree, out=tmp_path / str(steps), train__steps=steps)
        labels = [str(y) for y in digits.target[:1200]]
        rows = [{"image": str(f), "label": y} for f, y in zip(files[:100], labels, strict=False)]
        head = base.with_adapter(base.adapt(rows, task="classify", method="head"))
        said = [label.label for label in head.classify_images(files[100:])]
        found.append(float(np.mean([a == b for a, b in zip(said, labels[100:], strict=True)])))
    print("accuracy of the untrained and the trained one:", found)
    assert found[1] > found[0] + 0.1, found
