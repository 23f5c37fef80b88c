"""Reports on a run: how much of its data it read, its scores on held-out text compared with an n-gram model, and its record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onebase.artifact.record import Origin, Record, machine_facts, version_facts
from onebase.base.config import BaseConfig, base_flops, base_parameters
from onebase.config_plain import to_dict
from onebase.data import Dataset, RowPlan, TokenSet
from onebase.data.sources import UNKNOWN
from onebase.draws import Draws
from onebase.evaluation.bootstrap import Score
from onebase.evaluation.likelihood import DocumentIds
from onebase.evaluation.metrics import bits_per_byte
from onebase.evaluation.ngram import NGram
from onebase.pretraining.recipe import Recipe, licences_from, origins
from onebase.readable import figure
from onebase.train.callbacks import NoCallback, StepInfo
from onebase.train.loop import Result

Tell = Callable[[str], None]
NGRAM_TOKENS = 1_000_000
"""Training tokens that the 5-gram counts: a few seconds."""


def epochs_of(plan: RowPlan, steps: int) -> float:
    """Epochs in this many steps."""
    return steps * plan.batch_size / plan.rows_per_epoch


def share(epochs: float) -> str:
    """ "3% of an epoch", "2.3 epochs"."""
    if epochs >= 0.995:
        return f"{epochs:.1f} epochs"
    return f"{100 * epochs:.{1 if epochs < 0.01 else 0}f}% of an epoch"


def describe(cfg: BaseConfig, recipe: Recipe, plan: RowPlan) -> str:
    """One paragraph: parameters, data and budget of the run."""
    train = recipe.train
    if recipe.image is not None:
        data = f"{plan.rows_per_epoch:,} pictures with captions per epoch, of {plan.tokens_per_epoch / plan.rows_per_epoch:.0f} tokens"
        rows = f"{train.batch_size} per step"
    else:
        data = f"{plan.tokens_per_epoch / 1e6:.2f}M tokens per epoch, {plan.waste():.1%} padding"
        rows = f"{train.batch_size} x {train.sequence_length} tokens per step"
    steps = train.planned_steps
    budget = (
        f"{figure(train.minutes or 0)} minutes"
        if steps is None
        else f"{steps:,} steps, {share(epochs_of(plan, steps))}"
    )
    return (
        f"{recipe.name}: {base_parameters(cfg) / 1e6:.2f}M parameters, {base_flops(cfg, train.sequence_length) / 1e6:.1f} MFLOPs per token; "
        f"{data}; {rows}, {budget}"
    )


class TellShare(NoCallback):
    """Logs how much of the data a budget in minutes will read, once its first steps are timed."""

    def __init__(self, plan: RowPlan, log: Tell) -> None:
        self.plan, self.log = plan, log

    def start(self, step: int, total: int | None) -> None:
        self.known = total is not None

    def step(self, info: StepInfo) -> None:
        if not self.known and info.total is not None:
            self.known = True
            self.log(
                f"the first steps are timed: {info.total:,} steps, {share(epochs_of(self.plan, info.total))}"
            )


def fit_ngram(tokens: TokenSet, vocab: int, most: int = NGRAM_TOKENS) -> tuple[NGram, int]:
    """Fit a Kneser-Ney 5-gram over the base's tokens, on at most `most` tokens of randomly drawn documents. Returns it and the number of tokens. BOS
    is not predicted, as for the base."""
    texts, left, front = list[NDArray[np.int64]](), most, 0 if tokens.bos is None else 1
    for i in Draws(0, "n-gram").permutation(len(tokens)).tolist():
        texts.append(tokens.tokens(i).ids[front : front + left].astype(np.int64))
        left -= len(texts[-1])
        if not left:
            break
    return NGram(vocab, 5).fit(texts), most - left


@dataclass(frozen=True)
class Scores:
    """Scores of held-out documents by source. measured: name of the score. base: those of the base. ngram: those of a 5-gram on the same documents
    (only for bits per byte). counted: training tokens of the 5-gram."""

    measured: str
    base: Mapping[str, Score]
    ngram: Mapping[str, Score] = field(default_factory=dict)
    counted: int = 0

    def beside_ngram(
        self, tokens: TokenSet, vocab: int, documents: Mapping[str, Sequence[DocumentIds]]
    ) -> "Scores":
        """Add the scores of a 5-gram of the training text, if the score is bits per byte."""
        if self.measured != "bits_per_byte" or not self.base:
            return self
        (ngram, counted), found = fit_ngram(tokens, vocab), {}
        front = 0 if tokens.bos is None else 1
        for source in [s for s in self.base if s in documents]:  # those of text alone
            mine = documents[source]
            nats = ngram.totals([d.ids[front:].astype(np.int64) for d in mine])
            found[source] = bits_per_byte(nats, [d.bytes for d in mine])
        return Scores(self.measured, self.base, found, counted)

    def lines(self) -> list[str]:
        """A line for each source, then a warning for a base no better than the 5-gram."""
        lines = []
        for source, s in self.base.items():
            ngram = self.ngram.get(source)
            beside = f"; a 5-gram of the same text has {ngram.value:.3f}" if ngram else ""
            lines.append(
                f"held-out {self.measured.replace('_', ' ')}, {source}: {s.value:.3f} ({s.low:.3f} to {s.high:.3f}){beside}"
            )
        if worse := [name for name, s in self.ngram.items() if self.base[name].value >= s.value]:
            lines.append(
                f"warning: on {', '.join(worse)} the base is no better than a 5-gram that counted {self.counted:,} tokens of the same text: "
                "it is undertrained. Give it more steps (--extend), or a larger model"
            )
        return lines

    def summary(self) -> str:
        """ "held-out bits per byte: notes 3.160 (a 5-gram: 1.760)"; nothing without scores."""
        each = ", ".join(
            f"{source} {s.value:.3f}"
            + (f" (a 5-gram: {self.ngram[source].value:.3f})" if source in self.ngram else "")
            for source, s in self.base.items()
        )
        return f"held-out {self.measured.replace('_', ' ')}: {each}" if each else ""

    def note(self, r: Record) -> None:
        """Add all scores to a record, each with its interval."""
        counting = f"measured on held-out documents, by a 5-gram of {self.counted:,} training tokens"
        for name, found, origin in (
            (f"heldout_{self.measured}", self.base, "measured on held-out documents"),
            (f"ngram_{self.measured}", self.ngram, counting),
        ):
            for source, s in found.items():
                value = {"value": s.value, "low": s.low, "high": s.high, "n": s.n}
                r.add(f"scores.{name}.{source}", value, origin)


def note_run(
    r: Record,
    cfg: BaseConfig,
    recipe: Recipe,
    dataset: Dataset,
    plan: RowPlan,
    result: Result,
    counted: float,
    ranks: int,
) -> None:
    """Add recipe, data, compute and versions to the record of a base. counted: FLOPs per token by torch's count."""
    state = result.state
    r.kind = "base"
    r.parents = []
    from_ = origins(recipe)
    r.add("name", recipe.name, from_(("name",)))
    r.add_tree("config.recipe", to_dict(recipe), from_)
    r.add("config.parameters", base_parameters(cfg), "counted from the config")
    r.add_parent("dataset", dataset.fingerprint, dataset.dir.name)
    r.add("data.fingerprint", dataset.fingerprint, "hashed")
    r.add("data.order", plan.digest, "hashed")
    counts = {name: {k: v for k, v in s.items() if k != "licence"} for name, s in dataset.stats.items()}
    licences = {name: None if s["licence"] == UNKNOWN else s["licence"] for name, s in dataset.stats.items()}
    r.add("data.sources", counts, f"{Origin.COUNTED} while preparing")
    from_source = f"{Origin.SOURCE}: the record of the data set"
    r.add("data.licences", licences, from_source if recipe.data.dataset else licences_from(recipe))
    r.add("tokens.by_source", dict(state.sources), "counted by the loop")
    r.add("tokens.read", state.tokens, "counted by the loop")
    r.add("tokens.supervised", state.supervised, "counted by the loop")
    r.add("train.steps", state.step, "counted by the loop")
    r.add(
        "train.epochs",
        round(epochs_of(plan, state.step), 4),
        "computed: rows of all steps over rows of the first epoch",
    )
    r.add("train.skipped_steps", state.bad_steps, "counted by the loop")
    r.add(
        "train.formats", dict(state.formats), "measured: what the loop computed in, by the first step of each"
    )
    slots = state.step * recipe.train.batch_size * recipe.train.sequence_length
    r.add(
        "flops.formula",
        base_flops(cfg, recipe.train.sequence_length) * slots,
        "computed: formula of the config x token slots",
    )
    r.add("flops.counted", counted * slots, "counted by torch: operations of one row x token slots")
    r.add("seconds.training", round(state.seconds, 3), "measured")
    r.add(
        "train.final_loss",
        result.losses[-1] if result.losses else None,
        "measured, nats per token of the last batch",
    )
    r.add("train.ranks", ranks, "measured")
    r.add("machine", machine_facts(), Origin.SYSTEM)
    r.add("versions", version_facts(), Origin.PACKAGES)
