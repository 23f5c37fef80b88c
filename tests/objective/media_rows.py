"""A tiny base of text, images and audio, and rows of each, for tests."""

import numpy as np
import torch

from onebase.base.config import BaseConfig, TextShape, native_base
from onebase.base.model import BaseModel
from onebase.modality.patches.config import ImagePatchesConfig, SoundPatchesConfig
from onebase.modality.patches.pictures import grid
from onebase.modality.text.sample import Media, MediaContent, Tokens
from onebase.objective.mixed import FlowConfig

BOS, OPEN, CLOSE, END, PATCH, FIRST = range(6)
IMAGE = ImagePatchesConfig(kind="image_patches", channels=1, bottleneck=16)
SOUND = SoundPatchesConfig(kind="sound_patches", bottleneck=16, limit=8)
PLAIN = FlowConfig(generate=0.0, drop=0.0, damage=0.0)


def native(zero_out: bool = True) -> BaseConfig:
    shape = TextShape(width=64, depth=2, head_dim=16, context=64, vocab_size=32, zero_out=zero_out)
    return native_base(shape, IMAGE, SOUND)


def model(zero_out: bool = True) -> BaseModel:
    base = BaseModel(native(zero_out))
    base.reset(0)
    return base


def picture(i: int, noise: bool, start: int) -> Media:
    """8 x 8 pixels, smooth, each number another."""
    draw = np.random.default_rng(i)
    small = draw.uniform(-1, 1, (2, 2))
    values = np.kron(small, np.ones((4, 4)))[None].astype(np.float32)
    patch = values.reshape(1, 2, 4, 2, 4).transpose(1, 3, 0, 2, 4).reshape(4, 16)
    return Media("image_patches", start, content(patch, grid(2, 2).numpy()), noise)


def content(patch_NP: np.ndarray, at_NK: np.ndarray) -> MediaContent:
    return MediaContent("", len(patch_NP), lambda: (patch_NP, at_NK))


def patches(i: int) -> torch.Tensor:
    return torch.from_numpy(picture(i, False, 0).content.load()[0])


def caption(i: int) -> list[int]:
    return [FIRST + i, FIRST + 8 + i % 3]


def read_row(i: int) -> Tokens:
    """Picture, then its name."""
    ids = [BOS, OPEN, *[PATCH] * 4, CLOSE, *caption(i), END]
    loss = [False] * 7 + [True] * 3
    return Tokens(
        np.array(ids, np.int32), np.array(loss), f"read {i}", "pairs", media=(picture(i, False, 2),)
    )


def drawn_row(i: int) -> Tokens:
    """Name, then the picture that is to be made."""
    ids = [BOS, *caption(i), OPEN, *[PATCH] * 4, CLOSE]
    return Tokens(
        np.array(ids, np.int32), np.zeros(9, bool), f"draw {i}", "pairs", media=(picture(i, True, 4),)
    )


def text_row(n: int = 6) -> Tokens:
    ids = np.arange(FIRST, FIRST + n, dtype=np.int32)
    return Tokens(ids, np.array([False] + [True] * (n - 1)), "text", "text")


def sound_row() -> Tokens:
    patch = np.random.default_rng(3).normal(size=(3, SOUND.values)).astype(np.float32)
    media = Media("sound_patches", 2, content(patch, np.arange(3)[:, None]))
    ids = np.array([BOS, OPEN, *[PATCH] * 3, CLOSE, FIRST], np.int32)
    return Tokens(ids, np.array([False] * 6 + [True]), "sound", "sounds", media=(media,))
