"""Distil a larger base into a smaller one, without labels. Run: python examples/adapt_distil.py [BASE]"""

import random
import sys
import tempfile
from pathlib import Path

from pretrain_tiny import FOOD, sentence, tiny_base

import onebase


def labelled(n: int, seed: int) -> list[dict[str, str]]:
    """Sentences with the label food or weather."""
    rng = random.Random(seed)
    texts = [sentence(rng) for _ in range(n)]
    return [{"text": t, "label": "food" if any(w in t for w in FOOD) else "weather"} for t in texts]


folder = Path(tempfile.mkdtemp())
if len(sys.argv) > 1:
    ref = sys.argv[1]
else:
    tiny_base(folder)
    ref = str(folder / "run")
base = onebase.load(ref)

# The teacher: the base with a head on 24 labels.
base.adapt(labelled(24, seed=1), task="classify", method="head").save(folder / "sorts")

# The student: one of the base's two layers. It is trained on texts and the teacher's predictions.
student = base.student(layers=1)
print({k: student.record.get(f"student.parameters{k}") for k in ("_before", "")})
texts = [{"text": row["text"]} for row in labelled(120, seed=2)]
known = {row["text"] for row in texts}
test = [row for row in labelled(200, seed=3) if row["text"] not in known]
adapter = student.adapt(
    texts,
    task="distil",
    method="lora",
    distil={"teacher": ref, "adapter": str(folder / "sorts"), "hidden": 1.0},
    test=test,
)
for name in ("teacher_accuracy", "student_accuracy", "agreement"):
    s = adapter.record.get(f"scores.{name}")
    print(f"{name} {s['value']:.3f} (95%: {s['low']:.3f} to {s['high']:.3f}, n = {s['n']})")
print(student.with_adapter(adapter).classify(["There is snow on Friday."])[0].label)
