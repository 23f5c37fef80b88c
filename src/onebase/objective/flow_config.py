"""The settings of flow matching, read from recipes without torch."""

from onebase.config import config
from onebase.errors import ConfigError


@config
class FlowConfig:
    """weight: of the flow loss; that of text has 1. A time is the logistic of a normal number with `mean` and `std`: mostly noisy. generate: share of
    the samples whose media are generated: those of one image or sound before its text are turned round, text first. drop: share of generated media that are
    trained without the text before them, for guidance. damage: share of the media that are only read which get up to `noise` of noise."""

    weight: float = 3.0
    mean: float = -0.8
    std: float = 0.8
    generate: float = 0.3
    drop: float = 0.1
    damage: float = 0.1
    noise: float = 0.1

    def __post_init__(self) -> None:
        for name in ("generate", "drop", "damage", "noise"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ConfigError(f"flow.{name} is {value}", "give a share from 0 to 1")
        if self.weight < 0 or self.std <= 0:
            raise ConfigError(
                f"flow.weight is {self.weight} and flow.std {self.std}",
                "give at least 0, and a number above 0",
            )


AS_READ = FlowConfig(generate=0.0, drop=0.0, damage=0.0)
"""Media are read as they are, and never generated."""
