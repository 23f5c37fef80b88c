"""Train an image classifier: a head on a base with images, from a few labels of shapes drawn here. Run: python examples/classify_images.py BASE

BASE is any base with images, for example hf:facebook/dinov2-small (docs/images.md).
"""

import random
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

import onebase

SHAPES = {"disc": 0, "triangle": 3, "square": 4}  # name, number of corners


def drawn(folder: Path, n: int, seed: int) -> list[dict[str, str]]:
    """Files of `n` shapes with random position, size and colour, as rows with image and label."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        label = rng.choice(list(SHAPES))
        picture = Image.new("RGB", (96, 96), "white")
        draw, size = ImageDraw.Draw(picture), rng.randint(16, 36)
        at = (rng.randint(size, 96 - size), rng.randint(size, 96 - size), size)
        colour = tuple(rng.randint(0, 160) for _ in range(3))
        if corners := SHAPES[label]:
            draw.regular_polygon(at, corners, fill=colour)
        else:
            draw.circle(at[:2], size, fill=colour)
        file = folder / f"{seed}-{i}.png"
        picture.save(file)
        rows.append({"image": str(file), "label": label})
    return rows


def main() -> None:
    """Train on 60 shapes, and evaluate on 60 others."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    base = onebase.load(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        train, test = drawn(Path(name), 60, seed=1), drawn(Path(name), 60, seed=2)
        adapter = base.adapt(train, task="classify", method="head")  # the base is not changed
        seeing = base.with_adapter(adapter)
        (found,) = seeing.classify_images([test[0]["image"]])
        print(f"a {test[0]['label']}:", {label: round(p, 3) for label, p in found.scores.items()})
        score = onebase.evaluate(seeing, test)["accuracy"]
    print(f"accuracy {score.value:.3f} (95%: {score.low:.3f} to {score.high:.3f}, n = {score.n})")


if __name__ == "__main__":
    main()
