"""What a reward is given."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RewardInput:
    """A completion with the row that it answers: `prompt` as the row has it (a text, or messages), `where` the row's place."""

    prompt: Any
    completion: str
    row: Mapping[str, Any]
    where: str


FindsProblem = tuple[str, str]
"""What is wrong with a row, and what to do."""


@dataclass(frozen=True)
class Reward:
    """A number for each answer. columns: what a row must have beside its prompt. check: what is wrong with a row, if anything. facts: what the
    record keeps of it. seen: what it keeps of the machine that the reward ran on."""

    scores: Callable[[Sequence[RewardInput]], list[float]]
    columns: tuple[str, ...] = ()
    check: Callable[[Mapping[str, Any]], FindsProblem | None] = lambda row: None
    facts: Mapping[str, str] = field(default_factory=dict)
    seen: Mapping[str, str] = field(default_factory=dict)
