"""Train a base on pictures without labels by hiding most of each, then give it a head with few labels. Run: python examples/masked_digits.py

It takes about three minutes on one core: handwritten digits of 8 x 8 pixels (scikit-learn), 100 of them labelled. The untrained twin of the base gets the
same head. Another number of steps: python examples/masked_digits.py STEPS
"""

import json
import shutil
import sys
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

import onebase

OUT = Path("runs/masked-digits")
LABELS = 100


def main() -> None:
    """Write the pictures, train, and compare two heads."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    shutil.rmtree(OUT, ignore_errors=True)
    digits = load_digits()
    for folder, first, last in (("train", 0, 1400), ("test", 1400, len(digits.images))):
        (OUT / folder).mkdir(parents=True)
        rows = []
        for i in range(first, last):
            picture = Image.fromarray((digits.images[i] * 255 / 16).astype("uint8"))
            picture.save(OUT / folder / f"{i}.png")
            rows.append(json.dumps({"image": f"{i}.png", "label": str(digits.target[i])}))
        if folder == "train":
            rows = rows[:LABELS]
        (OUT / folder / "rows.jsonl").write_text("\n".join(rows))

    recipe = {
        "name": "masked-digits",
        "data": {"sources": [{"name": "digits", "kind": "imagefolder", "path": str(OUT / "train")}]},
        "modalities": [{"kind": "image_patches", "patch": 2, "channels": 1, "bottleneck": 4, "limit": 16}],
        "objective": {"kind": "masked_patches", "rate": 0.75, "width": 64, "depth": 1},
        "model": {"width": 96, "depth": 3, "head_dim": 32, "context": 128, "vocab_size": 300},
        "train": {"steps": 1, "batch_size": 32, "sequence_length": 128},  # five pictures in a row
    }
    for name, count in (("untrained", 1), ("trained", steps)):
        base = onebase.pretrain(recipe, out=OUT / name, train__steps=count)
        head = base.adapt(OUT / "train" / "rows.jsonl", task="classify", method="head")
        score = onebase.evaluate(base.with_adapter(head), OUT / "test" / "rows.jsonl")["accuracy"]
        print(f"{name} ({count} steps), a head of {LABELS} labels: accuracy {score.value:.3f}")


if __name__ == "__main__":
    main()
