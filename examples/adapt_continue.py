"""Continued pretraining on a new domain, without forgetting the old one. Run: python examples/adapt_continue.py [BASE]

General text is replayed beside the new text. The record shows how much the scores on general text changed.
"""

import random
import tempfile
from pathlib import Path

from pretrain_tiny import given_or_made, write_corpus

STARS = ("Mars", "Venus", "Saturn", "Pluto")
rng = random.Random(0)
lines = list(
    dict.fromkeys(
        f"Planet {s} has {n} moons and a ring of {rng.choice(STARS)} dust." for n in range(30) for s in STARS
    )
)
rows = [{"text": line} for line in lines]
rng.shuffle(rows)

folder = Path(tempfile.mkdtemp())
general = write_corpus(folder / "general.jsonl", documents=100, seed=7)
held_out = write_corpus(folder / "held_out.jsonl", documents=20, seed=8)

base = given_or_made()
adapter = base.adapt(
    rows[:100],
    task="continue",
    method="lora",
    epochs=5,
    lr=5e-3,
    replay={"data": str(general), "share": 0.3, "test": str(held_out)},
    test=rows[100:],
)
record = adapter.record
for name in ("domain_bits_per_byte_before", "domain_bits_per_byte", "forgetting"):
    s = record.get(f"scores.{name}")
    print(f"{name} {s['value']:.3f} (95%: {s['low']:.3f} to {s['high']:.3f})")
print("tokens read:", record.get("tokens.by_source"))
print(base.with_adapter(adapter).generate("Planet Mars", max_tokens=16))
