"""A modality of another package: time series, a text file with one number a line. N patches, P values of a patch."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from onebase.config import config
from onebase.errors import DataError
from onebase.modality.media import MediaKind, register


@config
class SeriesPatchesConfig:
    """`step` numbers a patch."""

    kind: Literal["series_patches"]
    step: int = 8
    bottleneck: int = 16
    limit: int = 32
    trunk: str = "text"
    group: str = "series"

    @property
    def values(self) -> int:
        return self.step

    @property
    def axes(self) -> int:
        return 1

    def shown(self, shape: tuple[int, ...]) -> str:
        return f"series of {shape[0] * self.step}"


def numbers(source: str | Path | bytes, name: str) -> np.ndarray:
    """The numbers of a file. Raises DataError naming it."""
    text = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        found = np.array([float(line) for line in text.split()], np.float32)
    except ValueError as e:
        raise DataError(f"{name}: {e}", "give one number a line") from None
    if not len(found) or not np.isfinite(found).all():
        raise DataError(f"{name} has no numbers, or some that are not finite", "give one number a line")
    return found


def shape(source: Any, cfg: SeriesPatchesConfig, name: str) -> tuple[int]:
    count = -(-len(numbers(source, name)) // cfg.step)
    if count > cfg.limit:
        raise DataError(f"{name} has {count} patches", f"give at most {cfg.limit * cfg.step} numbers")
    return (count,)


def patches(source: Any, cfg: SeriesPatchesConfig, name: str) -> Tensor:
    found = numbers(source, name)
    return torch.from_numpy(np.pad(found, (0, -len(found) % cfg.step), mode="edge").reshape(-1, cfg.step))


def encode(patch_NP: Tensor, shape: tuple[int, ...], cfg: SeriesPatchesConfig) -> bytes:
    return "".join(f"{x:.6g}\n" for x in patch_NP.flatten().tolist()).encode()


KIND = MediaKind(
    name="series",
    codec="series_patches",
    config=SeriesPatchesConfig,
    suffixes=(".series",),
    suffix=".series",
    check=lambda data, name: void(numbers(data, name)),
    shape=shape,
    patches=patches,
    encode=encode,
)


def void(_: object) -> None:
    """A check returns nothing."""


register(KIND)
