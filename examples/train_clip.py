"""Train a picture tower and a text tower from nothing, as CLIP is trained, then search pictures by a text. Run: python examples/train_clip.py [STEPS]

The pictures are drawn: two squares side by side, with a caption for what is left and right. After 300 steps (half a minute on one core) most new
pictures find their caption. Four captions never occur in training, though all their words do: so small a base does not put known words together anew,
which the second number shows.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import onebase

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 40), "blue": (40, 60, 220), "black": (20, 20, 20)}
CAPTIONS = [f"a {a} square and a {b} square" for a in COLOURS for b in COLOURS]
NEVER = [CAPTIONS[4 * i + (i + 1) % 4] for i in range(4)]
steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300
draw = np.random.default_rng(0)


def picture(caption: str, path: Path) -> Path:
    """Two squares of the caption's colours, left and right, of any size."""
    image = Image.new("RGB", (32, 32), "white")
    for left, colour in zip((1, 17), caption.replace("a ", "").split(" square and "), strict=True):
        side = int(draw.integers(7, 13))
        x, y = left + int(draw.integers(0, 14 - side)), int(draw.integers(2, 30 - side))
        ImageDraw.Draw(image).rectangle((x, y, x + side, y + side), COLOURS[colour.removesuffix(" square")])
    image.save(path)
    return path


with tempfile.TemporaryDirectory() as room:
    folder = Path(room, "pictures")
    folder.mkdir()
    known = [c for c in CAPTIONS if c not in NEVER]
    rows = []
    for i in range(480):
        rows.append({"file_name": f"{i}.png", "text": known[i % len(known)]})
        picture(rows[-1]["text"], folder / rows[-1]["file_name"])
    (folder / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    base = onebase.pretrain(
        {
            "name": "squares",
            "data": {"sources": [{"name": "squares", "kind": "imagefolder", "path": str(folder)}]},
            "objective": {"kind": "contrastive", "loss": "softmax", "width": 64},
            "image": {"size": 32, "patch": 8, "width": 64, "depth": 2, "head_dim": 32},
            "model": {"width": 64, "depth": 2, "head_dim": 32, "context": 32, "vocab_size": 300},
            "train": {"steps": steps, "batch_size": 32, "sequence_length": 32},
        },
        out=f"{room}/run",
    )

    for what, captions in (
        ("captions that it has learnt", known),
        ("captions that it has never read", NEVER),
    ):
        new = [(c, picture(c, Path(room, f"{c}-{i}.png"))) for c in captions for i in range(5)]
        found = base.classify_images([path for _, path in new], CAPTIONS, template="{label}")
        hits = sum(label.label == caption for label, (caption, _) in zip(found, new, strict=True))
        print(f"{hits} of {len(new)} new pictures find their caption among {len(CAPTIONS)}: {what}")

    shown = [picture(c, Path(room, f"{i}.png")) for i, c in enumerate(CAPTIONS)]
    near = base.search("a blue square and a red square", shown, top=1)[0]
    print("nearest to 'a blue square and a red square':", CAPTIONS[int(near.path.stem)])
