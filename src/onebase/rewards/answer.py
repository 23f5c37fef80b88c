"""The input of a reward, and what a reward is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RewardInput:
    """A completion with its row: `prompt` as in the row (a text, or messages), `where` names the row in errors."""

    prompt: Any
    completion: str
    row: Mapping[str, Any]
    where: str


RowProblem = tuple[str, str]
"""What is wrong with a row, and what to do."""


@dataclass(frozen=True)
class Reward:
    """Computes a number for each answer. columns: required besides the prompt. check: returns what is wrong with a row, if anything. facts:
    hashes for the record. seen: facts for the record about the machine that the reward runs on."""

    scores: Callable[[Sequence[RewardInput]], list[float]]
    columns: tuple[str, ...] = ()
    check: Callable[[Mapping[str, Any]], RowProblem | None] = lambda row: None
    facts: Mapping[str, str] = field(default_factory=dict)
    seen: Mapping[str, str] = field(default_factory=dict)
