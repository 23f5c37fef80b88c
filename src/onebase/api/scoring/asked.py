"""What a scorer is asked."""

from dataclasses import dataclass

from onebase.api.adapting import Data
from onebase.api.base import Base


@dataclass(frozen=True)
class Asked:
    """A base (with or without an adapter), rows to score it on, the seed of the intervals, and the longest text that it may write."""

    base: Base
    data: Data
    seed: int = 0
    max_tokens: int = 64
