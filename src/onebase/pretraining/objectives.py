"""The table of pretraining objectives, each with its config. Other packages add to the table (docs/plugins.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from onebase.config import OneOf, config
from onebase.errors import ConfigError

if TYPE_CHECKING:  # a recipe is read, and its errors are reported, without torch
    from onebase.base.folder import LoadedBase
    from onebase.data.sources import Document
    from onebase.evaluation.bootstrap import Score
    from onebase.evaluation.likelihood import DocumentIds
    from onebase.modality.text.sample import Tokens
    from onebase.modality.text.tokenizer import Tokenizer
    from onebase.objective.base import Objective
    from onebase.objective.infill import Infill


@dataclass(frozen=True)
class Setting:
    """What a run passes to its objective: the tokenizer, tokens per row, the seed, and the names of the data's sources."""

    tokenizer: Tokenizer
    length: int
    seed: int = 0
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Heldout:
    """Held-out documents by source, tokens per row, and the total of tokens to score. known: a cache of tokenised documents by source, shared by all
    scores of a run."""

    documents: Mapping[str, Sequence[Document]]
    length: int
    tokens: int
    known: dict[str, list[DocumentIds]] = field(default_factory=dict)

    def read(self, base: LoadedBase, source: str) -> list[DocumentIds]:
        """The documents of a source as tokens, up to its even share of `tokens`; each is tokenised once."""
        from onebase.evaluation.likelihood import document_ids

        known, total = self.known.setdefault(source, []), 0
        for n, document in enumerate(self.documents[source]):
            if n == len(known):
                known += document_ids(base, [document])
            total += len(known[n].ids)
            if total >= self.tokens // len(self.documents):
                return known[: n + 1]
        return known[:]


def bits_per_byte(base: LoadedBase, held: Heldout) -> dict[str, Score]:
    """Bits per byte of each source, by next-token prediction; the tokens are shared evenly by the sources."""
    from onebase.evaluation.likelihood import by_source, nats_of

    nats = []
    for source, documents in held.documents.items():
        if documents:
            nats += nats_of(base, held.read(base, source), length=held.length)
    return by_source(nats)


def as_read(objective: Objective, document: Tokens, number: int) -> Tokens:
    """The document unchanged: the loss covers all tokens that it may cover."""
    return document


@dataclass(frozen=True)
class PretrainingObjective:
    """A pretraining objective for text.

    config: a frozen config whose field `kind` has the objective's name as its default. make: builds the objective from a config. specials: further
    special tokens of a tokenizer that is trained for it. direction: attention of the trunk. shown: a document with its loss mask, for the token
    ledger; `number` seeds random choices. measure: scores held-out documents by source; measured: name of that score. version: increased when the
    same config trains differently, so that no old run is resumed; empty: never changed.
    """

    config: type
    make: Callable[[Any, Setting], Objective]
    specials: tuple[str, ...] = ()
    direction: Literal["causal", "both"] = "causal"
    shown: Callable[[Any, Tokens, int], Tokens] = as_read
    measure: Callable[[LoadedBase, Heldout], dict[str, Score]] = bits_per_byte
    measured: str = "bits_per_byte"
    version: str = ""

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
