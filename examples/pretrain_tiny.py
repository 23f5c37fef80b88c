"""Pretrain a tiny base on made-up sentences, in seconds. Run: python examples/pretrain_tiny.py [OUT]

The other examples use this base if you give none.
"""

import json
import random
import sys
import tempfile
from pathlib import Path

import onebase
from onebase.base.config import TextShape
from onebase.data import SourceConfig
from onebase.pretraining.recipe import DataConfig, Recipe
from onebase.train.config import AdamWConfig, ScheduleConfig, TrainConfig

FOOD = ("bread", "soup", "rice", "cake", "fish", "tea")
WEATHER = ("rain", "snow", "wind", "fog", "hail", "sun")
DAYS = ("Monday", "Tuesday", "Friday", "Sunday")


def sentence(rng: random.Random) -> str:
    """One line about food or about the weather."""
    day, food, weather = rng.choice(DAYS), rng.choice(FOOD), rng.choice(WEATHER)
    return rng.choice(
        (
            f"On {day} we cook {food} and eat it.",
            f"The {food} is hot and tastes good.",
            f"On {day} there is {weather} all over the town.",
            f"The {weather} comes from the hills.",
            f"Is there {weather}? Yes, on {day}.",
            f"Who eats the {food}? We do.",
            f"It is food. We eat {food}.",
            f"It is weather. We see {weather}.",
        )
    )


def write_corpus(path: Path, documents: int = 600, seed: int = 0) -> Path:
    """Documents of five sentences each, as JSON lines."""
    rng = random.Random(seed)
    lines = (" ".join(sentence(rng) for _ in range(5)) for _ in range(documents))
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), encoding="utf-8")
    return path


def tiny_base(out: Path | None = None, steps: int = 60) -> onebase.Base:
    """A base of 0.1M parameters, pretrained in `out` (default: a temporary folder)."""
    out = out or Path(tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    corpus = write_corpus(out / "corpus.jsonl")
    recipe = Recipe(
        name="example",
        data=DataConfig(sources=(SourceConfig(name="made up", kind="jsonl", path=str(corpus)),), holdout=0.1),
        model=TextShape(width=64, depth=2, head_dim=32, context=128, vocab_size=384),
        train=TrainConfig(
            steps=steps,
            batch_size=8,
            sequence_length=128,
            adamw=AdamWConfig(embed=0.02, head=0.004, other=0.02),
            schedule=ScheduleConfig(warmup=5, warmdown=0.6, final=0.02),
            device="cpu",
        ),
    )
    return onebase.pretrain(recipe, out=out / "run")


def given_or_made() -> onebase.Base:
    """The base named on the command line, or a tiny one trained now."""
    return onebase.load(sys.argv[1]) if len(sys.argv) > 1 else tiny_base()


if __name__ == "__main__":
    base = tiny_base(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    print(base)
    print("held-out bits per byte:", base.record.get("scores.heldout_bits_per_byte.made up"))
    print("On Monday" + base.generate("On Monday", max_tokens=24))
