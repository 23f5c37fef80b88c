"""Save scores and the gate's answer in the record of an adapter, each with the data that it was measured on."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onebase.artifact.appending import add_facts
from onebase.artifact.record import RECORD, Origin, Record
from onebase.assess.harness import Harnessed
from onebase.data.file_hashes import FileRead
from onebase.errors import ArtifactError
from onebase.evaluation.bootstrap import Score
from onebase.evaluation.gate import Verdict
from onebase.formats.hub.names import is_name
from onebase.opening.find import find_artifact

log = logging.getLogger(__name__)


def kept_in(adapters: Sequence[str]) -> Path | None:
    """The folder whose record stores the scores: that of a single onebase adapter; None for a stack or a PEFT adapter."""
    if len(adapters) != 1 or is_name(adapters[0]):
        return None
    folder = find_artifact(adapters[0])
    return folder if (folder / RECORD).is_file() else None


def keep_scores(
    folder: str | Path,
    scores: Mapping[str, Score],
    files: Sequence[FileRead],
    verdict: Verdict | None = None,
) -> bool:
    """Add scores (from `evaluate`) and the gate's answer to the record of the adapter in `folder`. files: the files of the test rows
    (`onebase.data.file_hashes.files_read`). Returns whether they were saved; logs a warning for a folder that is not writable. The fingerprint
    does not change."""
    files = list(dict.fromkeys(files))
    on: dict[str, Any] = {"on": ", ".join(f.name for f in files) or "rows given in Python"}
    if files:
        on["sha256"] = ", ".join(f.sha256 for f in files)
    return _add(folder, scores, on, verdict)


def keep_harness_scores(folder: str | Path, report: Harnessed) -> bool:
    """Add the scores of lm-evaluation-harness to the record of the adapter in `folder`, with the versions of the harness and its tasks. Returns
    whether they were saved."""
    tasks = ", ".join(f"{name} (version {version})" for name, version in report.versions["tasks"].items())
    return _add(folder, report.scores, {"on": f"lm_eval {report.versions['lm_eval']}, {tasks}"}, None)


def _add(
    folder: str | Path, scores: Mapping[str, Score], on: dict[str, Any], verdict: Verdict | None
) -> bool:
    origin = f"{Origin.MEASURED} on {on['on']}"

    def add(record: Record) -> None:
        for name, s in scores.items():
            value = {k: getattr(s, k) for k in ("value", "low", "high", "n")}
            record.add(f"scores.{name}", value | on, origin)
        if verdict is not None:
            answer = {
                "answer": verdict.answer,
                "needs_base": verdict.needs_base,
                "line": verdict.line,
                "costs": [vars(c) for c in verdict.costs],
            }
            record.add("gate", answer | on, origin)

    try:
        add_facts(folder, add)
    except ArtifactError as e:
        log.warning("the scores are not saved in the adapter's record: %s (%s)", e.cause, e.remedy)
        return False
    return True
