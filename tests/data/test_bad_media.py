"""Bad images and sounds in a recipe: each kind of file, by each kind of source. What is sound is learnt; what is not is named; memory is bounded."""

import io
import json
import logging
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from onebase import config as configs
from onebase.data import Dataset, media_sources
from onebase.errors import ArtifactError
from onebase.pretraining.recipe import Recipe
from onebase.pretraining.run import run_recipe
from tests import bad_media
from tests.data.test_media_tokens import png, wav

LATER = {
    "line.png": "50,000 x 1 pixels does not fit in 16 patches",
    "long.flac": "has 3 h 00 min of audio",
    "nan.wav": "has samples that are NaN",
    "none.wav": "a sound shorter than a frame",
}
"""Left out when they become tokens, because only then it is known how much a base reads, and a sound is decoded."""
AT_ONCE = {
    "truncated.png": "image file is truncated",
    "truncated.jpg": "Truncated File Read",
    "empty.png": "is empty",
    "text.png": "image",  # "neither an image nor audio" where nothing says what it should be
    "sound.png": "no known format",
    "huge.png": "2,500,000,000 pixels are too many",
    "truncated.wav": "is truncated: it has 6,378 of 12,800 bytes",
    "empty.wav": "is empty",
    "text.wav": "audio",
    "image.wav": "cannot be read as audio",
    "hertz.wav": "has a sample rate of 1 Hz",
    "announced.wav": "is truncated: it has 100 of 172,800,000 bytes",
}


def folder(root: Path) -> Path:
    """All of them, and six sound pictures between them."""
    bad_media.made(root, *bad_media.ALL)
    for i in range(6):
        (root / f"good{i}.png").write_bytes(png(i, (8 + i, 8)))
    rows = [{"file_name": p.name, "text": f"file {p.name}"} for p in sorted(root.iterdir())]
    (root / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return root


def as_folder(files: Path) -> dict[str, str]:
    return {"kind": "mediafolder", "path": str(files)}


def as_jsonl(files: Path) -> dict[str, str]:
    path = files.parent / "rows.jsonl"
    kinds = {".wav": "audio", ".flac": "audio", ".mp3": "audio"}
    parts = [
        [
            {"type": "text", "text": f"file {p.name}"},
            {"type": kinds.get(p.suffix, "image"), "path": f"{files.name}/{p.name}"},
        ]
        for p in sorted(files.iterdir())
        if p.suffix != ".jsonl"
    ]
    path.write_text("".join(json.dumps({"text": p}) + "\n" for p in parts))
    return {"kind": "jsonl", "path": str(path)}


def as_parquet(files: Path) -> dict[str, str]:
    paths = [p for p in sorted(files.iterdir()) if p.suffix != ".jsonl"]
    cells = [{"bytes": p.read_bytes(), "path": p.name} for p in paths]
    table = pa.table({"media": cells, "text": [f"file {p.name}" for p in paths]})
    pq.write_table(table, files.parent / "rows.parquet")
    return {"kind": "parquet", "path": str(files.parent / "rows.parquet"), "media_column": "media"}


def as_tar(files: Path) -> dict[str, str]:
    path = files.parent / "rows.tar"
    with tarfile.open(path, "w") as tar:
        for p in sorted(files.iterdir()):
            if p.suffix != ".jsonl":
                tar.add(p, f"{p.stem}-{p.suffix[1:]}{p.suffix}")
                info = tarfile.TarInfo(f"{p.stem}-{p.suffix[1:]}.txt")
                info.size = len(p.name)
                tar.addfile(info, io.BytesIO(p.name.encode()))
    return {"kind": "webdataset", "path": str(path)}


def recipe(source: dict[str, str], **train: Any) -> Recipe:
    tree = {
        "name": "native",
        "data": {"sources": [{"name": "s"} | source], "holdout": 0.3},
        "modalities": [
            {"kind": "image_patches", "limit": 16, "bottleneck": 8},
            {"kind": "sound_patches", "limit": 20, "bottleneck": 8},
        ],
        "objective": {"kind": "mixed", "flow": {"generate": 0.5}},
        "model": {"width": 32, "depth": 1, "head_dim": 16, "context": 64, "vocab_size": 280},
        "train": {"steps": 2, "batch_size": 4, "sequence_length": 64, "device": "cpu"} | train,
    }
    return configs.from_dict(Recipe, tree, "recipe")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("bad") / "files")


