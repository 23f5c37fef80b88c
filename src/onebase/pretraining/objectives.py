"""What a base may be pretrained by: one value an objective, with a config of its own. Other packages add to the table (docs/plugins.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from onebase.config import OneOf, config
from onebase.errors import ConfigError

if TYPE_CHECKING:  # a recipe is read, and what is wrong in it said, without torch
    from onebase.base.folder import LoadedBase
    from onebase.codec.text.sample import Tokens
    from onebase.codec.text.tokenizer import Tokenizer
    from onebase.data.sources import Document
    from onebase.evaluation.bootstrap import Score
    from onebase.evaluation.likelihood import DocumentIds
    from onebase.objective.base import Objective
    from onebase.objective.infill import Infill


@dataclass(frozen=True)
class Setting:
    """What a run gives its objective: the tokenizer, tokens of a row, the seed, and the names of the data's sources."""

    tokenizer: Tokenizer
    length: int
    seed: int = 0
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Heldout:
    """Held-out documents by source, the tokens of a row, and how many tokens are scored in all. known: documents that were tokenised before, by
    source: the scores of one run share them."""

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

    found = []
    for source, documents in held.documents.items():
        if documents:
            found += nats_of(base, held.read(base, source), length=held.length)
    return by_source(found)


def as_read(objective: Objective, document: Tokens, number: int) -> Tokens:
    """A document of which all is learnt that may be."""
    return document


@dataclass(frozen=True)
class PretrainingObjective:
    """A way to pretrain a base of text.

    config: a frozen config whose field `kind` has the objective's name as its default. make: the objective, of such a config. specials: tokens
    that a tokenizer trained for it has beside our own. direction: which way the trunk looks. shown: what is learnt of a document, for the token
    ledger; `number` draws what is random. measure: what held-out documents are scored by, by source, and measured: its name. version: changes
    when the same config learns otherwise, so that no run goes on as another; none: it never did.
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
        """What a recipe calls it. Raises ConfigError where its config has no such field."""
        found = next((f.default for f in fields(self.config) if f.name == "kind"), None)
        if not isinstance(found, str):
            raise ConfigError(
                f"{self.config.__name__} has no field `kind` with a name as its default",
                'write for example kind: Literal["masked"] = "masked"',
            )
        return found


@config
class NextTokenConfig:
    """Each token given those before it."""

    kind: Literal["next_token"] = "next_token"


@config
class InfillConfig:
    """A share `rate` of the pieces of `sources` (all when empty) is turned to fill-in-the-middle form."""

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
    # version: cuts are drawn otherwise than at first
    "infill": PretrainingObjective(
        InfillConfig, _infill, shown=lambda o, document, n: o.turned([document], n)[0], version="2"
    ),
}

ObjectiveConfig = Annotated[
    object, OneOf(lambda: {name: o.config for name, o in OBJECTIVES.items()}, "next_token")
]
"""The config of any objective."""


def register(objective: PretrainingObjective) -> None:
    """Make an objective known that comes from elsewhere. Raises ConfigError where another has its name."""
    name = objective.name
    if OBJECTIVES.get(name, objective) is not objective:
        raise ConfigError(f"there are two objectives called {name!r}", "give one of them another name")
    OBJECTIVES[name] = objective


def objective_of(cfg: object) -> PretrainingObjective:
    """The objective whose config this is."""
    return OBJECTIVES[str(getattr(cfg, "kind", ""))]
