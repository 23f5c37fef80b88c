"""The recipe of a pretraining run: its whole config, as one YAML file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from onebase import config as configs
from onebase.artifact.record import Origin, Path_, by_given
from onebase.base.config import BaseConfig, TextShape, text_base
from onebase.config import config, given_of
from onebase.data.sources import SourceConfig
from onebase.errors import ConfigError
from onebase.pretraining.objectives import NextTokenConfig, ObjectiveConfig, objective_of
from onebase.train.config import TrainConfig


@config
class DataConfig:
    """Training data: either `dataset`, a prepared folder, or `sources` to prepare it from."""

    sources: tuple[SourceConfig, ...] = ()
    dataset: str | None = None
    holdout: float = 0.02

    def __post_init__(self) -> None:
        if bool(self.sources) == bool(self.dataset):
            raise ConfigError(
                "data needs exactly one of sources and dataset", "list data.sources, or set data.dataset"
            )


@config
class TokenizerConfig:
    """The tokenizer: read from `path`, or trained on `train_bytes` of text (a sample spread over the documents)."""

    path: str | None = None
    train_bytes: int = 50_000_000


@config
class LogConfig:
    """Trackers to use besides `log.jsonl`, which is always written. They need the extra `track`."""

    tensorboard: bool = False
    wandb: bool = False


@config
class Recipe:
    """One pretraining run of a text base. The vocabulary size is `model.vocab_size`."""

    name: str
    data: DataConfig
    model: TextShape
    train: TrainConfig
    tokenizer: TokenizerConfig = TokenizerConfig()
    objective: ObjectiveConfig = NextTokenConfig()
    log: LogConfig = LogConfig()

    def __post_init__(self) -> None:
        if self.train.sequence_length > self.model.context:
            raise ConfigError(
                f"train.sequence_length {self.train.sequence_length} is larger than model.context {self.model.context}",
                "lower train.sequence_length or raise model.context",
            )
        self.base()  # refuses inconsistent sizes before the data is prepared

    def base(self, vocab_size: int | None = None) -> BaseConfig:
        """The config of the base, with the attention direction of its objective. vocab_size: of the tokenizer, if it exists."""
        shape = self.model if vocab_size is None else replace(self.model, vocab_size=vocab_size)
        return text_base(shape, objective_of(self.objective).direction)


def origins(recipe: Recipe) -> Callable[[Path_], str]:
    """A function from the path of a value to its origin: the file, an override, or the default."""
    given = given_of(recipe)
    file, user = by_given(given.file, Origin.RECIPE), by_given(given.overrides)
    return lambda path: user(path) if user(path) != Origin.DEFAULT else file(path)


def licences_from(recipe: Recipe) -> str:
    """The origin of the licences of the recipe's sources."""
    from_ = origins(recipe)
    stated = {from_(("data", "sources", str(i), "licence")) for i in range(len(recipe.data.sources))}
    stated.discard(Origin.DEFAULT)
    return (
        stated.pop()
        if len(stated) == 1
        else f"{Origin.RECIPE}, or over it by the user"
        if stated
        else Origin.RECIPE
    )


def read_recipe(recipe: "Recipe | str | Path", overrides: dict[str, object]) -> Recipe:
    """A recipe from a file or as given, with overrides: `{"train.steps": 10}` or `{"train__steps": 10}`."""
    import json

    texts = [f"{k.replace('__', '.')}={json.dumps(v)}" for k, v in overrides.items()]
    if isinstance(recipe, Recipe):
        return configs.override(recipe, texts)
    return configs.load(Recipe, recipe, texts)
