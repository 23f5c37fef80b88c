"""Search images by a text, and classify them by class names (zero-shot), with a base of images and text. Run: python examples/find_pictures.py BASE

BASE has one embedding space for both, for example hf:openai/clip-vit-base-patch32 (docs/images_and_text.md). Nothing is trained.
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

import onebase

COLOURS = ("red", "green", "blue")
SHAPES = ("disc", "square")


def drawn(folder: Path) -> dict[Path, str]:
    """An image file for each colour and shape, with its description."""
    files = {}
    for colour in COLOURS:
        for shape in SHAPES:
            picture = Image.new("RGB", (96, 96), "white")
            draw = ImageDraw.Draw(picture)
            (draw.ellipse if shape == "disc" else draw.rectangle)((24, 24, 72, 72), fill=colour)
            file = folder / f"{colour}-{shape}.png"
            picture.save(file)
            files[file] = f"{colour} {shape}"
    return files


def main() -> None:
    """Search for each shape by its description, then classify by name."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    base = onebase.load(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        files = drawn(Path(name))
        found = {what: base.search(f"a {what}", list(files), top=1)[0] for what in files.values()}
        for what, near in found.items():
            print(f"a {what}: {near.path.name} (cosine {near.score:.3f})")
        right = sum(files[near.path] == what for what, near in found.items())
        print(f"{right} of {len(files)} found first")
        labels = base.classify_images(list(files), labels=SHAPES, template="a drawing of a {label}")
        named = sum(files[file].endswith(x.label) for file, x in zip(files, labels, strict=True))
        print(f"{named} of {len(files)} named")


if __name__ == "__main__":
    main()
