"""Classes of pictures that were learnt here, as transformers has them."""

from pathlib import Path

import pytest
import torch

from onebase.api.base import Base
from onebase.errors import UserError
from tests.formats.parity import shaken

transformers = pytest.importorskip("transformers")
PIL = pytest.importorskip("PIL.Image")
SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 7,
}


@pytest.mark.parametrize(
    ("name", "pooling"), [("ViT", "last"), ("Dinov2", "both"), ("ViT", "both"), ("ViT", "all")]
)
def test_classes_of_pictures(name: str, pooling: str, tmp_path: Path) -> None:
    import onebase

    config = getattr(transformers, f"{name}Config")(
        **SIZE, **({"intermediate_size": 48} if name == "ViT" else {})
    )
    shaken(getattr(transformers, f"{name}Model")(config)).save_pretrained(tmp_path / "theirs")
    rows = []
    for i in range(8):
        PIL.new("RGB", (28, 28), (30 * i, 255 - 30 * i, 90)).save(tmp_path / f"{i}.png")
        rows.append({"image": str(tmp_path / f"{i}.png"), "label": "dark" if i < 4 else "red"})
    base = onebase.load(tmp_path / "theirs")
    assert isinstance(base, Base)
    on = base.with_adapter(base.adapt(rows, task="classify", method="head", pooling=pooling))
    if pooling == "all" or (name, pooling) == ("ViT", "both"):
        with pytest.raises(UserError, match="pooling=last or both|cannot express"):
            on.export(tmp_path / "back")
        return
    paths = [r["image"] for r in rows]
    want = on.classify_images(paths)
    again = onebase.load(on.export(tmp_path / "back")).classify_images(paths)
    for a, b in zip(again, want, strict=True):
        assert a.label == b.label and a.scores == pytest.approx(b.scores, abs=1e-5)
    there = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "back").eval()
    assert there.config.id2label == {0: "dark", 1: "red"}
    from onebase.modality.image.pixels import pixels

    with torch.no_grad():
        said = there(pixel_values=pixels(paths, base.config.image)).logits.softmax(-1)
    torch.testing.assert_close(
        said, torch.tensor([list(w.scores.values()) for w in want]).float(), atol=1e-4, rtol=0
    )
