"""The result of an audit: figures with their controls, as text, as JSON, and as a folder with a record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onebase.artifact.files import ArtifactWriter, plain, sha256_bytes
from onebase.artifact.record import Origin, Record
from onebase.assess.auditing.rows import QuestionSource
from onebase.evaluation.audits import Control, Figure
from onebase.evaluation.bootstrap import Score

FILE = "audit.json"
EXIT_SILENT = 3
"""Exit status of the command if a check has no figure whose controls hold."""


@dataclass(frozen=True)
class Group:
    """The score of one type. stands_out: chance is outside its interval, Bonferroni-corrected for the number of types."""

    score: Score
    stands_out: bool


@dataclass(frozen=True)
class AuditCheck:
    """One check of a base: its rows, how texts were scored, the figure of each reading, the scores of each type, and notes.

    controls: those of a check without figures, because the rows lack what they need.
    """

    name: str
    source: QuestionSource
    how: str
    figures: Mapping[str, Figure]
    groups: Mapping[str, tuple[Group, ...]]
    notes: tuple[str, ...]
    controls: tuple[Control, ...] = ()

    @property
    def speaks(self) -> bool:
        """Whether both controls hold for any figure."""
        return any(f.speaks for f in self.figures.values())


@dataclass(frozen=True)
class Audit:
    """Checks of one base. `speaks`: every check has at least one figure whose controls hold."""

    checks: tuple[AuditCheck, ...]
    record: Record

    @property
    def speaks(self) -> bool:
        return all(c.speaks for c in self.checks)

    @property
    def text(self) -> str:
        """The result as plain text."""
        return "\n".join(line for c in self.checks for line in _lines(c))

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON data: per check and reading the score with its interval, n, chance and controls."""
        return {"schema": 1, "speaks": self.speaks, "checks": {c.name: _facts(c) for c in self.checks}}

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the folder: audit.json, record.json, manifest.json. Raises ArtifactError if it exists."""
        content = (json.dumps(plain(self.to_dict()), indent=1, ensure_ascii=False) + "\n").encode()
        digest = f"oa1-{sha256_bytes(content)}"
        self.record.hashes["fingerprint"] = digest
        with ArtifactWriter(path, kind="audit", facts={"fingerprint": digest}, overwrite=overwrite) as w:
            w.path(FILE).write_bytes(content)
            self.record.save(w.path("record.json"))
        return Path(path)


def note(record: Record, checks: tuple[AuditCheck, ...]) -> None:
    """Add every number of the checks to the record, each with its origin."""
    for c in checks:
        record.add(f"{c.name}.subset", c.source.subset, "counted and compared with known files")
        record.add(f"{c.name}.data.fingerprint", c.source.fingerprint, "hashed")
        record.add(f"{c.name}.data.rows", c.source.rows, "counted")
        record.add(f"{c.name}.how", c.how, f"{Origin.COMPUTED} by this rule")
        for reading, f in c.figures.items():
            record.add(f"{c.name}.{reading}.scores", _figure(f), f"measured on {c.source.rows:,} rows")
        for reading, groups in c.groups.items():
            record.add(
                f"{c.name}.{reading}.types",
                {g.score.name: _group(g) for g in groups},
                "measured, each on its n rows",
            )
        for control in c.controls:
            record.add(f"{c.name}.{control.kind}", _control(control), f"measured on {c.source.rows:,} rows")


def _score(s: Score) -> dict[str, Any]:
    return {"value": s.value, "low": s.low, "high": s.high, "n": s.n}


def _control(c: Control) -> dict[str, Any]:
    return {"name": c.score.name, **_score(c.score), "expected": c.expected, "verdict": c.verdict}


def _figure(f: Figure) -> dict[str, Any]:
    return {
        **_score(f.score),
        "chance": f.chance,
        "speaks": f.speaks,
        "controls": {c.kind: _control(c) for c in f.controls},
    }


def _group(g: Group) -> dict[str, Any]:
    return _score(g.score) | {"stands_out": g.stands_out}


def _facts(c: AuditCheck) -> dict[str, Any]:
    return {
        "subset": c.source.subset,
        "rows": c.source.rows,
        "fingerprint": c.source.fingerprint,
        "how": c.how,
        "speaks": c.speaks,
        "figures": {r: _figure(f) for r, f in c.figures.items()},
        "types": {r: {g.score.name: _group(g) for g in groups} for r, groups in c.groups.items()},
        "controls": {x.kind: _control(x) for x in c.controls},
        "notes": list(c.notes),
    }


def _lines(c: AuditCheck) -> Iterator[str]:
    yield f"{c.name}: {c.source.subset}"
    yield f"  {c.how}"
    for reading, f in c.figures.items():
        verdict = "" if f.speaks else ": MEANS NOTHING for this base"
        yield f"  {reading} {_score_text(f.score)}, chance {f.chance:.1%}{verdict}"
        yield from (_control_line(x, "    ") for x in f.controls)
    yield from (_control_line(x, "  ") for x in c.controls)
    best = next((r for r, f in c.figures.items() if f.speaks and r in c.groups), None)
    if best is not None:
        groups = c.groups[best]
        yield f"  {best} by type; with {len(groups)} of them, one in 20 intervals misses by chance: * stands out at 5% / {len(groups)}"
        yield from (
            f"    {'*' if g.stands_out else ' '} {g.score.name} {_score_text(g.score)}" for g in groups
        )
    if c.figures and not c.speaks:
        yield "  NO FIGURE OF THIS CHECK MEANS ANYTHING FOR THIS BASE: see the controls"
    yield from (f"  {n}" for n in c.notes)


def _control_line(c: Control, before: str) -> str:
    least = "at least " if c.kind == "positive" else ""
    return f"{before}{c.kind} control ({c.score.name}) {_score_text(c.score)}, expected {least}{c.expected:.1%}: {c.verdict}"


def _score_text(s: Score) -> str:
    return f"{s.value:.1%} (95%: {s.low:.1%} to {s.high:.1%}, n = {s.n:,})"
