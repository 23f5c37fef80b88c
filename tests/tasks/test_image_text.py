"""Task embed on pairs of an image and a text: tiny CLIP and SigLIP learn which belong together."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import onebase
from onebase.api.base import Base
from onebase.errors import DataError
from onebase.objective.image_text import pair_loss
from tests.engine.pictures import write_clip, write_siglip

NAMES = ("cat", "red house", "dog", "blue sea")
COLOURS = ((220, 20, 30), (20, 30, 220), (20, 220, 30), (230, 230, 230))


@pytest.fixture(scope="module", params=["clip", "siglip"])
def room(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Base, list[dict[str, str]]]:
    root = tmp_path_factory.mktemp(request.param)
    model, *_ = {"clip": write_clip, "siglip": write_siglip}[request.param](root / "source")
    with torch.no_grad():  # as in published ones; a drawn scale of about 1 would learn slowly
        model.logit_scale.fill_(2.3)
        if request.param == "siglip":
            model.logit_bias.fill_(-5.0)
    model.save_pretrained(root / "source")
    rows = []
    for i in range(16):
        Image.new("RGB", (20 + i, 18), tuple(max(0, c - i) for c in COLOURS[i % 4])).save(root / f"{i}.png")
        rows.append({"image": str(root / f"{i}.png"), "text": NAMES[i % 4]})
    return root, onebase.load(root / "source"), rows


@pytest.mark.parametrize(("method", "lr"), [("lora", 1e-2), ("full", 2e-3)])
def test_images_find_their_texts(method: str, lr: float, room: Any) -> None:
    _, base, rows = room
    train, test = rows[:12], rows[12:]
    before = onebase.evaluate(base, test, task="embed")["recall@1"].value
    adapter = base.adapt(train, task="embed", method=method, lr=lr, epochs=60, batch_size=6, test=test)
    on = base.with_adapter(adapter)
    assert onebase.evaluate(on, test)["recall@1"].value == 1.0 > before
    found = on.search("red house", [r["image"] for r in test], top=1)
    assert found[0].path == Path(test[1]["image"])
    assert [
        x.label for x in on.classify_images([r["image"] for r in test], list(NAMES), template="{label}")
    ] == [*NAMES]


def test_plans_and_bad_pairs(room: Any, tmp_path: Path) -> None:
    _, base, rows = room
    plan = base.plan_adapt(rows, task="embed", method="lora")
    assert "token ledger: 16 samples" in plan.text and plan.facts["memory_bytes"]["activations"] > 0
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"row 17.*cut\.png"):
        base.adapt([*rows, {"image": str(tmp_path / "cut.png"), "text": "cat"}], task="embed", method="lora")
    with pytest.raises(DataError, match="no negatives"):
        base.adapt([{**r, "text": "cat"} for r in rows], task="embed", method="lora")
    with pytest.raises(DataError, match="test-in-train"):
        base.adapt(rows, test=rows[:2], task="embed", method="lora")


def test_the_losses_by_hand() -> None:
    """Two pairs: softmax both ways, or a decision for each; the same text twice is no negative."""
    z = torch.tensor([[2.0, 0.5], [1.0, 3.0]])
    none, both = torch.eye(2).bool(), torch.ones(2, 2).bool()
    rows = -z.log_softmax(1).diagonal().sum()
    columns = -z.log_softmax(0).diagonal().sum()
    torch.testing.assert_close(pair_loss(z, z, none, 0, False), (rows + columns) / 2)
    signs = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    torch.testing.assert_close(pair_loss(z, z, none, 0, True), torch.nn.functional.softplus(-signs * z).sum())
    assert float(pair_loss(z, z, both, 0, False)) == 0.0
