"""What a base of patches says of an image or a sound, and what it makes of a text: the calls behind `Base.caption`, `draw` and `speak`."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.engine.decoder import generate
from onebase.engine.drawing import Drawing
from onebase.engine.image_prompts import image_name, sees, text_prompt
from onebase.engine.latents import draw_class
from onebase.engine.media_making import Made, made
from onebase.engine.media_prompts import media_codec, media_tokens
from onebase.engine.sampler import Sampling
from onebase.errors import UserError
from onebase.modality.image.pixels import read_picture
from onebase.modality.media import MEDIA
from onebase.modality.patches.config import ImagePatchesConfig
from onebase.modality.patches.contents import picture_shape
from onebase.modality.patches.pictures import picture_values, to_patches
from onebase.model.proj import AdapterRouting

if TYPE_CHECKING:
    from PIL.Image import Image


def described(
    base: LoadedBase,
    kind: str,
    files: Sequence[str | Path],
    prompt: str = "",
    max_tokens: int = 128,
    routing: AdapterRouting | None = None,
) -> list[str]:
    """The text that follows each file (kind: image, audio), greedily; prompt: how the text begins. Raises UserError, DataError naming a file."""
    if kind == "image" and sees(base):
        each_ids = [text_prompt(base, image_name(base) + prompt, [f], routing) for f in files]
        vectors = [p.inserts for p in each_ids]
        said = generate(base, [p.ids for p in each_ids], Sampling(max_tokens), routing, inserts=vectors)
        return [c.text for c in said]
    each = [media_tokens(base, (kind, f), *((("text", prompt),) if prompt else ())) for f in files]
    found = generate(
        base,
        [t.ids.tolist() for t in each],
        Sampling(max_tokens),
        routing,
        media=[t.media for t in each],
    )
    return [c.text for c in found]


def draw(
    base: LoadedBase,
    prompt: str,
    count: int,
    how: Drawing,
    *,
    size: tuple[int, int] | None = None,
    init: Any = None,
    mask: Any = None,
    strength: float = 0.7,
    routing: AdapterRouting | None = None,
) -> "list[Image]":
    """`count` pictures of a text. See `Base.draw`."""
    if "latents" in base.model.cfg.codecs:
        if size is not None or init is not None or mask is not None:
            raise UserError(
                "size, init and mask are for bases of patches: this one draws whole pictures of one size",
                "leave them out",
            )
        return draw_class(base, prompt, count, how, routing)
    cfg = _image_config(base)
    if mask is not None and init is None:
        raise UserError("a mask is given without a picture", "give init=, the picture to change")
    if not 0 < strength <= 1:
        raise UserError(f"strength is {strength}", "give a share above 0, up to 1")
    shape, known, start = None, None, None
    if init is not None:
        picture = _opened(init)
        name = str(init) if isinstance(init, str | Path) else "the picture"
        shape = picture_shape(picture.size, cfg, name)
        patch_NP = to_patches(picture_values(picture, cfg), cfg.patch).to(base.model.device)
        if mask is None:
            start = (patch_NP, 1.0 - strength)
        else:
            known = (patch_NP, ~_changed(mask, picture, shape, cfg).to(base.model.device))
    elif size is not None:
        if min(size) < 1:
            raise UserError(f"size is {size}", "give width and height in pixels")
        shape = picture_shape(size, cfg, "size")
    found = made(base, "image", prompt, count, how, shape=shape, known=known, start=start, routing=routing)
    return [opened(m) for m in found]


def speak(
    base: LoadedBase,
    text: str,
    how: Drawing,
    *,
    seconds: float | None = None,
    routing: AdapterRouting | None = None,
) -> tuple[np.ndarray, int]:
    """Samples fp32 [N] from -1 to 1, and how many a second. See `Base.speak`."""
    from onebase.modality.patches.sounds import griffin_lim, mel_of

    codec = media_codec(base, "audio")
    cfg: Any = codec.patches[MEDIA["audio"].codec]
    shape = None
    if seconds is not None:
        if not 0 < seconds <= cfg.seconds:
            raise UserError(f"seconds is {seconds:g}", f"give a number above 0, up to {cfg.seconds:g}")
        shape = (max(1, round(seconds * cfg.mel.rate / (cfg.mel.hop * cfg.stack))),)
    (found,) = made(base, "audio", text, 1, how, shape=shape, routing=routing)
    return griffin_lim(mel_of(found.patch_NP.cpu(), cfg), cfg.mel).numpy(), cfg.mel.rate


def opened(found: Made) -> "Image":
    """A made image."""
    return read_picture(found.data, "the image")


def _image_config(base: LoadedBase) -> ImagePatchesConfig:
    cfg = media_codec(base, "image").patches["image_patches"]
    assert isinstance(cfg, ImagePatchesConfig)
    return cfg


def _opened(source: Any) -> "Image":
    return read_picture(source) if isinstance(source, str | Path | bytes) else source.convert("RGB")


def _changed(mask: Any, picture: "Image", shape: tuple[int, ...], cfg: ImagePatchesConfig) -> Tensor:
    """Which patches are drawn anew, bool [N]: those with anything white in the mask."""
    image = _opened(mask)
    if image.size != picture.size:
        raise UserError(
            f"the mask has {image.size[0]} x {image.size[1]} pixels, the picture {picture.size[0]} x {picture.size[1]}",
            "give a mask of the picture's size, white where it is to be drawn anew",
        )
    down, across = shape
    small = image.convert("L").resize((across * cfg.patch, down * cfg.patch), 0)
    white_HW = torch.from_numpy(np.array(small)) > 127
    found: Tensor = to_patches(white_HW[None].float(), cfg.patch).amax(1) > 0
    if not bool(found.any()):
        raise UserError("the mask is black everywhere", "make it white where the picture is to be drawn anew")
    return found


def to_wav(sound_N: np.ndarray, rate: int) -> bytes:
    """Samples as the bytes of a WAV file."""
    from onebase.modality.patches.sounds import write_wav

    out = io.BytesIO()
    write_wav(out, torch.from_numpy(sound_N), rate)
    return out.getvalue()
