"""A tiny base of text, images and sound, with weights as they start: what it says and draws is nonsense, but the same."""

from pathlib import Path

import torch

from onebase.api.base import Base
from onebase.base.config import TextShape, native_base
from onebase.base.folder import LoadedBase
from onebase.base.model import BaseModel
from onebase.modality.patches.config import ImagePatchesConfig, SoundPatchesConfig
from onebase.modality.patches.tokens import MEDIA_SPECIALS
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.sample import SPECIALS
from onebase.modality.text.tokenizer import Tokenizer


def native() -> Base:
    """Images of at most 16 patches of 4 x 4 pixels, sounds of 20 patches."""
    tokenizer = Tokenizer.train(["a red square of 4x4 beside 2x3"] * 3, 300, (*SPECIALS, *MEDIA_SPECIALS))
    shape = TextShape(
        width=32, depth=2, head_dim=16, context=96, vocab_size=300, zero_out=False, head_std=0.05
    )
    image = ImagePatchesConfig(kind="image_patches", limit=16)
    sound = SoundPatchesConfig(kind="sound_patches", limit=20)
    model = BaseModel(native_base(shape, image, sound))
    model.reset(0)
    for module in model.patches.values():  # so that noise and time matter
        torch.nn.init.normal_(module.head.weight, 0, 0.1, torch.Generator().manual_seed(1))
    return Base(LoadedBase(model.eval(), TextCodec(tokenizer)))


def saved(path: Path) -> Path:
    """The base in a folder."""
    native().save(path)
    return path
