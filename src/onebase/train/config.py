"""Training config: budget, batch, optimizers, schedule, numerics, checkpoints."""

from typing import Literal

from onebase.config import config
from onebase.config_fields import later, renamed
from onebase.errors import ConfigError

Device = Literal["auto", "cpu", "cuda", "mps"]
DType = Literal["auto", "bf16", "fp32"]

FREE = ("device", "checkpoint", "eval_every")
"""Keys of TrainConfig that do not affect the weights: a run may be resumed with other values of them."""


@config
class MuonConfig:
    """Momentum orthogonalised by Newton-Schulz (Jordan 2024), for the trunk's matrices: `train.muon`."""

    lr: float = 0.02
    momentum: float = 0.95
    weight_decay: float = 0.0
    ns_steps: int = 5


@config
class AdamWConfig:
    """Learning rates by kind of parameter; `matrix` is used only without Muon."""

    matrix: float = 3e-3
    embed: float = 3e-3
    head: float = 3e-3
    other: float = 3e-3
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.0


@config
class ScheduleConfig:
    """Linear warm-up over `warmup` steps, flat, then linear warm-down over the last `warmdown` share to `final` x the rate."""

    warmup: int = 20
    warmdown: float = 0.5
    final: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.warmdown <= 1 or self.warmup < 0 or self.final < 0:
            raise ConfigError(
                f"schedule warmup {self.warmup}, warmdown {self.warmdown}, final {self.final}",
                "give warmup in steps, warmdown as a share from 0 to 1, final of at least 0",
            )


@config
class CheckpointConfig:
    """When to save and what to keep. every: steps between checkpoints (0: only at the end and on a signal). keep: number of newest ones. flat: also
    keep the last one at full learning rates, from which a finished run can be extended."""

    every: int = 0
    keep: int = 2
    flat: bool = True


@config
class TrainConfig:
    """Options of the training loop. The budget is exactly one of steps, tokens and minutes.

    A global batch is `batch_size` rows of `sequence_length` tokens, in micro-batches of at most `micro_batch` rows (0: automatic). With `minutes` the
    first steps are timed, and the number of steps is fixed once from them; evaluation during training and checkpoints are not counted.

    ema: decay of a running average of the weights, which the run ends with (None: it ends with the last weights).
    """

    steps: int | None = None
    tokens: int | None = None
    minutes: float | None = None
    batch_size: int = renamed("rows", 32)
    sequence_length: int = renamed("length", 256)
    micro_batch: int = renamed("micro", 0)
    seed: int = 0
    muon: MuonConfig | None = MuonConfig()
    adamw: AdamWConfig = AdamWConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    clip: float | None = 1.0
    device: Device = "auto"
    dtype: DType = "auto"
    compile: bool = False
    checkpoint: CheckpointConfig = CheckpointConfig()
    eval_every: int = 0
    max_bad_steps: int = 10
    ema: float | None = later(None)

    def __post_init__(self) -> None:
        given = [n for n in ("steps", "tokens", "minutes") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ConfigError(
                f"the budget is set by {' and '.join(given) or 'nothing'}",
                "give exactly one of steps, tokens, minutes",
            )
        if getattr(self, given[0]) <= 0:
            raise ConfigError(f"{given[0]} is {getattr(self, given[0])}", "give a number above 0")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ConfigError(f"ema is {self.ema}", "give a decay between 0 and 1, such as 0.999")
        if self.batch_size < 1 or self.sequence_length < 2 or self.micro_batch < 0:
            raise ConfigError(
                f"batch_size {self.batch_size}, micro_batch {self.micro_batch}, sequence_length {self.sequence_length}",
                "give a batch_size of at least 1, a sequence_length of at least 2, and a micro_batch of at least 1 (or 0: automatic)",
            )

    @property
    def planned_steps(self) -> int | None:
        """Steps of the budget; None for a budget in minutes, which needs timed steps."""
        if self.minutes is not None:
            return None
        return self.steps or self.steps_for(self.tokens or 0)

    def steps_for(self, tokens: int) -> int:
        """Steps for this many tokens, padding included, rounded up."""
        return -(-tokens // (self.batch_size * self.sequence_length))
