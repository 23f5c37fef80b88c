"""Contrastive pretraining by recipe: a base that finds pictures, a run that was stopped, its export, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import onebase
from onebase.base.config import base_flops, base_parameters
from onebase.errors import DataError, UserError
from onebase.pretraining.planning import plan_recipe
from onebase.pretraining.recipe import Recipe, read_recipe
from onebase.train.callbacks import NoCallback, StepInfo
from onebase.train.flops import counted_flops
from tests.captioned import recipe, shapes


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, str]]]:
    folder = tmp_path_factory.mktemp("shapes")
    return folder, shapes(folder, 160)


def made(tree: dict[str, Any]) -> Recipe:
    return read_recipe(tree, {})


def test_a_base_that_finds_pictures(room: Any, tmp_path: Path) -> None:
    class Ends(NoCallback):
        def step(self, info: StepInfo) -> None:
            if info.step == 34:
                raise KeyboardInterrupt

    folder, rows = room
    said = list[str]()
    base = onebase.pretrain(recipe(folder), out=tmp_path / "whole", log=said.append)
    with pytest.raises(KeyboardInterrupt):
        onebase.pretrain(recipe(folder), out=tmp_path / "parts", callbacks=[Ends()])
    again = onebase.pretrain(recipe(folder), out=tmp_path / "parts")
    assert again.fingerprint == base.fingerprint, "a stopped run resumes bitwise"
    score = base.record.get("scores.heldout_recall_at_1.shapes")
    assert score["value"] > 0.7 and score["n"] > 20  # of 8 captions
    assert base.record.get("flops.counted") > 0 and base.record.get("tokens.by_source")["shapes"] > 0
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert {"heldout_recall_at_10/shapes", "heldout_recall_at_1/shapes"} <= log[24].keys()
    assert any("[image 24x24]" in line and "bar<|eos|>" in line for line in said), "the ledger"
    files = [folder / r["file_name"] for r in rows[:24]]
    on = onebase.load(tmp_path / "whole")
    assert all(
        r["text"] == "a blue square"
        for r in (rows[int(f.path.stem)] for f in on.search("a blue square", files, top=3))
    )
    labels = sorted({r["text"] for r in rows})
    right = [
        x.label == r["text"]
        for x, r in zip(on.classify_images(files, labels, template="{label}"), rows, strict=False)
    ]
    assert np.mean(right) > 0.8
    vectors = on.embed(["a red bar"])
    assert vectors.shape == (1, 32) and float(torch.as_tensor(vectors).norm()) == pytest.approx(1, abs=1e-5)
    read = onebase.documents_read(tmp_path / "whole")
    assert read.sources["shapes"].tokens_read == base.record.get("tokens.by_source")["shapes"]


def test_the_clip_layout_exports(room: Any, tmp_path: Path) -> None:
    """transformers' CLIPModel gives the same scores for the same pixels and tokens."""
    from transformers import AutoTokenizer, CLIPModel

    folder, rows = room
    tree = recipe(
        folder,
        model={"width": 32, "depth": 2, "head_dim": 16, "context": 16, "vocab_size": 300, "portable": True},
    )
    base = onebase.pretrain(tree, out=tmp_path / "run", train__steps=8)
    base.export(tmp_path / "hf")
    texts, files = ["a red bar", "a blue square"], [folder / r["file_name"] for r in rows[:3]]
    model = CLIPModel.from_pretrained(tmp_path / "hf").eval()
    read = AutoTokenizer.from_pretrained(tmp_path / "hf")(texts, return_tensors="pt", padding=True)
    from onebase.modality.image.pixels import pixels

    with torch.no_grad():
        theirs = model(**read, pixel_values=pixels(files, base.config.image)).logits_per_image
    ours = torch.as_tensor(base.embed_images(files)) @ torch.as_tensor(base.embed(texts)).T
    scale = base.loaded.model.link("pair").scale.exp().detach()
    torch.testing.assert_close(ours * scale, theirs, atol=1e-4, rtol=0)
    again = onebase.load(tmp_path / "hf")
    assert np.array_equal(again.embed(texts), base.embed(texts))
    assert np.array_equal(again.embed_images(files), base.embed_images(files))


