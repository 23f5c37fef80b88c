"""Save prompts with variables and few-shot examples as adapters, and use them. Run: python examples/saved_prompt.py [BASE]"""

import random
import tempfile
from pathlib import Path

from pretrain_tiny import FOOD, given_or_made, sentence

import onebase


def labelled(n: int, seed: int) -> list[dict[str, str]]:
    """Sentences with the label food or weather."""
    rng = random.Random(seed)
    texts = [sentence(rng) for _ in range(n)]
    return [{"text": t, "label": "food" if any(f in t for f in FOOD) else "weather"} for t in texts]


base = given_or_made()

# A text with variables. Nothing is trained; the folder holds the text, the base's hashes and a record.
adapter = base.adapt([], task="complete", method="prompt", prompt="On {day} we cook {text}")
folder = adapter.save(Path(tempfile.mkdtemp()) / "cook")
cook = base.with_adapter(folder)
day = {"day": "Friday"}
print(cook.prompted("soup", day).read, "->", cook.generate("soup", variables=day, max_tokens=8))

# Few-shot examples: for each question the two nearest by the base's own embeddings, the nearest last.
rows = labelled(24, seed=1)
sorts = base.with_adapter(
    base.adapt(
        rows,
        task="classify",
        method="prompt",
        prompt="{text} It is",
        answers={"food": " food", "weather": " weather"},
        shots={"n": 2},
    )
)
for found in sorts.classify(["There is snow on Friday.", "We eat cake."]):
    print(found.label, {label: round(p, 3) for label, p in found.scores.items()})
print("accuracy", onebase.evaluate(sorts, labelled(30, seed=2))["accuracy"].value)
