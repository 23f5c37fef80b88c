"""A finished run goes on: from its last checkpoint at the full learning rates, to a new warm-down.

What the steps before the warm-down do does not depend on how many steps there are. So a run that is extended to n steps becomes, bit by bit, the
run that had n steps from the start. `extensions.json` in the run folder has each extension from the moment it begins.
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
    """By how much a run is extended, one of the four. steps, tokens and epochs: more than it has; minutes: of training from now on, the new
    warm-down among them."""

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
        """The one that was given, by its name."""
        return {k: v for k, v in vars(self).items() if v is not None}

    def __str__(self) -> str:
        return ", ".join(f"{k}={v:g}" for k, v in self.given.items())


def amount(extend: Mapping[str, Any] | Amount) -> Amount:
    """What `extend` says. Raises ConfigError."""
    return extend if isinstance(extend, Amount) else configs.from_dict(Amount, extend, "extend")


@dataclass(frozen=True)
class Extended:
    """An extension as it was begun: the `number`th of its run, by how much, from which step of how many, and to which (None: when the first
    steps are timed); seconds: what the steps up to `start` took."""

    number: int
    by: dict[str, float]
    start: int
    before: int
    total: int | None
    seconds: float

    def budget(self) -> Extension:
        """For the loop."""
        return Extension(self.number, self.total, self.by.get("minutes", 0.0), self.before + 1, self.seconds)


def under_way(out: Path) -> Extended | None:
    """The extension that was begun in a run folder and is not finished."""
    if not (out / EXTENSIONS).is_file():
        return None
    path = out / EXTENSIONS
    with understood(path):
        found = [Extended(**e) for e in read_json(path, "extensions")["extensions"]]
    finished = Record.load(out / "base").get("train.extended", {"number": 0})["number"]
    return found[-1] if found and found[-1].number > finished else None


def check_extension(out: Path, recipe: Recipe, by: Amount) -> None:
    """Raises UserError for a run folder that cannot be extended so."""
    if not (out / "base" / MANIFEST).is_file():
        raise ArtifactError(
            f"{out} holds no finished run to extend", "finish it first: the same command without --extend"
        )
    found = under_way(out)
    if found is None:
        _flat_checkpoint(out, recipe)
    elif found.by != by.given:
        begun = Amount(**found.by)  # type: ignore[arg-type]
        raise ArtifactError(
            f"{out} is being extended by {begun}, which is not finished", f"finish it first: --extend {begun}"
        )


def begin(out: Path, recipe: Recipe, by: Amount, plan: RowPlan) -> Extended:
    """Begin an extension, or find the one that was begun. Raises ArtifactError, also for minutes in which the run would not get beyond what it has."""
    found = under_way(out)
    if found is None:
        found = _planned(out, recipe, by, plan)
        kept = read_json(out / EXTENSIONS)["extensions"] if (out / EXTENSIONS).is_file() else []
        write_atomic(
            out / EXTENSIONS,
            json.dumps({"schema": 1, "extensions": [*kept, asdict(found)]}, indent=1).encode(),
        )
    drop_after(out / "checkpoints", found.start, found.number)
    return found


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
                f"in {by.minutes:g} minutes the run would not get beyond the {steps} steps it has: it goes on from step {start}, "
                f"the last before the warm-down",
                f"give more than {math.ceil(least * 10) / 10:g} minutes, or steps=",
            )
    seconds = float(checkpoint_facts(path).get("seconds", 0.0))
    return Extended(number, by.given, start, steps, total, seconds)


def _flat_checkpoint(out: Path, recipe: Recipe) -> Path:
    """The last checkpoint at the full learning rates. Raises ArtifactError where none is left."""
    steps = int(Record.load(out / "base").get("train.steps"))
    found = list_checkpoints(out / "checkpoints")
    last = flat_steps(recipe.train.schedule, steps)
    if found:
        last = max(last, checkpoint_facts(found[-1]).get("flat") or 0)
    if flat := [p for p in found if checkpoint_step(p) <= last]:
        return flat[-1]
    raise ArtifactError(
        f"{out / 'checkpoints'} has no checkpoint from before the warm-down (of step {last} or earlier), so the run cannot be extended",
        "train another base with a larger budget in another --out; or go on from this one at its low rates: onebase adapt --task continue",
    )


def keep_before(out: Path, steps: int) -> Path:
    """A copy of `base/` by the number of its steps, beside it: whole or not there. Links where the file system has them, for the new base
    replaces the folder and not the files."""
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
    """The record of the base so far, for the one that replaces it: what is noted again stands behind what was noted first."""
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
