"""What a pretraining run passes to the objective that it builds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a recipe is read without torch
    from onebase.base.config import BaseConfig
    from onebase.modality.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Setting:
    """What a run passes to its objective: the tokenizer, tokens per row, the seed, the names of the data's sources, and the config of the base."""

    tokenizer: Tokenizer
    length: int
    seed: int = 0
    sources: tuple[str, ...] = ()
    base: BaseConfig | None = None
