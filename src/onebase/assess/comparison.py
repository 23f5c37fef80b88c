"""The result of a comparison: a table, a sentence, and both as an HTML page."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onebase.artifact.files import write_atomic
from onebase.assess.candidates import CLASSICAL, Untried
from onebase.evaluation.gate import System
from onebase.evaluation.paired import Answer, RowSums
from onebase.govern.charts import Dot, Panel, interval_chart
from onebase.govern.page import refuse_place
from onebase.govern.pages import environment
from onebase.readable import duration, figure, size
from onebase.tasks.results import Adapter

TEMPLATE = "compare.html.jinja"


@dataclass(frozen=True)
class Tried:
    """A candidate that was tried. system: its score on the test rows and its costs. sums: of its score on the rows of each fold that was scored.
    seconds: training on all training rows. lower: whether lower is better."""

    name: str
    method: str
    system: System = field(repr=False)
    sums: tuple[RowSums, ...] = field(repr=False, compare=False)
    seconds: float
    lower: bool = False

    @property
    def classical(self) -> bool:
        return self.method == CLASSICAL

    @property
    def metric(self) -> str:
        return self.system.score.name

    @property
    def folds(self) -> int:
        return len(self.sums)

    @property
    def held_out(self) -> float:
        """The score on the rows of all folds together."""
        return self.held_out_of(self.folds)

    def held_out_of(self, folds: int) -> float:
        """The score on the rows of the first folds."""
        return RowSums.joined(list(self.sums[:folds])).value

    @property
    def ms_per_item(self) -> float:
        """Milliseconds per test row, measured in one call for all of them."""
        return 1000 * self.system.predicting.seconds / self.system.score.n

    @property
    def score_text(self) -> str:
        s = self.system.score
        return f"{s.value:.3f} ({s.low:.3f} to {s.high:.3f})"

    @property
    def bytes_text(self) -> str:
        base = f" + base {size(self.system.shared)}" if self.system.shared else ""
        return f"{size(self.system.size)}{base}"


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison. chosen: the best candidate by cross-validation on `rows` training rows. answer, line: whether the best adapter is
    better than the best classical system on the test rows. adapter: the best one trained on a base."""

    task: str
    rows: int
    tried: tuple[Tried, ...]
    untried: tuple[Untried, ...]
    chosen: str
    answer: Answer
    line: str
    seconds: float
    adapter: Adapter | None = field(repr=False, default=None)

    @property
    def metric(self) -> str:
        return self.tried[0].metric

    @property
    def sentence(self) -> str:
        """The line without the answer at its beginning."""
        rest = re.sub(r"^(Yes: |No: |Cannot tell:? )", "", self.line)
        return rest[:1].upper() + rest[1:]

    @property
    def better(self) -> str:
        return "lower" if self.tried[0].lower else "higher"

    @property
    def test_rows(self) -> int:
        return self.tried[0].system.score.n

    @property
    def table(self) -> str:
        """The candidates as a text table; * marks the chosen one."""
        rows = [
            (
                "",
                "candidate",
                f"{self.metric} (95%)",
                "held out (folds)",
                "training",
                "bytes shipped",
                "ms an item",
            )
        ]
        rows += [
            (
                "*" if t.name == self.chosen else "",
                t.name,
                t.score_text,
                f"{t.held_out:.3f} ({t.folds})",
                duration(t.seconds),
                t.bytes_text,
                figure(t.ms_per_item, 3),
            )
            for t in self.tried
        ]
        wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                x.ljust(w) if i < 2 else x.rjust(w) for i, (x, w) in enumerate(zip(r, wide, strict=True))
            )
            for r in rows
        ]
        return "\n".join([*lines, *(f"not tried: {u.name}: {u.why}" for u in self.untried)])

    @property
    def facts(self) -> dict[str, Any]:
        """The result as JSON data."""
        return {
            "task": self.task,
            "score": self.metric,
            "better": self.better,
            "train_rows": self.rows,
            "test_rows": self.test_rows,
            "chosen": self.chosen,
            "answer": self.answer,
            "line": self.line,
            "seconds": round(self.seconds, 1),
            "candidates": [
                {
                    "name": t.name,
                    "method": t.method,
                    "test": {k: getattr(t.system.score, k) for k in ("value", "low", "high", "n")},
                    "held_out": t.held_out,
                    "folds": t.folds,
                    "training_seconds": t.seconds,
                    "bytes": t.system.size,
                    "base_bytes": t.system.shared,
                    "ms_per_item": t.ms_per_item,
                }
                for t in self.tried
            ],
            "not_tried": [vars(u) for u in self.untried],
        }

    def write_page(self, path: str | Path) -> None:
        """Write table, chart and sentence as one self-contained HTML file. Raises UserError if `path` cannot be written."""
        refuse_place(path := Path(path))
        write_atomic(path, self.page().encode("utf-8", "replace"))

    def page(self) -> str:
        """The HTML page as text."""
        order = sorted(self.tried, key=lambda t: t.system.score.value, reverse=not self.tried[0].lower)
        dots = tuple(Dot(t.name, "classical" if t.classical else "base", t.system.score) for t in order)
        panel = Panel(self.metric, self.better, 3, ((f"on {self.test_rows:,} test rows", dots),))
        templates = environment(Path(__file__).parent)
        templates.filters.update(figure=figure, duration=duration, bytes=size)
        return templates.get_template(TEMPLATE).render(
            c=self, order=order, svg=interval_chart([panel], "Scores with 95% intervals")
        )
