"""What is quickest on this machine: measured once for each question, kept in a file, shown by `onebase plan --machine`.

What is chosen here never changes what is learnt, only which of several ways makes the same numbers. What does (the number format) goes by
what the chip says it has (`model.device.has_bf16`), for a measurement may come out otherwise tomorrow.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onebase.artifact.disk import cache_dir, sha256_bytes, write_atomic
from onebase.errors import ArtifactError

SCHEMA = 1
ROUNDS = 7
CLEARLY = 0.85


@dataclass(frozen=True)
class Choice:
    """The answer to one question: the way that was quickest, and the least seconds of each."""

    question: str
    chosen: str
    seconds: dict[str, float]
    busy: bool = False


_here: dict[str, Choice] = {}


def choose(question: str, ways: Mapping[str, Callable[[], object]]) -> Choice:
    """The quickest of several ways to the same numbers: as it was found on this machine before, or measured now.

    The first way is the usual one: another is chosen when it takes less than `CLEARLY` of its time. The ways take turns, so that a change
    of the machine's speed meets all, and the least time of each counts. What is measured while other programs want the cores holds for this
    process and is not kept.
    """
    if question not in _here:
        kept = _read().get(question)
        _here[question] = (
            kept if kept is not None and set(kept.seconds) == set(ways) else _measured(question, ways)
        )
    return _here[question]


def _measured(question: str, ways: Mapping[str, Callable[[], object]]) -> Choice:
    least = {name: float("inf") for name in ways}
    busy = is_busy()
    for run in ways.values():
        run()  # what is compiled or packed at first is no part of it
    for _ in range(ROUNDS):
        for name, run in ways.items():
            began = time.perf_counter()
            run()
            least[name] = min(least[name], time.perf_counter() - began)
    usual, best = next(iter(ways)), min(least, key=lambda name: least[name])
    found = Choice(question, best if least[best] < CLEARLY * least[usual] else usual, least, busy)
    if not busy:
        _keep(found)
    return found


def known() -> list[Choice]:
    """What was chosen on this machine until now, by question."""
    return [c for _, c in sorted((_read() | _here).items())]


def is_busy() -> bool:
    """Whether other programs wanted half of the cores or more in the last minute; False where the system does not say."""
    try:
        return os.getloadavg()[0] > 0.5 * cores() + 1
    except (OSError, AttributeError):
        return False


def cores() -> int:
    """How many cores this process may use: those it is bound to, and no more than its group's share of time (cgroups 1 and 2)."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = _share(Path("/sys/fs/cgroup"))
    return bound if share is None else max(1, min(bound, int(share)))


def _share(root: Path) -> float | None:
    """Cores' worth of time that the control group of this process allows; None where there is no limit."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None  # "max", or -1: no limit
    return int(quota) / int(period)


def facts() -> dict[str, Any]:
    """What the answers hold for: another chip, number of threads or version of what computes asks anew."""
    import importlib.metadata

    import torch

    from onebase.artifact.record import machine_facts

    try:
        numba = importlib.metadata.version("numba")
    except importlib.metadata.PackageNotFoundError:
        numba = None
    return {
        "schema": SCHEMA,
        "cpu": machine_facts()["cpu"],
        "architecture": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "compiled for": os.environ.get("NUMBA_CPU_NAME"),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numba": numba,
    }


def path() -> Path:
    """Where the answers for this machine are kept; it can be deleted at any time."""
    name = sha256_bytes(json.dumps(facts(), sort_keys=True).encode())[:16]
    return cache_dir() / "machine" / f"{name}.json"


def _read() -> dict[str, Choice]:
    """What the file says; nothing where it is missing or damaged."""
    try:
        found = json.loads(path().read_text(encoding="utf-8"))
        made = [Choice(**c) for c in found["choices"]]
        good = all(c.chosen in c.seconds and isinstance(c.question, str) for c in made)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
    return {c.question: c for c in made} if good else {}


def _keep(choice: Choice) -> None:
    """Add an answer to the file. Without a folder for it the answer holds for this process."""
    choices = _read() | {choice.question: choice}
    text = json.dumps(
        {"facts": facts(), "choices": [asdict(c) for _, c in sorted(choices.items())]}, indent=1
    )
    try:
        path().parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path(), text.encode())
    except (OSError, ArtifactError):
        pass
