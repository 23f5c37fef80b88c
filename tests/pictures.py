"""A tiny base that sees, with weights as they start, and pictures of handwritten digits for it."""

from pathlib import Path
from typing import Any

import numpy as np

from onebase.artifact.record import Record
from onebase.base.config import BaseConfig
from onebase.base.folder import LoadedBase, load_base, save_base
from onebase.base.head import HeadConfig, OwnHead
from onebase.base.masks import MaskHead
from onebase.base.model import BaseModel
from onebase.modality.image.config import ImageCodecConfig, PixelsConfig
from onebase.model.config import (
    AttnConfig,
    BlockConfig,
    FFConfig,
    InitConfig,
    NormConfig,
    Norms,
    Part,
    TrunkConfig,
)

ALL: tuple[Part, ...] = ("q", "k", "v", "o")


def sighted(path: Path, **codec: Any) -> Path:
    """A base folder: 16 x 16 pixels in patches of 4, width 32, two blocks. What a ViT layout can say."""
    norm = NormConfig(kind="layer")
    block = BlockConfig(
        attn=AttnConfig(heads=4, kv_heads=4, head_dim=8, rope=None, bias=ALL),
        ff=FFConfig(hidden=64, activation="gelu", bias=True),
        norms=Norms(norm=norm),
    )
    trunk = TrunkConfig(
        width=32, blocks=(block,) * 2, final_norm=norm, direction="both", init=InitConfig(std=0.2)
    )
    made: dict[str, Any] = {
        "kind": "image",
        "size": 16,
        "patch": 4,
        "places_fit": "bicubic",
        "pixels": PixelsConfig(filter="bilinear"),
    }
    model = BaseModel(BaseConfig(trunks={"image": trunk}, codecs={"image": ImageCodecConfig(**made | codec)}))
    model.reset(0)
    record = Record("base")
    record.add("name", "sighted", "stated by the user")
    save_base(path, LoadedBase(model.eval(), None, record))
    return path


def cutting(path: Path) -> Path:
    """The same base with a head of its own that gives masks, with weights as they start."""
    loaded = load_base(sighted(path.with_name(path.name + "-plain")))
    cfg = HeadConfig(reads="image", gives="masks", patch=4)
    loaded.head = OwnHead("segment", cfg, MaskHead(32, cfg.outputs).tensors)
    save_base(path, loaded)
    return path


def digits(folder: Path, each: int) -> list[dict[str, str]]:
    """Files of so many pictures of each digit, and their rows {"image", "label"} with names relative to the folder."""
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for digit in range(10):
        for i in np.flatnonzero(data.target == digit)[:each].tolist():
            grey = np.round(data.images[i] * (255 / 16)).astype(np.uint8)
            Image.fromarray(grey).save(folder / f"{i}.png")
            rows.append({"image": f"{i}.png", "label": f"digit {digit}"})
    return rows


def photos(folder: Path, *names: str) -> list[Path]:
    """Files of coloured noise, NAME.png."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    out = [folder / f"{name}.png" for name in names]
    for i, path in enumerate(out):
        noise = np.random.default_rng(i).integers(0, 256, (5, 7, 3), np.uint8)
        Image.fromarray(noise).resize((40 + i, 30), 3).save(path)
    return out
