"""Train a base to cut an object out of a picture after one click, on shapes drawn here. Run: python examples/segment_shapes.py

After 300 steps (about a minute on one core) it is asked for a kind of shape that it has never seen. Another number of steps:
python examples/segment_shapes.py STEPS
"""

import math
import random
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from onebase.api.base import Base
from onebase.base.config import image_base
from onebase.base.folder import LoadedBase
from onebase.base.head import HeadConfig, OwnHead
from onebase.base.masks import MaskHead
from onebase.base.model import BaseModel
from onebase.data.order import ExampleOrder, one_by_one
from onebase.modality.text.sample import Tokens
from onebase.objective.segment import MaskExample, Segmentation
from onebase.train.config import TrainConfig
from onebase.train.loop import Job, run

OUT = Path("runs/segmented.png")
SIDE, PATCH, WIDTH, BATCH = 64, 8, 64, 32


def composed(seed: str, corners: tuple[int, ...]) -> MaskExample:
    """Three shapes on a background, and the mask of one of them: `corners` of each, 0 for a disc."""
    rng = random.Random(seed)

    def colour() -> tuple[int, ...]:
        return tuple(rng.randrange(256) for _ in range(3))

    picture, owner = Image.new("RGB", (SIDE, SIDE), colour()), Image.new("L", (SIDE, SIDE))
    for i in range(1, 4):
        size, turn, n = rng.randint(9, 16), rng.uniform(0, math.tau), rng.choice(corners) or 40
        x, y = rng.randint(size, SIDE - size), rng.randint(size, SIDE - size)
        edge = [
            (x + size * math.cos(turn + math.tau * k / n), y + size * math.sin(turn + math.tau * k / n))
            for k in range(n)
        ]
        ImageDraw.Draw(picture).polygon(edge, fill=colour())
        ImageDraw.Draw(owner).polygon(edge, fill=i)
    return MaskExample(picture, np.asarray(owner) == 3)  # the last one hides nothing of itself


def main() -> None:
    """Train, click on 40 new shapes, and save some masks."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    model = BaseModel(image_base(SIDE, PATCH, width=WIDTH, depth=3, head_dim=32))
    model.reset(0)
    model.heads["segment"] = head = MaskHead(WIDTH, PATCH**2)
    vectors = model.cfg.image.patches
    nothing = np.zeros(vectors, np.int32), np.zeros(vectors, np.bool_)
    rows = [Tokens(*nothing, str(i), "shapes") for i in range(steps * BATCH)]
    objective = Segmentation("segment", lambda name: composed(name, (3, 4, 0)), model.cfg.image)
    train = TrainConfig(steps=steps, batch_size=BATCH, sequence_length=vectors, micro_batch=BATCH)
    result = run(Job(model, objective, ExampleOrder(one_by_one(rows), BATCH), train))
    print(f"trained {steps} steps: loss {result.losses[0]:.2f} to {np.mean(result.losses[-10:]):.2f}")

    # The head belongs to the base: save and load keep it, and no adapter is needed.
    own = OwnHead("segment", HeadConfig(reads="image", gives="masks", patch=PATCH), head.tensors)
    del model.heads["segment"]
    base = Base.opened(LoadedBase(model.eval(), None, head=own))
    overlaps, strips = [], []
    for i in range(40):
        example = composed(f"test {i}", (5,))  # pentagons alone
        ys, xs = np.nonzero(example.mask)
        click = int(xs[len(xs) // 2]), int(ys[len(ys) // 2])
        found = base.segment(example.picture, points=[click]).masks[0]
        overlaps.append((found & example.mask).sum() / (found | example.mask).sum())
        cut = np.asarray(example.picture) * found[..., None].astype(np.uint8)
        strips.append(np.concatenate((np.asarray(example.picture), cut), 1))
    OUT.parent.mkdir(exist_ok=True)
    Image.fromarray(np.concatenate(strips[:6])).save(OUT)
    print(
        f"mean IoU after one click on 40 pentagons, which it has never seen: {np.mean(overlaps):.3f} ({OUT})"
    )


if __name__ == "__main__":
    main()