def test_the_plan_counts_both_towers(room: Any) -> None:
    read = made(recipe(room[0]))
    facts = plan_recipe(read).facts
    assert facts["parameters"] == base_parameters(read.base()) and facts["micro_batch"] == 16
    assert facts["memory_bytes"]["activations"] > 0 == facts["memory_bytes"]["logits"]
    assert "cache" not in plan_recipe(read).text
    tower = 2 * (4 * 48 * 48 + 2 * 4 * 48 * 48) * 16 * 6  # of 16 patches: two blocks, forward and backward
    assert base_flops(read.base(), 16) > tower / 16


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image": None}, "image is not set"),
        ({"objective": "next_token"}, "no use for an image tower"),
        ({"image": {"size": 25, "patch": 8, "width": 48, "depth": 2}}, "not a multiple of image.patch"),
        ({"objective": {"kind": "contrastive", "width": 0}}, "objective.width is 0"),
        ({"objective": {"kind": "contrastive", "augment": {"crop": 0.0}}}, "augment.crop is 0"),
        ({"objective": {"kind": "contrastive", "augment": {"colour": 2.0}}}, "augment.colour is 2"),
        ({"objective": {"kind": "contrastive", "loss": "hinge"}}, "hinge"),
        (
            {
                "model": {
                    "width": 32,
                    "depth": 1,
                    "head_dim": 16,
                    "context": 16,
                    "vocab_size": 300,
                    "portable": True,
                },
                "objective": {"kind": "contrastive", "loss": "sigmoid"},
            },
            "no bias of the scores",
        ),
    ],
)
def test_bad_recipes(changes: dict[str, Any], said: str, room: Any) -> None:
    with pytest.raises(UserError, match=said):
        made(recipe(room[0], **changes))


def test_bad_pictures_are_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A picture that breaks off, text without a picture, and a picture without a caption; training goes on with the others."""
    rows = shapes(tmp_path / "data", 40)
    whole = (tmp_path / "data" / "3.png").read_bytes()
    (tmp_path / "data" / "3.png").write_bytes(whole[: len(whole) // 2])
    rows[5]["text"] = "  "
    (tmp_path / "data" / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "more.jsonl").write_text('{"text": "a text without a picture"}\n')
    tree = recipe(tmp_path / "data")
    tree["data"]["sources"].append({"name": "more", "kind": "jsonl", "path": str(tmp_path / "more.jsonl")})
    tree["data"]["holdout"] = 0.0
    base = onebase.pretrain(tree, out=tmp_path / "run", train__steps=2)
    assert "3.png cannot be read" in caplog.text and "2 documents are left out" in caplog.text
    assert base.record.get("tokens.by_source").keys() == {"shapes"}
    tree["data"]["sources"] = tree["data"]["sources"][1:]
    with pytest.raises(DataError, match="has no images"):
        onebase.pretrain(tree, out=tmp_path / "text")


def test_long_captions_end_with_the_end_token(tmp_path: Path) -> None:
    rows = shapes(tmp_path / "data", 24)
    rows[0]["text"] = "a very long caption " * 9
    (tmp_path / "data" / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    base = onebase.pretrain(
        recipe(tmp_path / "data"), out=tmp_path / "run", train__steps=2, train__batch_size=24
    )
    assert base.record.get("tokens.by_source")["shapes"] <= 2 * 24 * 16


def test_counted_flops_are_those_of_the_formula(room: Any) -> None:
    from onebase.base.model import BaseModel
    from onebase.objective.base import Batch, TrunkInput
    from onebase.objective.pairs import CaptionPairs, packed_captions

    cfg = made(recipe(room[0])).base()
    model = BaseModel(cfg)
    model.reset(0)
    # Captions that fill their rows: 4 of 16 tokens, and as many pictures.
    read, last = packed_captions([np.arange(16, dtype=np.int32)] * 4, 16)
    pixels = torch.zeros(4, 3, 24, 24)
    batch = Batch(
        {"text 0": read, "image 0": TrunkInput(pixels, read.cols)},
        {"last 0": last, "text": torch.arange(4), "image": torch.arange(4)},
        {"contrastive": 4},
    )
    counted = counted_flops(model, CaptionPairs(16, 1, cfg.image, None), batch) / 64  # type: ignore[arg-type]
    assert counted == pytest.approx(base_flops(cfg, 16), rel=0.15)
