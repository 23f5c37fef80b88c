"""What a scorer is asked."""

from dataclasses import dataclass

from onebase.config import config
from onebase.engine.constrain import Constraint
from onebase.errors import ConfigError
from onebase.tasks.bound import Bound
from onebase.tasks.table import Data


@config
class JudgedConfig:
    """How completions are judged: `reward`, `max_tokens`, `stop` and `success` as task reinforce learns by them (`ReinforceConfig`).
    samples: completions of a prompt at temperature 1, beside the greedy one."""

    reward: str = "exact"
    max_tokens: int = 64
    stop: tuple[str, ...] = ()
    success: float = 1.0
    samples: int = 0

    def __post_init__(self) -> None:
        for name, least in (("max_tokens", 1), ("samples", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"'{name}' is {getattr(self, name)}", f"give at least {least}")


@dataclass(frozen=True)
class Asked:
    """A base (with or without an adapter), rows to score it on, the seed of the intervals, the longest text that it may write, and
    the form that it must have. judged: how completions are judged, where they are."""

    base: Bound
    data: Data
    seed: int = 0
    max_tokens: int = 64
    constraint: Constraint | None = None
    judged: JudgedConfig | None = None
