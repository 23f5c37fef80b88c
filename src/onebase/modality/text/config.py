"""The config of the text codec, and the parameter count of its embedding and head."""

from typing import Literal

from onebase.config import config
from onebase.config_fields import later
from onebase.errors import ConfigError
from onebase.model.config import Activation, NormConfig
from onebase.model.count import norm_parameters


@config
class TransformConfig:
    """The layers between the trunk and the logits of a masked language model: dense, activation, norm (BERT)."""

    activation: Activation = "gelu"
    norm: NormConfig = NormConfig(kind="layer", eps=1e-12)
    bias: bool = True


@config
class TextCodecConfig:
    """`tied` shares one matrix between embedding and head; `softcap` c bounds logits to c*tanh(z/c); `*_std`: deviations at initialisation.

    The stem multiplies a token's vector by `scale`. It adds learned vectors of the position (a table of `positions` rows; the first
    text position is row `first_position`) and of the type (`types` rows: 0 for a text, 1 for the second text of a pair). `head=False`:
    the base returns hidden states and predicts no tokens. Token `dropped` has a vector of zeros, and the other vectors of its text are
    divided by the share that remains, as in dropout (ESM's mask token). Logits are divided by `divisor` (Granite), before a soft-cap.
    """

    vocab_size: int
    context: int
    tied: bool = False
    softcap: float | None = None
    embed_std: float = 0.02
    head_std: float = 0.02
    scale: float | None = None
    positions: int | None = None
    first_position: int = 0
    types: int = 0
    head: bool = True
    head_bias: bool = False
    transform: TransformConfig | None = None
    dropped: int | None = None
    divisor: float | None = later(None)
    kind: Literal["text"] = "text"

    def __post_init__(self) -> None:
        if self.vocab_size < 2 or self.context < 2:
            raise ConfigError(
                f"vocab_size {self.vocab_size}, context {self.context}", "both must be at least 2"
            )
        if self.positions is not None and self.positions < self.context + self.first_position:
            raise ConfigError(
                f"a table of {self.positions} positions is too short for a context of {self.context}"
                + (f" that starts at row {self.first_position}" if self.first_position else ""),
                "shorten the context",
            )
        if self.divisor is not None and (self.divisor <= 0 or self.head_bias):
            raise ConfigError(
                f"logits divided by {self.divisor}, head_bias {self.head_bias}",
                "divisor must be above 0, and head_bias false",
            )
        if not self.head and (self.tied or self.head_bias or self.transform):
            raise ConfigError("head is false, but tied, head_bias or transform is set", "set head: true")


def codec_parameters(cfg: TextCodecConfig, width: int) -> int:
    """Parameters of embedding and head."""
    rows = cfg.vocab_size * (1 + (cfg.head and not cfg.tied)) + (cfg.positions or 0) + cfg.types
    total = rows * width + (cfg.vocab_size if cfg.head_bias else 0)
    if cfg.transform is not None:
        total += width * (width + cfg.transform.bias) + norm_parameters(cfg.transform.norm, width)
    return total
