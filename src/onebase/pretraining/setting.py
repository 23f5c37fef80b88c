"""What a pretraining run passes to the objective that it builds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a recipe is read without torch
    from onebase.base.config import BaseConfig
    from onebase.data.sources import MediaFile
    from onebase.modality.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Setting:
    """What a run passes to its objective: the tokenizer, tokens per row, the seed, the names of the data's sources, the config of the base, the files of
    the data's media by their hash, and the rows of a micro-batch that the recipe states (0: none)."""

    tokenizer: Tokenizer
    length: int
    seed: int = 0
    sources: tuple[str, ...] = ()
    base: BaseConfig | None = None
    media: Callable[[str], MediaFile] | None = None
    micro: int = 0
