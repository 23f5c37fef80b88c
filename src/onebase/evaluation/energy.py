"""Measure the time and energy of a block of code: seconds, and joules from the processor's counter if readable, else estimated.

The counter is RAPL's, of whole processor packages, and includes other processes on the machine. The estimate is the CPU time of this process
over all its cores times CORE_WATTS; with an accelerator, plus the wall-clock time times GPU_WATTS.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CORE_WATTS = 10.0
"""Assumed for a busy core: server packages (200 to 400 W) are rated at 5 to 12 W per core, without memory and the rest of the machine."""

GPU_WATTS = 300.0
"""Assumed for a busy accelerator: data-centre cards draw 150 to 700 W."""

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Usage:
    """seconds: wall-clock time. measured: the joules were read from a counter, not estimated."""

    seconds: float = 0.0
    joules: float = 0.0
    measured: bool = False

    @property
    def how(self) -> str:
        """The origin of the joules, as tables print it."""
        if self.measured:
            return "measured: RAPL, whole processor packages"
        return f"estimated: {CORE_WATTS:g} W a busy core, {GPU_WATTS:g} W an accelerator"


class Watch:
    """`usage` is set at the end of the block of `watching`."""

    usage = Usage()


@contextmanager
def watching(*, accelerator: bool = False, root: Path = POWERCAP) -> Iterator[Watch]:
    """`with watching() as w: work()`, then `w.usage`. accelerator: the work runs on one, which RAPL does not count, so energy is estimated."""
    watch = Watch()
    before = {} if accelerator else _counters(root)
    clock, busy = time.perf_counter(), time.process_time()
    yield watch
    clock, busy = time.perf_counter() - clock, time.process_time() - busy
    after = _counters(root) if before else {}
    if before and after.keys() == before.keys():
        watch.usage = Usage(clock, sum(_spent(root / k, before[k], after[k]) for k in before) / 1e6, True)
    else:
        watch.usage = Usage(clock, busy * CORE_WATTS + clock * GPU_WATTS * accelerator)


def _counters(root: Path) -> dict[str, int]:
    """Microjoules of each package; {} if there are no counters or they are not readable."""
    try:  # intel-rapl:0 is a package, intel-rapl:0:1 a part of it
        return {
            p.name: int((p / "energy_uj").read_text())
            for p in sorted(root.glob("intel-rapl:*"))
            if p.name.count(":") == 1
        }
    except (OSError, ValueError):
        return {}


def _spent(package: Path, before: int, after: int) -> int:
    """Microjoules between two readings; the counter wraps to 0 after its maximum."""
    if after >= before:
        return after - before
    try:
        return after - before + int((package / "max_energy_range_uj").read_text())
    except (OSError, ValueError):
        return after
