"""What a scorer is asked."""

from dataclasses import dataclass, field

from onebase.api.adapting import Data
from onebase.api.base import Base
from onebase.generate.constrain import Constraint
from onebase.objective.policy import ReinforceConfig


@dataclass(frozen=True)
class Asked:
    """A base (with or without an adapter), rows to score it on, the seed of the intervals, the longest text that it may write, and
    the form that it must have. reinforce: how completions are judged, for that task."""

    base: Base
    data: Data
    seed: int = 0
    max_tokens: int = 64
    constraint: Constraint | None = None
    reinforce: ReinforceConfig = field(default_factory=ReinforceConfig)
