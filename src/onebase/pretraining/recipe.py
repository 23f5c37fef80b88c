"""The recipe of a pretraining run: its whole config, as one YAML file."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

from onebase import config as configs
from onebase.artifact.record import Origin, Path_, by_given
from onebase.base.config import BaseConfig, TextShape, native_base
from onebase.base.pair_config import ImageShape, pair_base
from onebase.config import config, given_of
from onebase.config_fields import later
from onebase.data.sources import SourceConfig
from onebase.errors import ConfigError
from onebase.modality.kinds import PatchesConfig
from onebase.modality.patches.config import PatchConfig
from onebase.modality.text.sample import MASK
from onebase.pretraining.objectives import ContrastiveConfig, NextTokenConfig, ObjectiveConfig, objective_of
from onebase.train.config import TrainConfig


@config
class DataConfig:
    """Training data: either `dataset`, a prepared folder, or `sources` to prepare it from. repeat: how often an epoch reads the documents of a source,
    by its name, so that small sources count for more (default: once)."""

    sources: tuple[SourceConfig, ...] = ()
    dataset: str | None = None
    holdout: float = 0.02
    repeat: dict[str, int] = later({})

    def __post_init__(self) -> None:
        names = {source.name for source in self.sources}
        for name, times in self.repeat.items():
            if times < 1:
                raise ConfigError(
                    f"data.repeat.{name} is {times}", "give at least 1; leave out a source that is not read"
                )
            if names and name not in names:
                raise ConfigError(
                    f"data.repeat names {name!r}, and no source has this name",
                    f"sources: {', '.join(sorted(names))}",
                )
        if bool(self.sources) == bool(self.dataset):
            raise ConfigError(
                "data needs exactly one of sources and dataset", "list data.sources, or set data.dataset"
            )


@config
class TokenizerConfig:
    """The tokenizer: read from `path`, or of this kind: byte-level BPE trained on `train_bytes` of text (a sample spread over the documents), or the 33
    residues and special tokens of ESM-2, for proteins."""

    path: str | None = None
    train_bytes: int = 50_000_000
    kind: Literal["bpe", "residues"] = later("bpe")

    def __post_init__(self) -> None:
        if self.path and self.kind != "bpe":
            raise ConfigError(
                f"tokenizer has path and kind {self.kind}",
                "give one of them: the file has the whole tokenizer",
            )


@config
class LogConfig:
    """Trackers to use besides `log.jsonl`, which is always written. They need the extra `track`."""

    tensorboard: bool = False
    wandb: bool = False


@config
class Recipe:
    """One pretraining run. The vocabulary size is `model.vocab_size`. modalities: of the media in the data; without them the base reads text alone.
    image: the image tower beside the text tower `model`, for objective contrastive."""

    name: str
    data: DataConfig
    model: TextShape
    train: TrainConfig
    tokenizer: TokenizerConfig = TokenizerConfig()
    objective: ObjectiveConfig = NextTokenConfig()
    log: LogConfig = LogConfig()
    modalities: tuple[PatchesConfig, ...] = later(())
    image: ImageShape | None = later(None)

    def __post_init__(self) -> None:
        if self.train.sequence_length > self.model.context:
            raise ConfigError(
                f"train.sequence_length {self.train.sequence_length} is larger than model.context {self.model.context}",
                "lower train.sequence_length or raise model.context",
            )
        names = [getattr(m, "kind", "") for m in self.modalities]
        if twice := [n for n in names if names.count(n) > 1]:
            raise ConfigError(f"modalities names {twice[0]} twice", "give each modality once")
        if names and not objective_of(self.objective).media:
            raise ConfigError(
                f"objective {objective_of(self.objective).name} reads text alone, and modalities has {', '.join(names)}",
                "set objective.kind=mixed, or leave modalities out",
            )
        if objective_of(self.objective).pairs != (self.image is not None):
            name = objective_of(self.objective).name
            raise ConfigError(
                f"objective {name} has no use for an image tower, and image is set"
                if self.image
                else f"objective {name} trains an image tower, and image is not set",
                "set objective.kind=contrastive, or leave image out"
                if self.image
                else "add for example image: {size: 64, patch: 8, width: 192, depth: 4}",
            )
        if self.tokenizer.kind == "residues" and objective_of(self.objective).specials not in ((), (MASK,)):
            raise ConfigError(
                f"objective {objective_of(self.objective).name} needs special tokens that the residues do not have",
                "use objective: masked or next_token, or leave tokenizer.kind out",
            )
        self.base()  # refuses inconsistent sizes before the data is prepared

    def base(self, vocab_size: int | None = None, end: int | None = None) -> BaseConfig:
        """The config of the base, with the attention direction of its objective. vocab_size, end: of the tokenizer, if it exists: its tokens, and the
        last one of a complete text."""
        shape = self.model if vocab_size is None else replace(self.model, vocab_size=vocab_size)
        if self.image is not None:
            assert isinstance(self.objective, ContrastiveConfig)
            shift = self.objective.loss == "sigmoid"
            return pair_base(shape, self.image, width=self.objective.width, shift=shift, end=end)
        entry, patches = objective_of(self.objective), tuple(self.patches.values())
        if entry.base is not None:
            return entry.base(self.objective, shape, patches)
        return native_base(shape, *patches, direction=entry.direction)

    @property
    def patches(self) -> dict[str, PatchConfig]:
        """The modalities by the names of their codecs."""
        return {m.kind: m for m in cast(tuple[PatchConfig, ...], self.modalities)}


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


def read_recipe(recipe: "Recipe | Mapping[str, object] | str | Path", overrides: dict[str, object]) -> Recipe:
    """A recipe from a file, from plain data or as given, with overrides: `{"train.steps": 10}` or `{"train__steps": 10}`."""
    import json

    texts = [f"{k.replace('__', '.')}={json.dumps(v)}" for k, v in overrides.items()]
    if isinstance(recipe, Mapping):
        recipe = configs.from_dict(Recipe, recipe, "the recipe")
    if isinstance(recipe, Recipe):
        return configs.override(recipe, texts)
    return configs.load(Recipe, recipe, texts)