@pytest.mark.parametrize("source", [as_folder, as_jsonl, as_parquet, as_tar])
def test_what_is_bad_is_named_and_the_rest_is_learnt(
    source: Any, files: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert AT_ONCE.keys() | LATER.keys() == bad_media.IMAGES.keys() | bad_media.SOUNDS.keys()
    given = source(files)
    with caplog.at_level(logging.WARNING):
        done = run_recipe(recipe(given), tmp_path / "run")
    assert done.base is not None
    data = Dataset.open(tmp_path / "run" / "data")
    assert data.stats["s"]["bad_media_removed"] == len(AT_ONCE)
    kept = {d.text.replace("\ufffc", "") for split in ("train", "holdout") for d in data.documents(split)}
    odd = bad_media.ODD_IMAGES | bad_media.ODD_SOUNDS
    names = {f"good{i}.png" for i in range(6)} | odd.keys() | LATER.keys()
    assert {k.removeprefix("file ") for k in kept} == names
    lines = [line.strip() for r in caplog.records for line in r.getMessage().splitlines()]
    paths = [p.name for p in sorted(files.iterdir()) if p.suffix != ".jsonl"]
    for name, why in AT_ONCE.items():
        row = 1 + paths.index(name)
        where = {
            "mediafolder": name,
            "jsonl": f"rows.jsonl:{row}: ",
            "parquet": f"rows.parquet: row {row}",
            "webdataset": f"rows.tar: {name.replace('.', '-')}",
        }[given["kind"]]
        assert [line for line in lines if where in line and why in line], f"{where}: {why}"
    held = {d.id for d in data.documents("holdout")}
    for name, why in LATER.items():
        at = [f"rows.{given['kind']}#{1 + paths.index(name)} (s)", name, name.replace(".", "-")]
        told = [line for line in lines if why in line and any(a in line for a in at)]
        assert told or any(name in h or at[0].removesuffix(" (s)") == h or at[2] in h for h in held)


def test_a_source_without_a_good_file_says_so(tmp_path: Path) -> None:
    bad_media.made(tmp_path / "in", "empty.png", "truncated.jpg")
    with pytest.raises(Exception, match=r"2 documents are left out[^\0]*empty.png is empty"):
        run_recipe(recipe(as_folder(tmp_path / "in")), tmp_path / "run")
    assert not (tmp_path / "run" / "data").exists()


def test_files_above_the_limit_are_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_sources, "LONGEST", 10_000)
    files = tmp_path / "in"
    files.mkdir()
    (files / "good.png").write_bytes(png(0))
    (files / "other.png").write_bytes(png(1))
    (files / "large.wav").write_bytes(wav(16_000))
    for source in (as_folder, as_jsonl, as_parquet, as_tar):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            run_recipe(recipe(source(files)), tmp_path / source.__name__)
        assert "1 documents are left out" in caplog.text
        assert "has 32,044 bytes, at most 10,000 are read" in caplog.text


def test_what_went_bad_after_it_was_prepared(tmp_path: Path) -> None:
    """The files of the user may go: the run has their bytes. Damage of these stops it by name, and it goes on bitwise when they are back."""
    files = tmp_path / "in"
    files.mkdir()
    for i in range(12):
        (files / f"{i}.png").write_bytes(png(i))
        (files / f"{i}.wav").write_bytes(wav(2000 + 100 * i))
    asked = recipe(as_folder(files), steps=6, checkpoint={"every": 2})
    whole = run_recipe(asked, tmp_path / "whole").base

    class Damages:
        def start(self, step: int, total: int | None) -> None: ...
        def close(self) -> None: ...
        def step(self, info: Any) -> None:
            if info.step == 2:
                for path in files.iterdir():
                    path.unlink()
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_recipe(asked, tmp_path / "run", callbacks=[Damages()])
    (media,) = (tmp_path / "run" / "data").glob("media-*.parquet")
    good = media.read_bytes()
    media.write_bytes(good[:200] + bytes(len(good) - 400) + good[-200:])
    with pytest.raises(ArtifactError, match="media-00000.parquet"):
        run_recipe(asked, tmp_path / "run")
    media.write_bytes(good)
    again = run_recipe(asked, tmp_path / "run")
    assert whole is not None and again.base is not None and again.result is not None
    pairs = zip(whole.model.state_dict().items(), again.base.model.state_dict().items(), strict=True)
    assert all(torch.equal(a, b) for (_, a), (_, b) in pairs)


PEAK = """
import resource, sys
from pathlib import Path
from tests import bad_media
from onebase.data import prepare, read_source
from onebase.data.sources import SourceConfig
from onebase.errors import UserError
from tests.native import native

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

folder, base = Path(sys.argv[1]), native()
good, *rest = sorted(folder.iterdir())
base.caption([good], max_tokens=2)
first = peak()
for path in rest:
    try:
        (base.transcribe if path.suffix in (".wav", ".flac") else lambda p: base.caption([p], max_tokens=2))(path)
    except UserError as e:
        assert path.name in str(e), e
        print(path.name, "refused")
print("commands", peak() - first)
try:
    prepare(read_source(SourceConfig(name="s", kind="mediafolder", path=sys.argv[1])), folder.parent / "data")
except UserError as e:
    print(e)
print("preparation", peak() - first)
"""
COMMANDS, PREPARATION = 40, 300
"""MB above what a small picture took: for answers to bad files; and to prepare them, seven times the largest that is stored (43 MB)."""


def test_memory_is_bounded(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.png").write_bytes(png(0))
    bad_media.made(files, "huge.png", "frames.gif", "long.flac", "announced.wav", "line.png")
    bad_media.long_wav(files / "long.wav")
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(files)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    for name in ("huge.png", "long.flac", "long.wav", "announced.wav", "line.png"):
        assert f"{name} refused" in done.stdout
    found = {
        words[0]: int(words[1])
        for line in done.stdout.splitlines()
        if (words := line.split())[0] in ("commands", "preparation")
    }
    assert found["commands"] < COMMANDS and found["preparation"] < PREPARATION, found
