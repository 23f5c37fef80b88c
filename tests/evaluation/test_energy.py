"""Joules: read from counters laid out as the kernel lays them out, or estimated, and which of the two is said."""

import time
from pathlib import Path

import pytest

from onebase.evaluation.energy import CORE_WATTS, GPU_WATTS, watching

RANGE = 1_000_000


def counters(root: Path, *microjoules: int) -> None:
    for i, n in enumerate(microjoules):
        for name in (f"intel-rapl:{i}", f"intel-rapl:{i}:0"):  # the second is a part of the first
            (root / name).mkdir(exist_ok=True)
            (root / name / "energy_uj").write_text(f"{n}\n")
            (root / name / "max_energy_range_uj").write_text(f"{RANGE}\n")


def test_counters_of_packages_are_added_and_may_begin_again(tmp_path: Path) -> None:
    counters(tmp_path, 100, RANGE - 50)
    with watching(root=tmp_path) as watch:
        counters(tmp_path, 2_000_100, 30)
    assert watch.usage.joules == pytest.approx(2.0 + 80e-6) and watch.usage.measured
    assert watch.usage.how.startswith("measured: RAPL")


def test_without_counters_it_is_the_seconds_computed_times_assumed_watts(tmp_path: Path) -> None:
    with watching(root=tmp_path) as watch:
        time.sleep(0.05)  # computes nothing
        busy = time.process_time()
        while time.process_time() - busy < 0.05:
            pass
    assert watch.usage.seconds >= 0.1 and not watch.usage.measured
    assert 0.05 * CORE_WATTS <= watch.usage.joules < 0.09 * CORE_WATTS
    assert watch.usage.how == "estimated: 10 W a busy core, 300 W an accelerator"


def test_an_accelerator_is_estimated_even_beside_counters(tmp_path: Path) -> None:
    counters(tmp_path, 0)
    with watching(accelerator=True, root=tmp_path) as watch:
        time.sleep(0.02)
    assert not watch.usage.measured and watch.usage.joules >= 0.02 * GPU_WATTS


def test_counters_that_may_not_be_read_are_none(tmp_path: Path) -> None:
    (tmp_path / "intel-rapl:0").mkdir()
    with watching(root=tmp_path) as watch:
        pass
    assert not watch.usage.measured
