"""The demo's report: one self-contained HTML page, without scripts or network access.

All text in the page goes through Jinja's autoescape; a value that was never measured is printed as "unknown".
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from onebase.artifact.files import write_atomic
from onebase.demo.results import DemoResult, Row
from onebase.evaluation.bootstrap import Score
from onebase.evaluation.gate import System, Verdict
from onebase.evaluation.metrics import LOWER_IS_BETTER
from onebase.govern.charts import Dot, Panel, finite, interval_chart
from onebase.govern.pages import environment, learning, visible
from onebase.govern.show import UNKNOWN

TEMPLATE = "report.html.jinja"
_QUESTIONS = {
    "question": "Is this message a question?",
    "docstring": "Write the first sentence of a docstring",
    "topic": "Which topic is this exchange filed under?",
}
_METRICS = {
    "accuracy": "accuracy",
    "nats_per_token": "nats per token",
    "rouge_l": "ROUGE-L (0 to 100)",
    "bits_per_byte": "bits per byte",
}
_DIGITS = {"rouge_l": 1}
_PRINT = 'printf \'def add(a, b):\\n    return a + b\\n"""\''  # a function as the docstring task shows it
_HELDOUT = (("base", "base"), ("untrained base", "untrained"), ("5-gram", "classical"))


def write_report(result: DemoResult, path: Path) -> None:
    """Write the demo's results as one self-contained HTML file. Raises ArtifactError on disk errors."""
    write_atomic(path, render(result).encode("utf-8", "replace"))


def render(result: DemoResult) -> str:
    """The page as text."""
    templates = environment(Path(__file__).parent)
    templates.filters.update(score=score, marked=marked)
    facts = result.facts
    train = _dict(result.recipe.get("train"))
    return templates.get_template(TEMPLATE).render(
        r=result,
        facts=facts,
        machine=_dict(facts.get("machine")),
        versions=_dict(facts.get("versions")),
        model=_dict(result.recipe.get("model")),
        train=train,
        quick=result.quick,
        parameters=millions(facts.get("config.parameters")),
        tokens=millions(facts.get("tokens.read")),
        answers=[_answer(row) for row in result.rows],
        total=_total(result.sources),
        **learning(result.curve),
        heldout=[(source, _heldout(scores)) for source, scores in result.heldout.items()],
        heldout_names=[name for name, _ in _HELDOUT],
        heldout_svg=interval_chart(_heldout_panel(result), "Held-out bits per byte by source"),
        table=[_table(row) for row in result.rows],
        table_svg=interval_chart(_panels(result), "Scores of every system with 95% intervals"),
        written=[s for s in result.samples if s.truth],
        free=[s for s in result.samples if not s.truth],
        stages=_stages(result),
        earlier=_earlier(result),
        by_source=_shares(facts.get("tokens.by_source")),
        commands=_commands(result),
    )


def millions(value: Any) -> str:
    """ "3.07 million", or a plain count below a hundred thousand."""
    if not finite(value):
        return UNKNOWN
    return f"{value / 1e6:,.2f} million" if value >= 1e5 else f"{value:,.0f}"


def score(value: Score | None, metric: str = "") -> str:
    """ "0.842 (0.821–0.862)". A single example has no interval: resampling always draws the same one."""
    if value is None or not finite(value.value):
        return UNKNOWN
    d = _DIGITS.get(metric or value.name, 3)
    if value.n < 2:
        return f"{value.value:.{d}f} (no interval)"
    return f"{value.value:.{d}f} ({value.low:.{d}f}–{value.high:.{d}f})"


def marked(ledger: str) -> Markup:
    """The ledger as escaped text, with the parts in « » highlighted; the signs stay."""
    out = []
    for line in ledger.split("\n"):
        for part in re.split("(«.*?»(?!»))", line):
            form = '<mark class="learnt">{}</mark>' if part[:1] == "«" and part[-1:] == "»" else "{}"
            out.append(Markup(form).format(visible(part)))
        out.append(Markup("\n"))
    return Markup("").join(escape(x) for x in out[:-1])


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _question(row: Row) -> str:
    return _QUESTIONS.get(row.task, row.task)


def _better(metric: str) -> str:
    return "lower" if metric in LOWER_IS_BETTER else "higher"


def _answer(row: Row) -> dict[str, Any]:
    """The verdicts, on our base and on open ones, as markers and sentences without their first word."""
    return {
        "says": row.verdict.answer,
        "task": _question(row),
        "setting": row.setting,
        "line": _line(row.verdict),
        "beside": [
            {
                "name": b.system.name,
                "says": b.verdict.answer,
                "line": _line(b.verdict),
                "short": b.short,
            }
            for b in row.beside
        ],
    }


def _line(verdict: Verdict) -> str:
    line = re.sub(r"^(Yes: |No: |Cannot tell )", "", verdict.line)
    return line[:1].upper() + line[1:]


