"""Training throughput compared with the Hugging Face Trainer: one Llama-shaped model, whole training steps.

Vocabulary 8192, width 256, depth 6, 4 heads, feed-forward 688, 16 rows of 512 tokens per step, AdamW, gradients clipped. All sides run in
fresh processes, in turns, so that changes of the machine's speed affect all alike; the median step is reported. The first step includes the
compilation: cold with an empty compiler cache, warm in later rounds. If the chip multiplies bf16, ours computes in it and the Trainer in
both formats; otherwise all are fp32.

    python bench/train_throughput.py [--quick] [--isa avx2] [--rounds N] [--steps N] [--sides ours trainer_fp32 ...]
"""

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import arguments, child, chip_dtype, need, report
from training_sides import our_steps, trainer_steps

VOCAB, WIDTH, DEPTH, HEADS, HIDDEN, ROWS, LENGTH = 8192, 256, 6, 4, 688, 16, 512
BF16 = ("trainer_bf16", "trainer_bf16_compiled")
TRAINERS = (*BF16, "trainer_fp32", "trainer_fp32_compiled")
OURS = ("ours", "ours_muon", "ours_eager")
SKIPPED = 2  # first steps: compilation, and warm-up of memory and caches


def token_rows(steps: int) -> Any:
    """int64 [steps * ROWS, LENGTH]: the same random tokens for every side."""
    import numpy as np

    return np.random.default_rng(0).integers(0, VOCAB, (steps * ROWS, LENGTH))


def trainer(side: str, steps: int) -> tuple[list[float], list[float], int]:
    """Seconds per step, losses and number of parameters of the Trainer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=HIDDEN,
        max_position_embeddings=LENGTH,
    )
    data = [{"input_ids": row, "labels": row} for row in torch.from_numpy(token_rows(steps + 1))]
    compiled = side.endswith("_compiled")
    return trainer_steps(LlamaForCausalLM(config), data, steps, ROWS, bf16=side in BF16, compiled=compiled)


def ours(side: str, steps: int) -> tuple[list[float], list[float], int]:
    """The same for onebase's own loop."""
    from onebase.base.config import TextShape, text_base
    from onebase.objective.next_token import NextToken

    shape = TextShape(
        width=WIDTH,
        depth=DEPTH,
        head_dim=WIDTH // HEADS,
        ff_hidden=HIDDEN,
        context=LENGTH,
        vocab_size=VOCAB,
        tied=False,
        portable=True,
    )
    return our_steps(
        text_base(shape),
        lambda np: NextToken(LENGTH),
        token_rows(steps + 1),
        steps,
        ROWS,
        muon=side == "ours_muon",
        compiled=side != "ours_eager",
    )


class Optimizing:
    """Seconds per step in torch optimizers, by class; measured with torch's own hooks, so alike for all sides."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._began = 0.0

    def begin(self, *_: Any) -> None:
        self._began = time.perf_counter()

    def end(self, optimizer: Any, *_: Any) -> None:
        self.seconds.setdefault(type(optimizer).__name__, []).append(time.perf_counter() - self._began)


def worker(side: str, steps: int) -> None:
    """One fresh process: measure and print JSON."""
    from torch.optim.optimizer import (
        register_optimizer_step_post_hook,
        register_optimizer_step_pre_hook,
    )

    optimizing = Optimizing()
    register_optimizer_step_pre_hook(optimizing.begin)
    register_optimizer_step_post_hook(optimizing.end)
    seconds, losses, parameters = (ours if side in OURS else trainer)(side, steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "seconds": seconds,
                "optimizers": optimizing.seconds,
                "first_loss": losses[0],
                "parameters": parameters,
                "peak_rss_mb": peak / (1024 if sys.platform == "linux" else 2**20),
            }
        )
    )


def measure(sides: list[str], rounds: int, steps: int) -> dict[str, Any]:
    """All sides in turns, `rounds` times."""
    runs: dict[str, list[dict[str, Any]]] = {s: [] for s in sides}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(rounds):
            for side in sides:
                env = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(Path(folder) / side)}
                runs[side].append(
                    child([sys.executable, __file__, "--worker", side, "--steps", str(steps)], env)
                )
                step = statistics.median(runs[side][-1]["seconds"][SKIPPED:])
                print(f"round {i + 1} {side}: {ROWS * LENGTH / step:.0f} tokens/s", file=sys.stderr)
    return {side: summary(found) for side, found in runs.items()}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The median step of all rounds, and the extra time of the first step: cold, and warm with more than one round."""
    step = statistics.median(s for run in runs for s in run["seconds"][SKIPPED:])
    first = [run["seconds"][0] - step for run in runs]
    optimizers = {
        name: statistics.median(s for run in runs for s in run["optimizers"][name][SKIPPED:])
        for name in runs[0]["optimizers"]
    }
    return {
        "tokens_per_second": ROWS * LENGTH / step,
        "step_seconds": step,
        "optimizer_seconds": optimizers,
        "first_step_extra_seconds_cold": first[0],
        "first_step_extra_seconds_warm": statistics.median(first[1:]) if len(first) > 1 else None,
        "peak_rss_mb": max(run["peak_rss_mb"] for run in runs),
        "parameters": runs[0]["parameters"],
        "first_loss": runs[0]["first_loss"],
        "rounds": [ROWS * LENGTH / statistics.median(run["seconds"][SKIPPED:]) for run in runs],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round of few steps, as a smoke test")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="steps per round (8; quick: 4)")
    parser.add_argument(
        "--sides",
        nargs="+",
        choices=OURS + TRAINERS,
        help="ours, the Trainer's in the chip's formats, ours_muon",
    )
    parser.add_argument("--worker", choices=OURS + TRAINERS, help=argparse.SUPPRESS)
    args = arguments(parser)
    steps = args.steps or (4 if args.quick else 8)
    if args.worker:
        worker(args.worker, steps)
        return
    bf16 = chip_dtype() == "bf16"
    sides = args.sides or ["ours", *(BF16 if bf16 else ()), "trainer_fp32", "ours_muon"]
    if not bf16 and (unsupported := [s for s in sides if s in BF16]):
        sys.exit(f"{', '.join(unsupported)}: this chip, as limited by --isa, has no bf16\n  use trainer_fp32")
    if any(s in TRAINERS for s in sides):
        need("transformers", "accelerate")
    results = measure(sides, 1 if args.quick else args.rounds, steps)
    speed = {s: r["tokens_per_second"] for s, r in results.items()}
    ratios = {s: speed["ours"] / speed[s] for s in sides if s in TRAINERS and "ours" in speed}
    if "ours_muon" in results:
        muon = results["ours_muon"]
        spent = sum(s for name, s in muon["optimizer_seconds"].items() if "muon" in name.lower())
        ratios["muon_share_of_a_step"] = spent / muon["step_seconds"]
    report("train_throughput", results, ratios, quick=args.quick)


if __name__ == "__main__":
    main()
