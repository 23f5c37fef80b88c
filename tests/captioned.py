"""Drawn shapes with captions, as a folder that anyone could have; and a recipe that learns them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 40), "blue": (40, 60, 220), "yellow": (230, 210, 40)}
SHAPES = ("bar", "square")


def shapes(folder: Path, count: int, seed: int = 0) -> list[dict[str, str]]:
    """Files of coloured shapes on white, and `metadata.jsonl` with their captions; its rows."""
    from PIL import Image, ImageDraw

    folder.mkdir(parents=True, exist_ok=True)
    rng, rows = np.random.default_rng(seed), []
    for i in range(count):
        colour, shape = list(COLOURS)[i % 4], SHAPES[i // 4 % 2]
        picture = Image.new("RGB", (24, 24), "white")
        x, y, wide = rng.integers((1, 1, 12), (6, 6, 17)).tolist()
        draw = ImageDraw.Draw(picture)
        high = 4 if shape == "bar" else wide
        draw.rectangle((x, y, x + wide, y + high), COLOURS[colour])
        picture.save(folder / f"{i}.png")
        rows.append({"file_name": f"{i}.png", "text": f"a {colour} {shape}"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return rows


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """A recipe for the pictures of a folder that takes seconds; changes: of its keys at the top."""
    return {
        "name": "shapes",
        "data": {"sources": [{"name": "shapes", "kind": "imagefolder", "path": str(folder)}], "holdout": 0.2},
        "objective": {"kind": "contrastive", "width": 32},
        "image": {"size": 24, "patch": 6, "width": 48, "depth": 2, "head_dim": 16},
        "model": {"width": 32, "depth": 1, "head_dim": 16, "context": 16, "vocab_size": 300},
        "train": {
            "steps": 50,
            "batch_size": 16,
            "sequence_length": 16,
            "device": "cpu",
            "dtype": "fp32",
            "eval_every": 25,
            "checkpoint": {"every": 10},
            "schedule": {"warmup": 2},
        },
    } | changes