def _total(sources: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    keys = ("documents", "bytes", "holdout_documents", "holdout_bytes", "duplicates_removed")
    return {k: sum(s[k] for s in sources.values() if finite(s.get(k))) for k in keys}


def _heldout(scores: Mapping[str, Score]) -> list[dict[str, Any]]:
    values = {name: s.value for name, s in scores.items() if finite(s.value)}
    best = min(values, key=lambda name: values[name]) if values else None
    return [
        {"name": name, "score": scores.get(name), "best": name == best, "kind": kind}
        for name, kind in _HELDOUT
    ]


def _heldout_panel(result: DemoResult) -> list[Panel]:
    rows = tuple(
        (source, tuple(Dot(name, kind, scores[name]) for name, kind in _HELDOUT if name in scores))
        for source, scores in result.heldout.items()
    )
    return [Panel("Held-out bits per byte", "lower", 2, rows)]


def _systems(row: Row) -> Iterator[tuple[str, System]]:
    yield "base", row.base
    yield "untrained", row.untrained
    for b in row.beside:
        yield "open", b.system
    for s in row.classical:
        yield "classical", s


def _table(row: Row) -> dict[str, Any]:
    sign = -1 if row.metric in LOWER_IS_BETTER else 1
    values = [sign * s.score.value for _, s in _systems(row) if finite(s.score.value)]
    systems = [
        {"kind": kind, "system": s, "best": bool(values) and sign * s.score.value == max(values)}
        for kind, s in _systems(row)
    ]
    return {
        "task": _question(row),
        "setting": row.setting,
        "metric": row.metric,
        "says": f"{_METRICS.get(row.metric, row.metric)}, {_better(row.metric)} is better",
        "n": row.base.score.n,
        "systems": systems,
        "answer": _answer(row),
    }


def _panels(result: DemoResult) -> list[Panel]:
    out = []
    for metric in dict.fromkeys(row.metric for row in result.rows):
        rows = tuple(
            (f"{_question(r)} · {r.setting}", tuple(Dot(s.name, kind, s.score) for kind, s in _systems(r)))
            for r in result.rows
            if r.metric == metric
        )
        name = _METRICS.get(metric, metric)
        out.append(Panel(name[:1].upper() + name[1:], _better(metric), _DIGITS.get(metric, 3), rows))
    return out


def _stages(result: DemoResult) -> list[tuple[str, float, float]]:
    """(stage, seconds, share of the total). Time outside the stages has its own line; the last line is "everything"."""
    named = {k: v for k, v in result.stages.items() if k != "everything" and finite(v)}
    everything = result.stages.get("everything")
    whole_time = everything if finite(everything) and everything else sum(named.values())
    rest = (whole_time or 0.0) - sum(named.values())
    if rest > 0.05:
        named["the rest: building the tasks, samples, this page"] = rest
    return [(k, v, v / whole_time if whole_time else 0.0) for k, v in named.items()] + (
        [("everything", whole_time, 1.0)] if whole_time else []
    )


def _earlier(result: DemoResult) -> bool:
    """Whether the base was trained by an earlier call in the same folder, so that this call's stage is shorter."""
    trained, stage = result.facts.get("seconds.training"), result.stages.get("pretrain one base")
    return finite(trained) and finite(stage) and stage < 0.9 * trained  # type: ignore[operator]


def _shares(counts: Any) -> list[tuple[str, int, float]]:
    known = {k: v for k, v in _dict(counts).items() if finite(v)}
    total = sum(known.values())
    return [(k, v, v / total if total else 0.0) for k, v in known.items()]


def _commands(result: DemoResult) -> list[tuple[str, str]]:
    """(description, command), with the paths of this run."""
    out = Path(result.out)
    run, base = (shlex.quote(str(p)) for p in (out / "pretrain", out / "pretrain" / "base"))
    adapters = {k: shlex.quote(v) for k, v in result.adapters.items()}
    served = "".join(f" --adapter {shlex.quote(k)}={v}" for k, v in adapters.items())
    commands = [("Chat with it (it is not tuned to chat, so it babbles)", f"onebase chat {run}")]
    if "docstring" in adapters:
        commands.append(
            (
                "Write a docstring with the adapted base",
                f"{_PRINT} | onebase generate {run} - --adapter {adapters['docstring']} --max-tokens 32",
            )
        )
    commands += [
        (
            "Serve it and its adapters with an OpenAI-shaped API, on this computer only",
            f"onebase serve {run}{served}",
        ),
        ("List the models that the server has", "curl 127.0.0.1:8000/v1/models"),
        ("Show its record, each number with its origin", f"onebase show {base}"),
        ("Check every byte against manifest and fingerprint", f"onebase verify {base}"),
    ]
    return commands
