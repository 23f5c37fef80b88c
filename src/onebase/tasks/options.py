"""Options of adaptation: one flat, strict set for Python and the command line."""

from onebase.adapt.head import Chosen
from onebase.adapt.prompt import CompareConfig, ShotsConfig, Template
from onebase.codec.text.clock import read_date
from onebase.codec.text.ledger import check_codes
from onebase.config import config, from_dict
from onebase.data.mixed import ReplayConfig
from onebase.errors import ConfigError
from onebase.objective.distil import DistilConfig
from onebase.objective.grouped import ContrastConfig
from onebase.objective.policy import ReinforceConfig
from onebase.objective.preference import PreferConfig


@config
class AdaptOptions:
    """What `Base.adapt` takes beside data, task and method.

    epochs, rows, lr: passes over the data, samples a step, AdamW's peak rate (head: not used; it is solved exactly).
    micro: rows of a step that are read at a time, at most (about 512 tokens on a CPU when null, 2,048 for full); what is learnt does not depend on it.
    rank, alpha, sites, ranks, alphas, rslora, dora: LoRA, as `LoraConfig` has them (sites: last words, names or globs; all when empty).
    pooling: which hidden states a head reads
    ("auto": as cross-validation says).
    virtual, soft_text: soft and prefix (how many virtual tokens; a text whose tokens they start from, random ones when null).
    contrast: classify, whether vectors are learnt first (`ContrastConfig`).
    temperature, symmetric: embed (cosines are divided by it; whether positives must find their anchors too).
    reinforce: reinforce (`ReinforceConfig`).
    prefer: prefer (the loss and what it hangs on, `PreferConfig`).
    prompt, answers, shots, compare: prompt method (a template with `{text}` and other variables, for chat also a list of messages; answers map a
    label to the text compared; examples, `ShotsConfig`; how answers are compared, `CompareConfig`). max_length: longest sample in
    tokens (the base's context when null). allow: codes of the token ledger's findings that do not stop it.
    date: what a chat template finds for today, YYYY-MM-DD (when null the date on which the run began; it is recorded, and a resumed run keeps it).
    """

    epochs: int = 3
    rows: int = 16
    lr: float | None = None
    micro: int | None = None
    rank: int = 8
    alpha: float = 16.0
    sites: tuple[str, ...] = ()
    ranks: dict[str, int] | None = None
    alphas: dict[str, float] | None = None
    rslora: bool = False
    dora: bool = False
    virtual: int = 16
    soft_text: str | None = None
    pooling: Chosen = "auto"
    prompt: Template = "{text}"
    answers: dict[str, str] | None = None
    shots: ShotsConfig = ShotsConfig()
    compare: CompareConfig = CompareConfig()
    temperature: float = 0.05
    symmetric: bool = False
    contrast: ContrastConfig = ContrastConfig()
    prefer: PreferConfig = PreferConfig()
    replay: ReplayConfig = ReplayConfig()
    distil: DistilConfig = DistilConfig()
    reinforce: ReinforceConfig = ReinforceConfig()
    max_length: int | None = None
    allow: tuple[str, ...] = ()
    seed: int = 0
    date: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("rows", 1), ("micro", 1), ("virtual", 1), ("max_length", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"'{name}' is {value}", f"give at least {least}")
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"'temperature' is {self.temperature}", "give a number above 0")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise ConfigError(f"'lr' is {self.lr}", "give a number above 0")
        if self.date is not None:
            read_date(self.date)
        check_codes(self.allow)


def read_options(options: dict[str, object]) -> AdaptOptions:
    """Strict: an unknown option names the nearest valid one."""
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
    return from_dict(AdaptOptions, plain, "adapt options")
