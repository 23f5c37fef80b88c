"""Train a classifier with two labels, by a head, and evaluate it. Run: python examples/adapt_classify.py [BASE]"""

import random

from pretrain_tiny import FOOD, WEATHER, given_or_made, sentence

import onebase


def labelled(n: int, seed: int) -> list[dict[str, str]]:
    """Sentences with the label food or weather."""
    rng = random.Random(seed)
    rows = []
    while len(rows) < n:
        text = sentence(rng)
        label = "food" if any(word in text for word in FOOD) else "weather"
        assert label == "food" or any(word in text for word in WEATHER)
        rows.append({"text": text, "label": label})
    return rows


if __name__ == "__main__":
    base = given_or_made()
    # The head is fitted exactly (logistic regression on the base's hidden states); the base is not changed.
    adapter = base.adapt(labelled(24, seed=1), task="classify", method="head")
    print(f"the adapter has {adapter.bytes} bytes and belongs to {base.fingerprint[:16]}...")

    sorting = base.with_adapter(adapter)
    for found in sorting.classify(["There is snow on Friday.", "We eat cake."]):
        print(found.label, {label: round(p, 3) for label, p in found.scores.items()})

    for name, score in onebase.evaluate(sorting, labelled(60, seed=2)).items():
        print(f"{name} {score.value:.3f} (95%: {score.low:.3f} to {score.high:.3f}, n = {score.n})")
