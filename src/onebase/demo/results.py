"""What the demo found, as plain facts that the report shows."""

from dataclasses import asdict, dataclass, field
from typing import Any

from onebase.evaluation.bootstrap import Score
from onebase.evaluation.gate import System, Verdict


@dataclass(frozen=True)
class Row:
    """One line of the table: a task under one adaptation, its rivals, and the gate's verdict."""

    task: str
    setting: str
    metric: str
    base: System
    untrained: System
    classical: tuple[System, ...]
    verdict: Verdict


@dataclass(frozen=True)
class Sample:
    """Something the base wrote, shown as it is."""

    what: str
    prompt: str
    text: str
    truth: str = ""


@dataclass
class DemoResult:
    """Everything the report needs. `curve` are the lines of log.jsonl; `heldout` maps a source to systems' bits per byte."""

    out: str
    minutes: float
    recipe: dict[str, Any]
    sources: dict[str, dict[str, Any]]
    facts: dict[str, Any]
    curve: list[dict[str, Any]]
    ledger: str
    heldout: dict[str, dict[str, Score]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    adapters: dict[str, str] = field(default_factory=dict)


def as_json(result: DemoResult) -> dict[str, Any]:
    """The result as plain data: everything but the values of single examples."""

    def system(s: System) -> dict[str, Any]:
        costs = {"seconds": s.seconds, "bytes": s.size, "base_bytes": s.shared}
        return {"name": s.name, "score": asdict(s.score)} | costs

    rows = [
        {
            "task": r.task,
            "setting": r.setting,
            "metric": r.metric,
            "systems": [system(s) for s in (r.base, r.untrained, *r.classical)],
            "verdict": r.verdict.line,
            "needs_base": r.verdict.needs_base,
        }
        for r in result.rows
    ]
    held = {k: {n: asdict(s) for n, s in v.items()} for k, v in result.heldout.items()}
    return {
        "rows": rows,
        "heldout_bits_per_byte": held,
        "stages_seconds": result.stages,
        "facts": result.facts,
    }
