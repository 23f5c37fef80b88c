"""Encoders of proteins and of images learn by LoRA and by all weights, not only by a head over their features."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import onebase
from onebase.api.base import Base
from tests.engine.pictures import write_clip, write_siglip
from tests.formats.parity import shaken
from tests.formats.test_esm import ESM2

transformers = pytest.importorskip("transformers")

ESM_WORDS = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>"]
VIT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 16,
    "patch_size": 8,
}
METHODS = [("lora", 1e-2), ("full", 2e-3)]


def _vit(folder: Path) -> None:
    shaken(transformers.ViTModel(transformers.ViTConfig(**VIT))).save_pretrained(folder)


def _dinov2(folder: Path) -> None:
    cfg = {k: v for k, v in VIT.items() if k != "intermediate_size"}
    shaken(transformers.Dinov2Model(transformers.Dinov2Config(**cfg))).save_pretrained(folder)


@pytest.fixture(scope="module")
def proteins(tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = tmp_path_factory.mktemp("esm")
    shaken(transformers.EsmForMaskedLM(transformers.EsmConfig(**ESM2))).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(ESM_WORDS))
    transformers.EsmTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return onebase.load(folder)


def check_trunk_moved(base: Base, adapter: Any, method: str) -> None:
    """Weights other than the head's were learnt: LoRA's second factors, which begin at zero, or the base's own."""
    own = {n: t for n, t in adapter.parts.tensors.items() if not n.startswith("head.")}
    if method == "full":
        before = base.loaded.model.state_dict()
        assert any(not torch.equal(t, before[n]) for n, t in own.items() if n in before)
    else:
        assert any(bool(t.any()) for n, t in own.items() if n.endswith(".b")), sorted(own)


@pytest.mark.parametrize(("method", "lr"), METHODS)
def test_proteins(method: str, lr: float, proteins: Base) -> None:
    chains = ["LLLLALLL", "KKKKEKKK", "LLALLLAL", "KKEKKKEK", "LLLALLLL", "KEKKKKKK"]
    rows = [{"text": c, "label": "greasy" if c[0] == "L" else "charged"} for c in chains]
    how: dict[str, Any] = {"method": method, "lr": lr, "epochs": 20, "batch_size": 6}
    adapter = proteins.adapt(rows, task="classify", **how)
    check_trunk_moved(proteins, adapter, method)
    on = proteins.with_adapter(adapter)
    assert onebase.evaluate(on, rows)["accuracy"].value == 1.0
    values = [{"text": c, "value": 10.0 * c.count("L")} for c in chains]
    adapter = proteins.adapt(values, task="regress", **how)
    check_trunk_moved(proteins, adapter, method)
    on = proteins.with_adapter(adapter)
    found = on.predict(chains)
    assert min(found[0::2]) > max(found[1::2])


@pytest.mark.parametrize(("method", "lr"), METHODS)
@pytest.mark.parametrize("write", [_vit, _dinov2, write_clip, write_siglip])
def test_pictures(write: Any, method: str, lr: float, tmp_path: Path) -> None:
    write(tmp_path / "source")
    rows = []
    for i in range(8):
        colour = (220 - 5 * i, 20, 30) if i % 2 else (20, 30, 220 - 5 * i)
        Image.new("RGB", (16 + i, 18), colour).save(tmp_path / f"{i}.png")
        rows.append({"image": f"{i}.png", "label": "red" if i % 2 else "blue"})
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    base = onebase.load(tmp_path / "source")
    adapter = base.adapt(data, task="classify", method=method, lr=lr, epochs=8, batch_size=8)
    check_trunk_moved(base, adapter, method)
    on = base.with_adapter(adapter)
    assert onebase.evaluate(on, data)["accuracy"].value == 1.0
