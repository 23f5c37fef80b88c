"""Drawn pictures with names and keywords, from packages: npm openmoji, Debian openclipart-png with the titles of openclipart-svg, and
tuxpaint-stamps-default.

`write` makes small PNG files of them and JSON lines with two captions for each picture (its name; its name and keywords). Names
are held out whole: no picture of a held-out name, and no copy of such a picture under another name, is in the training data.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

SIDE = 64
"""Pixels of a written picture, padded to a square with white."""
TEST = 0.12
"""Share of the names that are held out."""
TAGS = 8
"""Keywords of a caption, at most."""
CAPTIONS = "captions.jsonl"
DC, RDF = "{http://purl.org/dc/elements/1.1/}", "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


@dataclass(frozen=True)
class Named:
    """A picture, an SVG or PNG file, with its name and keywords."""

    path: Path
    name: str
    tags: tuple[str, ...]
    source: str

    @property
    def caption(self) -> str:
        """Name and keywords."""
        return ", ".join((self.name, *self.tags[:TAGS]))


def words(text: str) -> str:
    """Lower-case words, without numbers at the end, which count pictures of one name."""
    found = re.sub(r"[\W_]+", " ", text.lower()).strip()
    return re.sub(r"( \d+)+$", "", found)


def listed(text: str, name: str) -> tuple[str, ...]:
    """Keywords of a list, each once, without the name."""
    return tuple(t for t in dict.fromkeys(words(t) for t in text.split(",")) if t and t != name)


def openmoji(root: Path) -> Iterator[Named]:
    """One picture for each emoji, without variants of skin."""
    table = next(root.rglob("openmoji/data/openmoji.csv"), None) or next(root.rglob("data/openmoji.csv"))
    with table.open(encoding="utf-8") as f:
        for row in csv.DictReader(f):
            path = table.parents[1] / "color" / "svg" / f"{row['hexcode']}.svg"
            if row["skintone"] == "" and path.is_file():
                name = words(row["annotation"])
                tags = f"{row['tags']},{row['openmoji_tags']},{row['subgroups']}"
                yield Named(path, name, listed(tags, name), "openmoji")


def openclipart(root: Path) -> Iterator[Named]:
    """PNG files, with title and subjects of the SVG of the same place."""
    pictures = next(root.rglob("openclipart/png"))
    for svg in sorted(next(root.rglob("openclipart/svg")).rglob("*.svg")):
        inside = svg.relative_to(next(p for p in svg.parents if p.name == "svg"))
        path = pictures / inside.with_suffix(".png")
        try:
            tree = ElementTree.parse(svg)
        except ElementTree.ParseError:
            continue
        title = next((t.text for t in tree.iter(f"{DC}title") if t.text), "") or ""
        subject = tree.find(f".//{DC}subject")
        kept = [] if subject is None else [x.text or "" for x in subject.iter(f"{RDF}li")]
        name = words(title)
        if path.is_file() and name and not re.fullmatch(r"untitled|icon|\d*", name):
            yield Named(path, name, listed(",".join([*kept, *inside.parts[-2:-1]]), name), "openclipart")


def tuxpaint(root: Path) -> Iterator[Named]:
    """Stamps and their English captions; the folder's names are keywords."""
    stamps = next(root.rglob("tuxpaint/stamps"))
    for told in sorted(stamps.rglob("*.txt")):
        path = next((p for s in (".png", ".svg") if (p := told.with_suffix(s)).is_file()), None)
        lines = told.read_text(encoding="utf-8", errors="replace").splitlines()
        name = words(lines[0]) if lines else ""
        if path is not None and name:
            yield Named(
                path, name, listed(",".join(told.relative_to(stamps).parts[:-1][::-1]), name), "tuxpaint"
            )


def small(path: Path) -> Any:
    """The picture on white in a square of SIDE pixels; None where it cannot be read."""
    import resvg_py
    from PIL import Image

    try:
        data = path.read_bytes()
        if path.suffix == ".svg":
            data = resvg_py.svg_to_bytes(svg_string=data.decode("utf-8"), width=2 * SIDE)
        found = Image.open(io.BytesIO(bytes(data))).convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    white = Image.new("RGBA", found.size, (255, 255, 255, 255))
    plain = Image.alpha_composite(white, found).convert("RGB")
    plain.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    square.paste(plain, ((SIDE - plain.width) // 2, (SIDE - plain.height) // 2))
    return square


def is_test(name: str) -> bool:
    """Whether a name is held out: by its hash."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) < TEST * 2**32


def write(root: Path, out: Path, most: int | None = None) -> dict[str, int]:
    """Write CAPTIONS, a source of kind jsonl, and `test.jsonl` with the held-out pictures; `train.jsonl` has one row of each training picture. root:
    the folder of the unpacked packages. Returns counts."""
    found = [*openmoji(root), *openclipart(root), *tuxpaint(root)]
    found = found[:: max(1, len(found) // most)] if most else found
    (out / "train").mkdir(parents=True)
    (out / "test").mkdir()
    rows: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    seen: dict[bytes, str] = {}
    for one in sorted(
        found, key=lambda n: not is_test(n.name)
    ):  # held-out ones first: their copies are then dropped
        picture = small(one.path)
        if picture is None or (digest := hashlib.sha256(picture.tobytes()).digest()) in seen:
            continue
        seen[digest] = one.name
        side = "test" if is_test(one.name) else "train"
        name = f"{side}/{len(seen)}.png"
        picture.save(out / name)
        rows[side].append({"file_name": name, "name": one.name, "caption": one.caption, "source": one.source})
    with (out / CAPTIONS).open("w", encoding="utf-8") as f:
        for row in rows["train"]:
            for text in dict.fromkeys((row["name"], row["caption"])):
                parts = [{"type": "image", "path": row["file_name"]}, {"type": "text", "text": text}]
                f.write(json.dumps({"text": parts}) + "\n")
    for side, mine in rows.items():
        (out / f"{side}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in mine), encoding="utf-8")
    return {side: len(mine) for side, mine in rows.items()} | {
        "test_names": len({r["name"] for r in rows["test"]}),
        "found": len(found),
    }
