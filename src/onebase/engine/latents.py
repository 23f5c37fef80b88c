"""Pictures drawn by a diffusion transformer: noise in latents is predicted and taken away step by step. B pictures, C channels, S side."""

import difflib
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.base.latents import latent_module, predicted_noise
from onebase.base.model import BaseModel
from onebase.engine.drawing import Drawing, starting_noise
from onebase.errors import UserError
from onebase.modality.latents.config import LatentsConfig
from onebase.modality.latents.schedule import steps_of
from onebase.modality.patches.pictures import to_image
from onebase.model.proj import AdapterRouting

if TYPE_CHECKING:
    from PIL.Image import Image

FRESH = 1 << 40
"""Added to the seed of a picture for the noise that is new in every step."""


def class_of(prompt: str, cfg: LatentsConfig) -> int:
    """The class that a prompt names, by one of its names or by its number. Raises UserError with the nearest name."""
    word = prompt.strip()
    if word.isdecimal() and int(word) < cfg.classes:
        return int(word)
    known = {part.strip(): i for i, text in enumerate(cfg.names) for part in text.split(",") if part.strip()}
    known |= {text: i for i, text in enumerate(cfg.names) if text}
    if word in known:
        return known[word]
    near = difflib.get_close_matches(word, known, 1, 0.6)
    remedy = f"give the name of a class, or its number (0 to {cfg.classes - 1})"
    raise UserError(
        f"this base draws {cfg.classes:,} classes, and none is named {prompt!r}",
        f"did you mean {near[0]!r}? {remedy}" if near else remedy,
    )


@torch.no_grad()
def drawn_latents(
    base: BaseModel, number: int, count: int, how: Drawing, routing: AdapterRouting | None = None
) -> Tensor:
    """Clean latents fp32 [B, C, S, S] of a class. With guidance each step reads the latents twice, with the class and without. The same seed gives
    the same picture, whatever `count` is. Raises UserError for more steps than there are times."""
    cfg = latent_module(base).cfg
    guided, device = how.guidance != 1.0, base.device
    shape = (cfg.channels, cfg.size, cfg.size)
    z_BCSS = starting_noise(how.seed, count, shape).to(device)
    fresh = [torch.Generator().manual_seed(FRESH + how.seed + i) for i in range(count)]
    class_B = torch.full((count,), number, device=device)
    for t, step in steps_of(cfg.noise, how.steps):
        t_B = torch.full((count,), t, device=device)
        noise = predicted_noise(base, z_BCSS, t_B, class_B, routing)
        if guided:
            bare = predicted_noise(base, z_BCSS, t_B, torch.full_like(class_B, cfg.classes), routing)
            noise = bare + how.guidance * (noise - bare)
        new = torch.stack([torch.randn(shape, generator=g) for g in fresh]).to(device) if step.noisy else None
        z_BCSS = step(z_BCSS, noise, new)
    return z_BCSS


def draw_class(
    base: LoadedBase, prompt: str, count: int, how: Drawing, routing: AdapterRouting | None = None
) -> "list[Image]":
    """`count` pictures of a class, through the base's autoencoder. Raises UserError."""
    if how.solver != "euler":
        raise UserError(
            f"solver is {how.solver!r}: this base takes noise away by its own schedule", "leave solver out"
        )
    if base.autoencoder is None:
        raise UserError("this base has no autoencoder", "open the whole pipeline, with its vae/")
    number = class_of(prompt, latent_module(base.model).cfg)
    z_BCSS = drawn_latents(base.model, number, count, how, routing)
    return [to_image(picture) for picture in base.autoencoder.decoded(z_BCSS)]
