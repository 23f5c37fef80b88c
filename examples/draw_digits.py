"""One base that reads images and draws them: handwritten digits and their names, trained both ways in one trunk. Run: python examples/draw_digits.py

The images are those of scikit-learn (8 x 8 pixels), written as a folder of PNG files with `metadata.jsonl`. After 500 steps (about two minutes on one
core) the base names nearly all digits that it has not seen, and the nearest real digits recognise those that it draws.
Another number of steps: python examples/draw_digits.py STEPS
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

import onebase

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
OUT = Path("runs/digits.png")
steps = int(sys.argv[1]) if len(sys.argv) > 1 else 500

digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.target))
train, test = order[:1500], order[1500:]


def write(folder: Path, numbers: np.ndarray) -> list[Path]:
    """The digits as a folder that anyone could have: image files, and their names in `metadata.jsonl`."""
    folder.mkdir(parents=True)
    rows = []
    for i in numbers:
        rows.append({"file_name": f"{i}.png", "text": NAMES[digits.target[i]]})
        Image.fromarray((digits.images[i] * 15.9).astype(np.uint8)).save(folder / rows[-1]["file_name"])
    (folder / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return [folder / r["file_name"] for r in rows]


with tempfile.TemporaryDirectory() as room:
    write(Path(room, "train"), train)
    shown = write(Path(room, "test"), test)
    base = onebase.pretrain(
        {
            "name": "digits",
            "data": {"sources": [{"name": "digits", "kind": "imagefolder", "path": f"{room}/train"}]},
            "modalities": [{"kind": "image_patches", "patch": 2, "channels": 1, "bottleneck": 32}],
            "objective": {"kind": "mixed", "flow": {"generate": 0.5}},
            "model": {"width": 128, "depth": 4, "head_dim": 32, "context": 96, "vocab_size": 300},
            "train": {"steps": steps, "batch_size": 20, "sequence_length": 96},
        },
        out=f"{room}/run",
    )

    # It reads: the name of each picture that it has not seen.
    named = base.caption(shown)
    hits = sum(a == NAMES[digits.target[i]] for a, i in zip(named, test, strict=True))
    print(f"named {hits / len(test):.3f} of {len(test)} digits that it has not seen")

# It draws: four of each, which the nearest real digits judge.
judge = KNeighborsClassifier(3).fit(digits.data[train] / 16, digits.target[train])
strips, known = [], 0
for d, name in enumerate(NAMES):
    pictures = [np.asarray(p.convert("L")) for p in base.draw(name, 4, steps=20, size=(8, 8))]
    strips.append(np.concatenate(pictures, 1))
    known += int((judge.predict([p.flatten() / 255 for p in pictures]) == d).sum())
OUT.parent.mkdir(exist_ok=True)
Image.fromarray(np.concatenate(strips)).resize((4 * 64, 10 * 64), Image.Resampling.NEAREST).save(OUT)
print(f"drew 40 digits, of which the nearest real ones recognise {known}: {OUT}")
