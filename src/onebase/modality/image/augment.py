"""Small changes of a picture each time that training reads it: a random crop, and its colours."""

from typing import TYPE_CHECKING

from onebase.config import config
from onebase.draws import Draws
from onebase.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image


@config
class Augment:
    """crop: the least share of a picture's area that is kept, at the same proportions; 1: all of it. colour: the most by which brightness, contrast
    and saturation are each multiplied or divided, 0.1 for up to 10%; 0: not at all."""

    crop: float = 0.8
    colour: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise ConfigError(f"augment.crop is {self.crop}", "give a share above 0, at most 1")
        if not 0 <= self.colour < 1:
            raise ConfigError(f"augment.colour is {self.colour}", "give a share of at least 0, below 1")


def augmented(picture: "Image", cfg: Augment, draws: Draws) -> "Image":
    """The picture, changed by these draws alone."""
    from PIL import ImageEnhance

    share, left, top, *factors = draws.uniform(6).tolist()
    if cfg.crop < 1:
        side = (cfg.crop + (1 - cfg.crop) * share) ** 0.5
        width, height = picture.size
        across, down = max(1, round(width * side)), max(1, round(height * side))
        x, y = round(left * (width - across)), round(top * (height - down))
        picture = picture.crop((x, y, x + across, y + down))
    if cfg.colour:
        for change, u in zip(
            (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True
        ):
            picture = change(picture).enhance((1 + cfg.colour) ** (2 * u - 1))
    return picture
