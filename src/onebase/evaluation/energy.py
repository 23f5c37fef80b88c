"""What a piece of work took: seconds, and joules, read from the processor's own counter where the machine lets us, or else estimated.

The counter is RAPL's, of whole processor packages: what others do on the machine meanwhile is in it. The estimate is the seconds that this
process computed on all its cores, times CORE_WATTS, and with an accelerator the seconds on the clock times GPU_WATTS.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CORE_WATTS = 10.0
"""Assumed of a busy core: server packages are sold for 5 to 12 W a core (of 200 to 400 W), memory and the machine around not counted."""

GPU_WATTS = 300.0
"""Assumed of a busy accelerator: data-centre cards draw 150 to 700 W."""

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Taken:
    """seconds on the clock; joules; measured: the joules were read from a counter, not estimated."""

    seconds: float = 0.0
    joules: float = 0.0
    measured: bool = False

    @property
    def how(self) -> str:
        """Where the joules are from, as a table says it."""
        if self.measured:
            return "measured: RAPL, whole processor packages"
        return f"estimated: {CORE_WATTS:g} W a busy core, {GPU_WATTS:g} W an accelerator"


class Watch:
    """`taken` is there after the block of `watching`."""

    taken = Taken()


@contextmanager
def watching(*, accelerator: bool = False, root: Path = POWERCAP) -> Iterator[Watch]:
    """`with watching() as w: work()`, then `w.taken`. accelerator: the work is done on one, which RAPL does not count, so it is estimated."""
    watch = Watch()
    before = {} if accelerator else _counters(root)
    clock, busy = time.perf_counter(), time.process_time()
    yield watch
    clock, busy = time.perf_counter() - clock, time.process_time() - busy
    after = _counters(root) if before else {}
    if before and after.keys() == before.keys():
        watch.taken = Taken(clock, sum(_spent(root / k, before[k], after[k]) for k in before) / 1e6, True)
    else:
        watch.taken = Taken(clock, busy * CORE_WATTS + clock * GPU_WATTS * accelerator)


def _counters(root: Path) -> dict[str, int]:
    """Microjoules of each package; {} where there are none, or they may not be read."""
    try:  # intel-rapl:0 is a package, intel-rapl:0:1 a part of it
        return {
            p.name: int((p / "energy_uj").read_text())
            for p in sorted(root.glob("intel-rapl:*"))
            if p.name.count(":") == 1
        }
    except (OSError, ValueError):
        return {}


def _spent(package: Path, before: int, after: int) -> int:
    """The counter begins again at 0 behind its largest number."""
    if after >= before:
        return after - before
    try:
        return after - before + int((package / "max_energy_range_uj").read_text())
    except (OSError, ValueError):
        return after
