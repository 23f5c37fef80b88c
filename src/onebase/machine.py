"""Autotuning: which of several implementations is fastest on this machine, measured once, cached in a file, shown by `onebase plan --machine`.

The choice never changes results, only which implementation computes them. Choices that do change results (the dtype) depend on the
features of the chip (`model.device.has_bf16`), because a measurement may come out differently the next time.
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
    """The result for one question: the fastest implementation, and the minimum seconds of each. busy: other programs were using the cores."""

    question: str
    chosen: str
    seconds: dict[str, float]
    busy: bool = False


_here: dict[str, Choice] = {}


def choose(question: str, ways: Mapping[str, Callable[[], object]]) -> Choice:
    """The fastest of several implementations of the same result: as measured on this machine before, or measured now.

    The first is the default: another is chosen only when it takes less than `CLEARLY` of its time. They run in turns, so that a change
    of the machine's speed affects all, and the minimum time of each counts. A measurement while other programs use the cores is valid
    for this process only and is not saved.
    """
    if question not in _here:
        saved = _read().get(question)
        _here[question] = (
            saved if saved is not None and set(saved.seconds) == set(ways) else _measured(question, ways)
        )
    return _here[question]


def _measured(question: str, ways: Mapping[str, Callable[[], object]]) -> Choice:
    least = {name: float("inf") for name in ways}
    busy = is_busy()
    for run in ways.values():
        run()  # warm-up: compiling and packing are not measured
    for _ in range(ROUNDS):
        for name, run in ways.items():
            began = time.perf_counter()
            run()
            least[name] = min(least[name], time.perf_counter() - began)
    usual, best = next(iter(ways)), min(least, key=lambda name: least[name])
    choice = Choice(question, best if least[best] < CLEARLY * least[usual] else usual, least, busy)
    if not busy:
        _keep(choice)
    return choice


def known() -> list[Choice]:
    """All choices on this machine so far, sorted by question."""
    return [c for _, c in sorted((_read() | _here).items())]


def is_busy() -> bool:
    """Whether other programs used half of the cores or more in the last minute; False where the system does not report it."""
    try:
        return os.getloadavg()[0] > 0.5 * cores() + 1
    except (OSError, AttributeError):
        return False


def cores() -> int:
    """Number of cores this process may use: its CPU affinity, limited by its cgroup's quota (cgroups 1 and 2)."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = _share(Path("/sys/fs/cgroup"))
    return bound if share is None else max(1, min(bound, int(share)))


def _share(root: Path) -> float | None:
    """The CPU quota of this process's cgroup, in cores; None where there is no limit."""
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
    """The conditions under which saved choices are valid: a change of chip, threads or library versions measures again."""
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
    """The file with the choices for this machine; it can be deleted at any time."""
    name = sha256_bytes(json.dumps(facts(), sort_keys=True).encode())[:16]
    return cache_dir() / "machine" / f"{name}.json"


def _read() -> dict[str, Choice]:
    """The choices in the file; none where it is missing or damaged."""
    try:
        tree = json.loads(path().read_text(encoding="utf-8"))
        choices = [Choice(**c) for c in tree["choices"]]
        good = all(c.chosen in c.seconds and isinstance(c.question, str) for c in choices)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
    return {c.question: c for c in choices} if good else {}


def _keep(choice: Choice) -> None:
    """Add a choice to the file. Where the file cannot be written, the choice is valid for this process only."""
    choices = _read() | {choice.question: choice}
    text = json.dumps(
        {"facts": facts(), "choices": [asdict(c) for _, c in sorted(choices.items())]}, indent=1
    )
    try:
        path().parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path(), text.encode())
    except (OSError, ArtifactError):
        pass
