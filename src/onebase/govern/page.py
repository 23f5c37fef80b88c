"""The record of an artifact as one HTML page: the output of `show`, with curves from the record or the run's log.

All text goes through Jinja's autoescape, so that markup in a foreign record is displayed, not interpreted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from onebase.artifact.files import MANIFEST, write_atomic
from onebase.artifact.record import RECORD, Record
from onebase.errors import ArtifactError, UserError
from onebase.govern.charts import finite, series_chart
from onebase.govern.pages import environment, learning
from onebase.govern.show import about, answers, as_text, clean, describe, fact_rows
from onebase.train.callbacks import read_log

TEMPLATE = "page.html.jinja"
REINFORCE = "reinforce.curve"
_SERIES: dict[str, tuple[str, float, tuple[float, ...]]] = {
    "reward": ("Reward, mean of the completions", 1, ()),
    "success": ("Success, % of the completions", 100, (0, 100)),
    "kl": ("KL from the plain base, nats a token", 1, (0,)),
    "length": ("Length of a completion, tokens", 1, (0,)),
    "ratio": ("Importance ratio, largest distance from 1", 1, (0,)),
    "clipped": ("Clipped, % of the tokens", 100, (0,)),
    "ended": ("Ended by themselves, % of the completions", 100, (0, 100)),
    "no_signal": ("Without a signal, % of the groups", 100, (0, 100)),
    "gap": ("Gap to the engine, mean, nats a token", 1, (0,)),
    "gap_most": ("Gap to the engine, largest, nats a token", 1, (0,)),
}
"""Per series of rollouts: chart title, factor, and values that the axis always includes."""


def write_page(folder: str | Path, path: str | Path) -> None:
    """Write the record of the artifact in `folder` as one self-contained HTML file; an existing file is replaced.

    Raises ArtifactError; UserError if `path` cannot be a file, or is inside an artifact, which would then differ from its manifest.
    """
    path = Path(path)
    refuse_place(path)
    write_atomic(path, render(folder).encode("utf-8", "replace"))


def refuse_place(path: Path) -> None:
    """Raises UserError if `path` cannot be a page: it is a folder, its folder does not exist, or it is inside an artifact."""
    if path.is_dir() or not path.parent.is_dir():
        why = "is a folder" if path.is_dir() else f"cannot be written: there is no folder {path.parent}"
        raise UserError(f"the page {path} {why}", "give a file in an existing folder")
    for parent in path.resolve().parents:
        if (parent / MANIFEST).is_file():
            raise UserError(
                f"{path} is inside the artifact {parent}, which contains only the files of its manifest",
                f"give a file next to it, for example {parent}.html",
            )


def render(folder: str | Path) -> str:
    """The page as text. Raises ArtifactError."""
    folder = Path(folder)
    data = describe(folder)
    facts = {f["field"]: f for f in data["facts"]}
    rollouts = _rollouts(facts.get(REINFORCE, {}).get("value"))
    shown = [f for name, f in facts.items() if not (rollouts and name == REINFORCE)]
    config = [f for f in shown if f["field"].split(".")[0] == "config"]
    record = Record.load(folder) if (folder / RECORD).is_file() else Record(data["kind"])
    recipe = _dict(record.get("config.recipe"))
    log = _log(folder) if data["kind"] == "base" else []
    return (
        environment(Path(__file__).parent)
        .get_template(TEMPLATE)
        .render(
            name=clean(str(facts["name"]["value"] if "name" in facts else folder.resolve().name)),
            answers=list(answers(data)),
            about=list(about(data)),
            what=[fact_rows([facts[k]]) for k in ("task", "method") if k in facts],
            files={clean(name): size for name, size in data["files"].items()},
            facts=list(fact_rows(f for f in shown if f not in config)),
            config=list(fact_rows(config)),
            sentences=_sentences(facts),
            charts=_charts(rollouts),
            names=_names(rollouts),
            rollouts=[[as_text(r[k]) if k in r else "" for k in _names(rollouts)] for r in rollouts],
            origin=clean(facts[REINFORCE]["origin"]) if rollouts else "",
            log=log,
            train=_dict(recipe.get("train")),
            model=_dict(recipe.get("model")),
            **learning(log),
        )
    )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _rollouts(value: Any) -> list[dict[str, Any]]:
    """The curve of a reinforce record; empty if the value is not one."""
    rows = value if isinstance(value, list) else []
    return rows if all(isinstance(r, dict) and r for r in rows) else []


def _names(rollouts: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for r in rollouts for name in r))


def _charts(rollouts: list[dict[str, Any]]) -> list[Markup]:
    """A chart for each series of the rollouts, the known ones first."""
    at = [r.get("rollout", i) for i, r in enumerate(rollouts)]
    names = [n for n in _names(rollouts) if n != "rollout"]
    out = []
    for name in [*(n for n in _SERIES if n in names), *(n for n in names if n not in _SERIES)]:
        title, by, ends = _SERIES.get(name, (clean(name), 1, ()))
        points = [(x, r[name] * by) for x, r in zip(at, rollouts, strict=True) if finite(r.get(name))]
        out.append(series_chart(points, title, "rollout", ends))
    return [chart for chart in out if chart is not None]


def _sentences(facts: dict[str, dict[str, Any]]) -> list[str]:
    """A summary of the rollouts in the record, in sentences."""

    def number(field: str, key: str = "") -> Any:
        value = facts.get(field, {}).get("value")
        value = _dict(value).get(key) if key else value
        return value if finite(value) else None

    out = []
    if (written := number("reinforce.completions")) is not None:
        out.append(f"{written:,.0f} completions were generated and judged.")
    if (same := number("reinforce.no_signal")) is not None:
        out.append(f"In {100 * same:.3g}% of the groups all rewards were equal, so they gave no gradient.")
    mean, most = number("reinforce.gap", "mean"), number("reinforce.gap", "most")
    if mean is not None and most is not None:
        out.append(
            "The engine that generated them and the training forward differ in the log-probability of a token "
            f"by {mean:.2g} nats on average and {most:.2g} at most."
        )
    return out


def _log(folder: Path) -> list[dict[str, Any]]:
    """The lines of the log next to a base that was trained in a run folder; else an empty list."""
    folder = folder.resolve()
    path = folder.parent / "log.jsonl"
    if folder.name != "base" or not path.is_file():
        return []
    try:
        return [line for line in read_log(path) if isinstance(line, dict)]
    except (OSError, ValueError, RecursionError) as e:
        raise ArtifactError(f"{path} cannot be read as a log: {e}", "move or repair it") from None
