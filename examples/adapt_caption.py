"""Teach a base that takes images in its text what your pictures show, by LoRA. Run: python examples/adapt_caption.py REF

REF is a LLaVA, Idefics3 or Gemma 3 (docs/images_and_text.md), or a base of your own with images in its trunk (docs/native.md). The pictures are drawn here: squares
and discs of two colours. With pictures and texts of your own nothing else changes.
"""

import json
import random
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

import onebase

COLOURS = {"red": (210, 40, 40), "blue": (40, 60, 200)}


def rows(folder: Path, count: int, seed: int) -> Path:
    """`count` pictures of each kind, and a file of rows that says what they show."""
    folder.mkdir()
    rng, lines = random.Random(seed), []
    for i in range(count):
        for colour, ink in COLOURS.items():
            for shape in ("square", "disc"):
                picture = Image.new("RGB", (16, 16), (235, 235, rng.randrange(200, 256)))
                x, y = rng.randrange(4), rng.randrange(4)
                brush = ImageDraw.Draw(picture)
                (brush.rectangle if shape == "square" else brush.ellipse)((x, y, x + 11, y + 11), fill=ink)
                name = f"{colour}-{shape}-{i}.png"
                picture.save(folder / name)
                lines.append(json.dumps({"image": name, "text": f"a {colour} {shape}"}) + "\n")
    (folder / "rows.jsonl").write_text("".join(lines))
    return folder / "rows.jsonl"


def main(ref: str) -> None:
    base = onebase.load(ref)
    with tempfile.TemporaryDirectory() as room:
        train, test = rows(Path(room, "train"), 8, 0), rows(Path(room, "test"), 3, 1)
        adapter = base.adapt(train, task="caption", method="lora", epochs=15, batch_size=4, lr=5e-3)
        sees = base.with_adapter(adapter)
        found = onebase.evaluate(sees, test, max_tokens=12, scores=["exact_match", "nats_per_token"])
        print("with the adapter:", ", ".join(str(s) for s in found.values()))
        print(
            "a new picture shows:", sees.apply([{"image": str(test.parent / "blue-disc-0.png")}])[0]["text"]
        )


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1])
