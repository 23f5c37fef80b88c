"""The demo's sizes and results as plain data for the report."""

from dataclasses import asdict, dataclass, field
from typing import Any

from onebase.evaluation.bootstrap import Score
from onebase.evaluation.gate import System, Verdict


@dataclass(frozen=True)
class Beside:
    """An open base in a row, and the gate's verdict on it, compared with the classical rivals and the base trained here."""

    system: System
    verdict: Verdict

    @property
    def short(self) -> str:
        """Both differences; above zero is in favour of the open base."""
        v = self.verdict
        rivals = ((v.over_classical, v.classical), (v.over_untrained, "the base trained here"))
        return ", ".join(
            f"{d.value:+.3f} ({d.low:+.3f} to {d.high:+.3f}) against {who}" for d, who in rivals if d
        )


@dataclass(frozen=True)
class Row:
    """One line of the table: a task under one adaptation, its rivals, and the gate's verdict on the base trained here."""

    task: str
    setting: str
    metric: str
    base: System
    untrained: System
    classical: tuple[System, ...]
    verdict: Verdict
    beside: tuple[Beside, ...] = ()


@dataclass(frozen=True)
class Generated:
    """A text that the base generated, unedited."""

    what: str
    prompt: str
    text: str
    truth: str = ""


@dataclass
class DemoResult:
    """Everything the report needs. curve: the lines of log.jsonl; heldout: the systems' bits per byte, by source; opened: facts of
    the open bases; expected: seconds, estimated before the run."""

    out: str
    recipe: dict[str, Any]
    sources: dict[str, dict[str, Any]]
    facts: dict[str, Any]
    curve: list[dict[str, Any]]
    ledger: str
    heldout: dict[str, dict[str, Score]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    samples: list[Generated] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    adapters: dict[str, str] = field(default_factory=dict)
    opened: list[dict[str, Any]] = field(default_factory=list)
    quick: bool = False
    expected: float | None = None


def as_json(result: DemoResult) -> dict[str, Any]:
    """The result as plain data, without the values of single examples."""

    def system(s: System) -> dict[str, Any]:
        costs = {"seconds": s.seconds, "bytes": s.size, "base_bytes": s.shared}
        return {"name": s.name, "score": asdict(s.score)} | costs

    rows = [
        {
            "task": r.task,
            "setting": r.setting,
            "metric": r.metric,
            "systems": [
                system(s) for s in (r.base, r.untrained, *(b.system for b in r.beside), *r.classical)
            ],
            "verdict": r.verdict.line,
            "answer": r.verdict.answer,
            "beside": [
                {"name": b.system.name, "verdict": b.verdict.line, "answer": b.verdict.answer}
                for b in r.beside
            ],
        }
        for r in result.rows
    ]
    held = {k: {n: asdict(s) for n, s in v.items()} for k, v in result.heldout.items()}
    return {
        "rows": rows,
        "heldout_bits_per_byte": held,
        "stages_seconds": result.stages,
        "expected_seconds": result.expected,
        "facts": result.facts,
        "open_bases": result.opened,
    }


@dataclass(frozen=True)
class Size:
    """test: examples of a labelled task; draws: of training labels, averaged; heldout_tokens, ngram_tokens: of held-out text, and of the
    n-gram's training text; docstring_*: training and test functions, their maximum length (prompt and text) in tokens, epochs of SFT; written:
    texts generated; opened: maximum labels per class for open bases."""

    test: int = 1200
    draws: int = 3
    heldout_tokens: int = 60_000
    ngram_tokens: int = 1_200_000
    docstring_train: int = 2500
    docstring_test: int = 300
    docstring_tokens: int = 128
    docstring_epochs: int = 2
    written: int = 100
    lora_epochs: int = 4
    opened: int = 50

    @staticmethod
    def quick() -> "Size":
        """Just enough to run every part."""
        return Size(60, 1, 5_000, 50_000, 60, 20, 128, 1, 8, 1, 10)
