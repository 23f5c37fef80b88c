"""Pictures made of captions alone: coloured shapes, by recipes/flow.yaml. Run: python examples/draw_shapes.py

The recipe's pictures (recipes/shapes.parquet) show 24 of 25 pairs of colour and shape; no picture is a blue ring. After the recipe's 300 steps (about
two minutes on one core) 98 of 100 drawn pictures are what was asked for: the pixels judge the colour, and the nearest real pictures the shape.
Another number of steps: python examples/draw_shapes.py STEPS
The pictures anew, into a file: python examples/draw_shapes.py --pictures FILE.parquet
"""

import io
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw
from sklearn.neighbors import KNeighborsClassifier

import onebase

ROOT = Path(__file__).parents[1]
OUT = Path("runs/shapes.png")
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 220),
    "yellow": (235, 200, 30),
    "black": (20, 20, 20),
}
SHAPES = ("square", "disc", "triangle", "cross", "ring")
UNSEEN = ("blue", "ring")
SIDE, FINE = 16, 8
"""Pixels of a side, and the factor by which a picture is drawn larger, for smooth edges."""


def picture(colour: str, shape: str, draws: np.random.Generator) -> Image.Image:
    """A shape of any size at any place, on white."""
    size = int(draws.integers(9, 14))
    x, y = (int(draws.integers(1, SIDE - size)) for _ in range(2))
    canvas = Image.new("RGB", (SIDE * FINE, SIDE * FINE), "white")
    pen, fill = ImageDraw.Draw(canvas), COLOURS[colour]
    a, b, c, d = x * FINE, y * FINE, (x + size) * FINE, (y + size) * FINE
    third = size * FINE // 3
    if shape == "square":
        pen.rectangle((a, b, c, d), fill)
    elif shape == "disc":
        pen.ellipse((a, b, c, d), fill)
    elif shape == "ring":
        pen.ellipse((a, b, c, d), outline=fill, width=third * 2 // 3)
    elif shape == "triangle":
        pen.polygon(((a + c) // 2, b, c, d, a, d), fill)
    else:
        pen.rectangle((a + third, b, c - third, d), fill)
        pen.rectangle((a, b + third, c, d - third), fill)
    return canvas.resize((SIDE, SIDE), Image.Resampling.BOX)


def pictures(number: int, seed: int) -> list[tuple[str, Image.Image]]:
    """Captions and pictures, of every pair but the unseen one in turn."""
    draws = np.random.default_rng(seed)
    pairs = [(c, s) for c in COLOURS for s in SHAPES if (c, s) != UNSEEN]
    chosen = [pairs[i % len(pairs)] for i in range(number)]
    return [(f"{c} {s}", picture(c, s, draws)) for c, s in chosen]


def write(file: Path) -> None:
    """The recipe's pictures, as Hugging Face datasets writes images."""
    rows = []
    for text, image in pictures(960, 0):
        out = io.BytesIO()
        image.quantize(32).save(out, "PNG", optimize=True)
        rows.append({"image": {"bytes": out.getvalue(), "path": None}, "text": text})
    pq.write_table(pa.Table.from_pylist(rows), file, compression="zstd")


def darkness(images: list[Image.Image]) -> np.ndarray:
    """What a shape is known by, whatever its colour: how far each pixel is from white, at most 1."""
    values = np.stack([np.asarray(i.convert("RGB"), np.float32) for i in images])
    far = np.abs(values - 255).max(-1)
    return (far / np.maximum(far.max((1, 2), keepdims=True), 1)).reshape(len(images), -1)


def colour_of(image: Image.Image) -> str:
    """The colour that is nearest to that of the quarter of the pixels that are farthest from white."""
    pixels = np.asarray(image.convert("RGB"), np.float32).reshape(-1, 3)
    inside = pixels[np.argsort(np.abs(pixels - 255).max(-1))[-len(pixels) // 8 :]].mean(0)
    return min(COLOURS, key=lambda c: float(np.square(inside - COLOURS[c]).sum()))


def main(steps: int | None) -> None:
    more = {} if steps is None else {"train__steps": steps}
    with tempfile.TemporaryDirectory() as room:
        scored(onebase.pretrain(ROOT / "recipes" / "flow.yaml", out=Path(room, "run"), **more))


def scored(base: onebase.Base) -> None:
    """Draw each pair of colour and shape four times, and say how many of them are what was asked for."""
    real = pictures(2400, 1)
    judge = KNeighborsClassifier(3).fit(
        darkness([image for _, image in real]), [text.split()[1] for text, _ in real]
    )
    rows, hits = [], dict.fromkeys(("colour", "shape", "both", "unseen"), 0)
    for colour in COLOURS:
        row = []
        for shape in SHAPES:
            drawn = base.draw(f"{colour} {shape}", 4, steps=20, guidance=2.0, size=(SIDE, SIDE))
            shapes = judge.predict(darkness(drawn))
            for image, found in zip(drawn, shapes, strict=True):
                right = colour_of(image) == colour, bool(found == shape)
                for name, one in zip(("colour", "shape", "both"), (*right, all(right)), strict=True):
                    hits[name] += one
                hits["unseen"] += all(right) and (colour, shape) == UNSEEN
            row += [np.asarray(image) for image in drawn]
        rows.append(np.concatenate(row, 1))
    OUT.parent.mkdir(exist_ok=True)
    grid = np.concatenate(rows)
    Image.fromarray(grid).resize((grid.shape[1] * 3, grid.shape[0] * 3), Image.Resampling.NEAREST).save(OUT)
    print(
        f"of 100 pictures drawn {hits['colour']} have the colour, {hits['shape']} the shape, {hits['both']} both"
    )
    print(f"of 4 blue rings, which no picture showed, {hits['unseen']} have both: {OUT}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--pictures"]:
        write(Path(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else None)
