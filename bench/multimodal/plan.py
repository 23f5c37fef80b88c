"""What `onebase plan` predicts of a run, and what the run then measures: peak memory and tokens a second.

Recipes of text alone, with pictures, with sounds, and with all of them (width 384, 6 blocks, 8 rows of 256 tokens, fp32), the last also with two
micro-batches and planned by few of 12 blocks; and adaptations by all weights of a ViT and a Whisper of random weights. Each plan and each run is a
process of its own, one after the other. Goals: memory within 15%, time within 30%.

    python bench/multimodal/plan.py [--quick] [--isa avx2] [--rounds N]
"""

import argparse
import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from common import arguments, report

GOALS = {"memory": 0.15, "time": 0.30}


def recipes(files: Path, quick: bool) -> dict[str, dict[str, Any]]:
    """The recipes by name."""
    from tests.planned import KINDS, recipe

    sizes: dict[str, Any] = {"width": 128, "depth": 2, "rows": 4} if quick else {"width": 384, "depth": 6}
    found = {kind: recipe(files, kind, **sizes) for kind in KINDS}
    if not quick:
        deep = recipe(files, "all", width=512, depth=12, rows=8)
        deep["train"]["micro_batch"] = 4
        found["all_deep"] = deep
    return found


def off(predicted: float, found: float) -> float:
    """How much of what was found the prediction is off, with its sign."""
    return predicted / found - 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round of small sizes, as a smoke test")
    parser.add_argument("--rounds", type=int, default=3)
    args = arguments(parser)
    from tests import planned

    rounds = 1 if args.quick else args.rounds
    results: dict[str, dict[str, Any]] = {}
    with TemporaryDirectory() as folder:
        root = Path(folder)
        files = planned.files(root / "in")
        for kind, tree in recipes(files, args.quick).items():
            pairs = [
                [planned.said(what, tree, root / kind / str(i)) for what in ("plan", "run")]
                for i in range(rounds)
            ]
            results[kind] = compared(
                pairs, lambda plan: plan["step_seconds"], {"blocks_measured": pairs[0][0]["blocks_measured"]}
            )
            results[kind]["modalities"] = pairs[0][0]["modalities"]
        for kind in ("vit",) if args.quick else ("vit", "whisper"):
            planned.files(root / kind / "in")
            base = str(planned.base_folder(root / kind, kind))
            pairs = [
                [planned.spoken(what, kind, base) for what in ("dry-run", "adapt")] for _ in range(rounds)
            ]
            results[f"adapt_{kind}"] = compared(pairs, lambda plan: plan["seconds"]["step"], {})
    ratios = {f"{k}_{what}": v[f"{what}_off"] for k, v in results.items() for what in GOALS}
    for name, value in ratios.items():
        within = GOALS[name.rpartition("_")[2]]
        print(
            f"{name}: {value:+.1%} (goal {within:.0%}){'' if abs(value) <= within else ' MISSED'}",
            file=sys.stderr,
        )
    report("plan", {"goals": GOALS, "recipes": results}, ratios, quick=args.quick)


def compared(pairs: list[list[dict[str, Any]]], step: Any, more: dict[str, Any]) -> dict[str, Any]:
    """Medians over rounds of what was planned and what was measured."""
    peaks = [[p["peak_bytes"] for p in pair] for pair in pairs]
    seconds = [[step(plan), run["step_seconds"]] for plan, run in pairs]
    return more | {
        "peak_bytes": peaks,
        "step_seconds": seconds,
        "memory_off": statistics.median(off(*p) for p in peaks),
        "time_off": statistics.median(off(*s) for s in seconds),
    }


if __name__ == "__main__":
    main()
