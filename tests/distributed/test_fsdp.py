"""FSDP2 on two gloo processes gives the loss curve of one process.

Tolerances (nats per token, every step): AdamW 1e-4 in fp32; Muon 2e-3 in fp32, because its orthogonalisation may run in bf16 on
matrices that differ in the last bits; bf16 5e-3 with either.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def train(out: Path, ranks: int, optimizer: str, dtype: str, *flags: str) -> list[dict[str, float]]:
    program = [str(ROOT / "tests/distributed/program.py"), str(out), optimizer, dtype, *flags]
    run = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *run, *program], env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("optimizer", "dtype", "tolerance"),
    [
        ("adamw", "fp32", 1e-4),
        pytest.param("muon", "fp32", 2e-3, marks=pytest.mark.slow),
        pytest.param("muon", "bf16", 5e-3, marks=pytest.mark.slow),
    ],
)
def test_two_ranks_give_the_curve_of_one(
    tmp_path: Path, optimizer: str, dtype: str, tolerance: float
) -> None:
    one = train(tmp_path / "one", 1, optimizer, dtype)
    two = train(tmp_path / "two", 2, optimizer, dtype)
    assert [line["tokens"] for line in one] == [line["tokens"] for line in two]
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], abs=tolerance)


@pytest.mark.slow
def test_ranks_may_see_different_modalities(tmp_path: Path) -> None:
    one = train(tmp_path / "one", 1, "adamw", "fp32", "--mixed")
    two = train(tmp_path / "two", 2, "adamw", "fp32", "--mixed")
    assert [line["tokens"] for line in one] == [line["tokens"] for line in two]
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], abs=1e-4)
    assert one[-1]["loss"] < one[0]["loss"]


def test_a_bad_rank_changes_no_weight_and_another_layout_resumes(tmp_path: Path) -> None:
    """Rank 1's loss is not a number once: the step is skipped on both ranks. SIGTERM on rank 0 stops both; one process goes on."""
    first = train(tmp_path / "run", 2, "adamw", "fp32", "--bad", "--stop")
    assert [line["skipped"] for line in first] == [False, False, False, True, False, False]
    rest = train(tmp_path / "run", 1, "adamw", "fp32")
    assert len(rest) == 12
    straight = train(tmp_path / "straight", 2, "adamw", "fp32", "--bad")
    assert [line["loss"] for line in rest[4:]] == pytest.approx(
        [line["loss"] for line in straight[4:]], abs=1e-4
    )


@pytest.mark.slow
def test_a_budget_in_minutes_is_one_number_of_steps_for_all_ranks(tmp_path: Path) -> None:
    """Rank 1's clock runs three times as fast: by it the steps are longer and the time is sooner over. Rank 0's clock decides."""
    log = train(tmp_path, 2, "adamw", "fp32", "--minutes")
    ranks = [json.loads((tmp_path / f"rank-{r}.json").read_text()) for r in (0, 1)]
    assert ranks[0] == ranks[1]
    assert len(log) == ranks[0]["step"] == ranks[0]["total"] == log[-1]["total"] > 12
    assert (tmp_path / f"checkpoints/step_{len(log):08d}/manifest.json").is_file()
