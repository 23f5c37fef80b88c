"""Teach a base that draws a new style of picture from 20 of them, by LoRA. Run: python examples/adapt_style.py [STEPS [EPOCHS]]

The base learns handwritten digits (scikit-learn, 8 x 8 pixels) in any two colours, and their names: 600 steps, about three minutes on one core. The style
is gold ink on blue. The 20 pictures show zero to four alone; five to nine are then drawn in a style in which nobody has shown them.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import onebase

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
INK, PAPER = np.array([255, 200, 40]), np.array([20, 40, 130])
OUT = Path("runs/style.png")
steps, epochs = (int(a) for a in [*sys.argv[1:], *["600", "60"][len(sys.argv) - 1 :]])

digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.target))
train, test = order[:1400], order[1400:]


def write(folder: Path, numbers: np.ndarray, gold: bool) -> Path:
    """Pictures, and rows of their names; `metadata.jsonl` is what pretraining reads, `rows.jsonl` what adapting reads."""
    folder.mkdir(parents=True)
    rows = []
    for i in numbers:
        ink = digits.images[i][..., None] / 16
        colour, paper = (INK, PAPER) if gold else np.random.default_rng(i).integers(0, 256, (2, 3))
        pixels = ink * colour + (1 - ink) * paper
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
        rows.append({"image": f"{i}.png", "text": NAMES[digits.target[i]]})
    named = [{"file_name": r["image"], "text": r["text"]} for r in rows]
    for name, some in (("metadata.jsonl", named), ("rows.jsonl", rows)):
        (folder / name).write_text("".join(json.dumps(r) + "\n" for r in some))
    return folder / "rows.jsonl"


def each(numbers: np.ndarray, names: range, count: int) -> np.ndarray:
    """The first `count` pictures of each digit."""
    return np.concatenate([[i for i in numbers if digits.target[i] == d][:count] for d in names])


with tempfile.TemporaryDirectory() as room:
    write(Path(room, "plain"), train, gold=False)
    shown = write(Path(room, "shown"), each(train, range(5), 4), gold=True)
    seen = write(Path(room, "seen"), each(test, range(5), 10), gold=True)
    unseen = write(Path(room, "unseen"), each(test, range(5, 10), 10), gold=True)
    base = onebase.pretrain(
        {
            "name": "digits",
            "data": {"sources": [{"name": "digits", "kind": "imagefolder", "path": f"{room}/plain"}]},
            "modalities": [{"kind": "image_patches", "patch": 2, "bottleneck": 32}],
            "objective": {"kind": "mixed", "flow": {"generate": 0.8}},
            "model": {"width": 128, "depth": 4, "head_dim": 32, "context": 96, "vocab_size": 300},
            "train": {"steps": steps, "batch_size": 20, "sequence_length": 96},
        },
        out=f"{room}/run",
    )
    adapter = base.adapt(shown, task="draw", method="lora", epochs=epochs, batch_size=5, lr=3e-3)
    golden = base.with_adapter(adapter)
    print(f"learnt a style from 20 pictures: {adapter.record.get('parameters'):,} numbers")
    for what, rows in (("zero to four", seen), ("five to nine, never shown in it", unseen)):
        for name, one in (("base", base), ("adapter", golden)):
            scores = onebase.evaluate(one, rows, task="draw")
            print(f"{what}, {name}: " + ", ".join(f"{k} {s.value:.3f}" for k, s in scores.items()))

strips = []
for one in (base, golden):
    pictures = [np.asarray(one.draw(name, 1, size=(8, 8))[0]) for name in NAMES]
    strips.append(np.concatenate(pictures, 1))
OUT.parent.mkdir(exist_ok=True)
Image.fromarray(np.concatenate(strips)).resize((640, 128), Image.Resampling.NEAREST).save(OUT)
print(f"ten digits by the base, and below them with the style: {OUT}")
