"""Extends a finished run: it resumes from its last checkpoint at full learning rates, and ends with a new warm-down.

The steps before the warm-down do not depend on the total number of steps. So a run that is extended to n steps equals, bit for bit, a run
with n steps from the start. `extensions.json` in the run folder lists each extension from its beginning.
"""

import json
import math
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onebase import config as configs
from onebase.artifact.disk import disk_errors, remove_if_abandoned, siblings
from onebase.artifact.files import MANIFEST, read_json, understood, write_atomic
from onebase.artifact.record import Record
from onebase.config import config
from onebase.data import RowPlan
from onebase.errors import ArtifactError, ConfigError
from onebase.pretraining.recipe import Recipe
from onebase.train.budget import Extension
from onebase.train.checkpoint import (
    checkpoint_facts,
    checkpoint_name,
    checkpoint_step,
    drop_after,
    list_checkpoints,
)
from onebase.train.optim import flat_steps

EXTENSIONS = "extensions.json"


@config
class Amount:
    """By how much a run is extended: exactly one of the four. steps, tokens, epochs: added to those of the run. minutes: of further training,
    including the new warm-down."""

    steps: int | None = None
    tokens: int | None = None
    epochs: float | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        given = {k: v for k, v in vars(self).items() if v is not None}
        if len(given) != 1 or not all(0 < v < math.inf for v in given.values()):
            raise ConfigError(
                f"a run is extended by {' and '.join(f'{k}={v}' for k, v in given.items()) or 'nothing'}",
                "give exactly one of steps, tokens, epochs, minutes, above 0: minutes=60",
            )

    @property
    def given(self) -> dict[str, float]:
        """The field that is set, with its name."""
        return {k: v for k, v in vars(self).items() if v is not None}

    def __str__(self) -> str:
        return ", ".join(f"{k}={v:g}" for k, v in self.given.items())


def amount(extend: Mapping[str, Any] | Amount) -> Amount:
    """Parse `extend`. Raises ConfigError."""
    return extend if isinstance(extend, Amount) else configs.from_dict(Amount, extend, "extend")


@dataclass(frozen=True)
class Extended:
    """An extension that was begun. number: of the extension, from 1. by: the amount. start: the step it resumes from. before: steps of the run before.
    total: steps after (None until the first steps are timed). seconds: time of the steps up to `start`."""

    number: int
    by: dict[str, float]
    start: int
    before: int
    total: int | None
    seconds: float

    def budget(self) -> Extension:
        """The budget for the training loop."""
        return Extension(self.number, self.total, self.by.get("minutes", 0.0), self.before + 1, self.seconds)


def under_way(out: Path) -> Extended | None:
    """The unfinished extension of a run folder, if there is one."""
    if not (out / EXTENSIONS).is_file():
        return None
    path = out / EXTENSIONS
    with understood(path):
        begun = [Extended(**e) for e in read_json(path, "extensions")["extensions"]]
    finished = Record.load(out / "base").get("train.extended", {"number": 0})["number"]
    return begun[-1] if begun and begun[-1].number > finished else None


def check_extension(out: Path, recipe: Recipe, by: Amount) -> None:
    """Raises UserError for a run folder that cannot be extended by this amount."""
    if not (out / "base" / MANIFEST).is_file():
        raise ArtifactError(
            f"{out} has no finished run to extend", "finish it first: the same command without --extend"
        )
    current = under_way(out)
    if current is None:
        _flat_checkpoint(out, recipe)
    elif current.by != by.given:
        begun = Amount(**current.by)  # type: ignore[arg-type]
        raise ArtifactError(
            f"{out} has an unfinished extension by {begun}", f"finish it first: --extend {begun}"
        )


def begin(out: Path, recipe: Recipe, by: Amount, plan: RowPlan) -> Extended:
    """Begin an extension, or return the unfinished one. Raises ArtifactError, also for too few minutes to get past the steps of the run."""
    extended = under_way(out)
    if extended is None:
        extended = _planned(out, recipe, by, plan)
        kept = read_json(out / EXTENSIONS)["extensions"] if (out / EXTENSIONS).is_file() else []
        write_atomic(
            out / EXTENSIONS,
            json.dumps({"schema": 1, "extensions": [*kept, asdict(extended)]}, indent=1).encode(),
        )
    drop_after(out / "checkpoints", extended.start, extended.number)
    return extended


def _planned(out: Path, recipe: Recipe, by: Amount, plan: RowPlan) -> Extended:
    record, path = Record.load(out / "base"), _flat_checkpoint(out, recipe)
    steps, start = int(record.get("train.steps")), checkpoint_step(path)
    number = record.get("train.extended", {"number": 0})["number"] + 1
    total: int | None
    if by.minutes is None:
        by_rows = math.ceil((by.epochs or 0.0) * plan.rows_per_epoch / plan.batch_size)
        total = steps + (by.steps or recipe.train.steps_for(by.tokens or 0) or by_rows)
    else:
        total = None
        least = (steps - start) * float(record.get("seconds.training") or 0.0) / steps / 60
        if by.minutes <= least:
            raise ArtifactError(
                f"{by.minutes:g} minutes are too few to get past the {steps} steps of the run: it resumes from step {start}, "
                f"the last before the warm-down",
                f"give more than {math.ceil(least * 10) / 10:g} minutes, or steps=",
            )
    seconds = float(checkpoint_facts(path).get("seconds", 0.0))
    return Extended(number, by.given, start, steps, total, seconds)


def _flat_checkpoint(out: Path, recipe: Recipe) -> Path:
    """The last checkpoint at full learning rates. Raises ArtifactError if none is left."""
    steps = int(Record.load(out / "base").get("train.steps"))
    checkpoints = list_checkpoints(out / "checkpoints")
    last = flat_steps(recipe.train.schedule, steps)
    if checkpoints:
        last = max(last, checkpoint_facts(checkpoints[-1]).get("flat") or 0)
    if flat := [p for p in checkpoints if checkpoint_step(p) <= last]:
        return flat[-1]
    raise ArtifactError(
        f"{out / 'checkpoints'} has no checkpoint from before the warm-down (of step {last} or earlier), so the run cannot be extended",
        "train another base with a larger budget in another --out; or continue this one at its low rates: onebase adapt --task continue",
    )


def keep_before(out: Path, steps: int) -> Path:
    """Copy `base/` to `base-step_N` (N: its steps), atomically. Uses hard links if the file system has them: the new base replaces the folder, not
    the files."""
    kept = out / f"base-{checkpoint_name(steps)}"
    if not kept.exists():
        for stale in siblings(kept, "tmp"):
            remove_if_abandoned(stale)
        draft = kept.with_name(f".{kept.name}.tmp-{secrets.token_hex(4)}")
        with disk_errors(kept):
            shutil.copytree(out / "base", draft, copy_function=_link)
            os.rename(draft, kept)
    return kept


def note_extension(out: Path, extended: Extended, steps: int, kept: Path | None) -> Record:
    """The record of the old base for the new one, with the extension added: later entries are appended to the old ones."""
    record = Record.load(out / "base")
    before = {
        "steps": extended.before,
        "fingerprint": record.hashes["fingerprint"],
        "kept": kept and kept.name,
    }
    value = {
        "number": extended.number,
        "by": extended.by,
        "from_step": extended.start,
        "to_step": steps,
        "before": before,
    }
    record.add("train.extended", value, "stated by the user, counted by the loop")
    return record


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
