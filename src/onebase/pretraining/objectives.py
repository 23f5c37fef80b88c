"""The table of pretraining objectives, each with its config. Other packages add to the table (docs/plugins.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from onebase.config import OneOf, config
from onebase.config_fields import later
from onebase.errors import ConfigError
from onebase.modality.image.augment import Augment
from onebase.modality.text.sample import MASK
from onebase.objective.flow_config import FlowConfig
from onebase.pretraining import picture_objectives as pictures
from onebase.pretraining.heldout import Heldout, bits_per_byte
from onebase.pretraining.setting import Setting as Setting

if TYPE_CHECKING:  # a recipe is read, and its errors are reported, without torch
    from onebase.base.config import BaseConfig, TextShape
    from onebase.base.folder import LoadedBase
    from onebase.base.model import BaseModel
    from onebase.evaluation.bootstrap import Score
    from onebase.modality.patches.config import PatchConfig
    from onebase.modality.text.sample import Tokens
    from onebase.objective.base import Objective
    from onebase.objective.infill import Infill


def as_read(objective: Objective, document: Tokens, number: int) -> Tokens:
    """The document unchanged: the loss covers all tokens that it may cover."""
    return document


@dataclass(frozen=True)
class PretrainingObjective:
    """A pretraining objective for text.

    config: a frozen config whose field `kind` has the objective's name as its default. make: builds the objective from a config. specials: further
    special tokens of a tokenizer that is trained for it. direction: attention of the trunk. shown: a document with its loss mask, for the token
    ledger; `number` seeds random choices. measure: scores held-out documents by source; measured: name of that score. version: increased when the
    same config trains differently, so that no old run is resumed; empty: never changed. media: it reads rows with images or audio. pairs: its rows
    are a caption each, with a picture beside it, and its base has an image tower. more: further scores of held-out documents, by name. base: the config of
    its base, from its own config, the recipe's `model` and modalities (None: a base of text that reads the modalities as well). begin: puts on a new
    base what is learnt beside it; end: what the finished base keeps of that.
    """

    config: type
    make: Callable[[Any, Setting], Objective]
    specials: tuple[str, ...] = ()
    direction: Literal["causal", "both"] = "causal"
    shown: Callable[[Any, Tokens, int], Tokens] = as_read
    measure: Callable[[LoadedBase, Heldout], dict[str, Score]] = bits_per_byte
    measured: str = "bits_per_byte"
    version: str = ""
    media: bool = False
    pairs: bool = False
    more: Mapping[str, Callable[[LoadedBase, Heldout], dict[str, Score]]] = field(default_factory=dict)
    base: Callable[[Any, TextShape, Sequence[PatchConfig]], BaseConfig] | None = None
    begin: Callable[[Any, BaseModel], None] = lambda cfg, model: None
    end: Callable[[Any, LoadedBase], None] = lambda cfg, base: None

    @property
    def name(self) -> str:
        """Its name in recipes. Raises ConfigError if its config has no field `kind`."""
        kind = next((f.default for f in fields(self.config) if f.name == "kind"), None)
        if not isinstance(kind, str):
            raise ConfigError(
                f"{self.config.__name__} has no field `kind` with a name as its default",
                'write for example kind: Literal["masked"] = "masked"',
            )
        return kind


@config
class NextTokenConfig:
    """Predict each token from those before it."""

    kind: Literal["next_token"] = "next_token"


@config
class InfillConfig:
    """Reorder a share `rate` of the pieces of `sources` (empty: all) for fill-in-the-middle."""

    kind: Literal["infill"] = "infill"
    rate: float = 0.5
    sources: tuple[str, ...] = ()


@config
class MixedConfig:
    """Next tokens of text beside media, and media by flow matching (`flow`). beside: weight of the text of documents with media as a loss of its own,
    averaged over its own tokens (null: it is averaged together with all text)."""

    kind: Literal["mixed"] = "mixed"
    flow: FlowConfig = FlowConfig()
    beside: float | None = later(None)

    def __post_init__(self) -> None:
        if self.beside is not None and self.beside <= 0:
            raise ConfigError(
                f"objective.beside is {self.beside}",
                "give a weight above 0, such as 1, or null for none of its own",
            )


@config
class MaskedConfig:
    """Hide a share `rate` of the tokens and predict them from all others. masked, random: shares of these that are replaced by the mask token and by a
    random token; the others stay. span: mean length of a hidden stretch; 1: each token by itself."""

    kind: Literal["masked"] = "masked"
    rate: float = 0.15
    masked: float = 0.8
    random: float = 0.1
    span: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ConfigError(
                f"objective.rate is {self.rate}", "give a share between 0 and 1, for example 0.15"
            )
        if min(self.masked, self.random) < 0 or self.masked + self.random > 1:
            raise ConfigError(
                f"objective.masked is {self.masked} and objective.random {self.random}",
                "give shares that are at least 0 and at most 1 together, for example 0.8 and 0.1",
            )
        if not 1 <= self.span <= 10:
            raise ConfigError(
                f"objective.span is {self.span}", "give a mean length from 1 to 10, for example 3"
            )


@config
class ContrastiveConfig:
    """Pictures find their captions, and captions their pictures, among those of a step. loss: softmax over the step (CLIP) or a sigmoid for each pair
    (SigLIP). width: features of the common space. augment: how pictures are changed each time they are read."""

    kind: Literal["contrastive"] = "contrastive"
    loss: Literal["softmax", "sigmoid"] = "softmax"
    width: int = 256
    augment: Augment = Augment()


def _masked(cfg: MaskedConfig, run: Setting) -> Objective:
    from onebase.objective.masked import Masked, mask_id, ordinary

    mask, words = mask_id(run.tokenizer), ordinary(run.tokenizer)
    return Masked(run.length, mask, words, cfg.rate, cfg.masked, cfg.random, cfg.span, run.seed)


def _masked_loss(base: LoadedBase, held: Heldout) -> dict[str, Score]:
    from onebase.pretraining.masked_scores import nats_per_masked_token

    return nats_per_masked_token(base, held)


def _mixed(cfg: MixedConfig, run: Setting) -> Objective:
    from onebase.objective.mixed import Mixed

    assert run.base is not None, "a run passes the config of its base"
    return replace(Mixed.of(run.base, run.length, cfg.flow, run.seed), beside=cfg.beside)


def _contrastive(cfg: ContrastiveConfig, run: Setting) -> Objective:
    from onebase.objective.pairs import CaptionPairs

    assert run.base is not None and run.media is not None, (
        "a run passes the config of its base, and its media"
    )
    end = run.tokenizer.framed([])[-1]
    return CaptionPairs(run.length, end, run.base.image, run.media, cfg.augment, run.seed, run.micro)


def _recall(most: int) -> Callable[[LoadedBase, Heldout], dict[str, Score]]:
    def measured(base: LoadedBase, held: Heldout) -> dict[str, Score]:
        from onebase.pretraining.pair_scores import recall

        return recall(base, held, most)

    return measured


def _media_bits_per_byte(base: LoadedBase, held: Heldout) -> dict[str, Score]:
    from onebase.pretraining.media_scores import text_scores

    return text_scores(base, held)


def _flow_loss(base: LoadedBase, held: Heldout) -> dict[str, Score]:
    from onebase.pretraining.media_scores import flow_scores

    return flow_scores(base, held)


def _next_token(cfg: NextTokenConfig, run: Setting) -> Objective:
    from onebase.objective.next_token import NextToken

    return NextToken(run.length)


def _infill(cfg: InfillConfig, run: Setting) -> Infill:
    if unknown := sorted(set(cfg.sources) - set(run.sources)):
        raise ConfigError(
            f"objective.sources names {unknown[0]!r}, which the data does not have",
            f"its sources: {', '.join(sorted(run.sources))}",
        )
    from onebase.objective.infill import Infill, InfillMarks

    marks = InfillMarks(*(run.tokenizer.id_of(f"<|fim_{k}|>") for k in ("prefix", "middle", "suffix")))
    return Infill(run.length, marks, cfg.rate, cfg.sources, run.seed)


OBJECTIVES: dict[str, PretrainingObjective] = {
    "next_token": PretrainingObjective(NextTokenConfig, _next_token),
    # version: cuts are drawn differently since version 2
    "infill": PretrainingObjective(
        InfillConfig, _infill, shown=lambda o, document, n: o.turned([document], n)[0], version="2"
    ),
    "masked": PretrainingObjective(
        MaskedConfig,
        _masked,
        specials=(MASK,),
        direction="both",
        shown=lambda o, document, n: o.shown(document, n),
        measure=_masked_loss,
        measured="nats_per_masked_token",
    ),
    "mixed": PretrainingObjective(
        MixedConfig,
        _mixed,
        shown=lambda o, document, n: o.direction(document, n),
        measure=_media_bits_per_byte,
        more={"flow_loss": _flow_loss},
        media=True,
    ),
    "contrastive": PretrainingObjective(
        ContrastiveConfig,
        _contrastive,
        measure=_recall(10),
        measured="recall_at_10",
        more={"recall_at_1": _recall(1)},
        pairs=True,
    ),
    "masked_patches": PretrainingObjective(
        pictures.MaskedPatchesConfig,
        pictures.masked_patches,
        direction="both",
        measure=pictures.patch_scores,
        measured="masked_patch_error",
        media=True,
        base=pictures.masked_patches_base,
        begin=pictures.begin_masked_patches,
        end=pictures.end_masked_patches,
    ),
    "segment": PretrainingObjective(
        pictures.SegmentConfig,
        pictures.segment,
        measure=pictures.mask_scores,
        measured="iou_one_click",
        media=True,
        base=pictures.segment_base,
        begin=pictures.begin_segment,
        end=pictures.end_segment,
    ),
}

ObjectiveConfig = Annotated[
    object, OneOf(lambda: {name: o.config for name, o in OBJECTIVES.items()}, "next_token")
]
"""The config of any objective."""


def register(objective: PretrainingObjective) -> None:
    """Add an objective of another package. Raises ConfigError if another one has its name."""
    name = objective.name
    if OBJECTIVES.get(name, objective) is not objective:
        raise ConfigError(f"there are two objectives called {name!r}", "give one of them another name")
    OBJECTIVES[name] = objective


def objective_of(cfg: object) -> PretrainingObjective:
    """The objective of a config."""
    return OBJECTIVES[str(getattr(cfg, "kind", ""))]
