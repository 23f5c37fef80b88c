"""Documents with images and audio: from the folders, tar and Parquet files that people have to a dataset and back, and what is bad in them."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from onebase.artifact.files import verify
from onebase.data import Dataset, Document, prepare, read_source
from onebase.data.sources import MARK, MediaFile, SourceConfig
from onebase.data.tokens import TokenSet
from onebase.errors import ArtifactError, ConfigError, DataError
from onebase.modality.patches.sounds import write_wav
from onebase.modality.text.tokenizer import Tokenizer


def png(seed: int, size: tuple[int, int] = (12, 8)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def wav(folder: Path, seed: int) -> bytes:
    import torch

    write_wav(
        folder / "made.wav", torch.rand(4000, generator=torch.Generator().manual_seed(seed)) - 0.5, 8000
    )
    return (folder / "made.wav").read_bytes()


def source(path: Path, kind: str, **more: Any) -> SourceConfig:
    return SourceConfig(name="s", kind=kind, path=str(path), licence="CC0-1.0", **more)  # type: ignore[arg-type]


def image_folder(root: Path) -> Path:
    (root / "sub").mkdir(parents=True)
    for name, seed in (("a.png", 0), ("sub/b.png", 1), ("c.PNG", 2)):
        (root / name).write_bytes(png(seed))
    (root / ".hidden.png").write_bytes(png(9))
    rows = [
        {"file_name": "a.png", "text": "the first", "split": "train"},
        {"file_name": "sub/b.png", "text": "the second", "split": "test"},
    ]
    (root / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return root


def test_a_folder_of_images_with_captions(tmp_path: Path) -> None:
    found = list(read_source(source(image_folder(tmp_path / "in"), "imagefolder")))
    assert [(d.id, d.text) for d in found] == [
        ("a.png", f"{MARK}the first"),
        ("c.PNG", MARK),
        ("sub/b.png", f"{MARK}the second"),
    ]
    assert [d.media[0].data for d in found] == [png(0), png(2), png(1)]
    assert found[0].licence == "CC0-1.0" and found[0].media[0].kind == "image"
    (tmp_path / "in" / "metadata.jsonl").unlink()
    (tmp_path / "in" / "metadata.csv").write_text(
        "file_name,caption,split\na.png,one,val\nsub/b.png,two,train\nc.PNG,three,train\n"
    )
    cfg = source(tmp_path / "in", "imagefolder", text_column="caption", split_column="split")
    assert [(d.text[1:], d.meta["split"]) for d in read_source(cfg)] == [
        ("one", "holdout"),
        ("three", "train"),
        ("two", "train"),
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"file_name": "gone.png", "text": "x"}', "names 'gone.png', which is not in"),
        ('{"file_name": "a.png", "text": 3}', "metadata.jsonl:3"),
        ('{"file_name": "a.png", "text": "again"}', "has two rows"),
        ('{"file_name": "a.png"}', "text"),
    ],
)
def test_metadata_that_does_not_fit(tmp_path: Path, line: str, why: str) -> None:
    root = image_folder(tmp_path / "in")
    with (root / "metadata.jsonl").open("a") as f:
        f.write(line + "\n")
    with pytest.raises(DataError, match=why):
        list(read_source(source(root, "imagefolder")))


def test_a_folder_of_audio(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(wav(tmp_path, 0))
    (tmp_path / "in" / "metadata.csv").write_text("file_name,text\na.wav,hello\n")
    (only,) = read_source(source(tmp_path / "in", "audiofolder"))
    assert only.text == f"{MARK}hello" and only.media[0].kind == "audio"
    with pytest.raises(DataError, match=r"no image files .*\n.*\.png"):
        list(read_source(source(tmp_path / "in", "imagefolder")))


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as f:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            f.addfile(info, io.BytesIO(data))
    return path


def test_webdataset_shards(tmp_path: Path) -> None:
    tar(
        tmp_path / "0.tar",
        {
            "x/a.png": png(0),
            "x/a.txt": b"first",
            "x/b.json": json.dumps({"text": "second", "split": "dev"}).encode(),
            "x/b.jpg": png(1),
            "c.wav": wav(tmp_path, 0),
        },
    )
    found = list(read_source(source(tmp_path, "webdataset")))
    assert [(d.id, d.text[1:], d.media[0].kind) for d in found] == [
        ("0.tar#x/a", "first", "image"),
        ("0.tar#x/b", "second", "image"),
        ("0.tar#c", "", "audio"),
    ]
    (tmp_path / "0.tar").unlink()
    for members, why in (
        ({"a.txt": b"alone"}, "0 media files"),
        ({"a.png": png(0), "a.jpg": png(1)}, "2 media files"),
        ({"a.png": png(0), "a.txt": b"\xff"}, "cannot be read"),
        ({"a.png": png(0), "a.json": b"[1]"}, "no text 'text'"),
    ):
        bad = tar(tmp_path / "bad.tar", members)
        with pytest.raises(DataError, match=f"bad.tar: a.*{why}"):
            list(read_source(source(bad, "webdataset")))
    (tmp_path / "bad.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(DataError, match="not a tar file"):
        list(read_source(source(tmp_path / "bad.tar", "webdataset")))


def test_parquet_as_hf_datasets_writes_it(tmp_path: Path) -> None:
    cells = [{"bytes": png(0), "path": "a.png"}, {"bytes": wav(tmp_path, 1), "path": None}]
    pq.write_table(pa.table({"image": cells, "caption": ["one", "two"]}), tmp_path / "a.parquet")
    cfg = source(tmp_path / "a.parquet", "parquet", text_column="caption", media_column="image")
    found = list(read_source(cfg))
    assert [(d.text[1:], d.media[0].kind, d.media[0].name[-5:]) for d in found] == [
        ("one", "image", "row 1"),
        ("two", "audio", "row 2"),
    ]
    pq.write_table(
        pa.table({"image": [{"bytes": None, "path": "a.png"}], "caption": ["x"]}), tmp_path / "a.parquet"
    )
    with pytest.raises(DataError, match=r"row 1: column 'image' has no bytes"):
        list(read_source(cfg))
    with pytest.raises(ConfigError, match="media_column"):
        source(tmp_path, "jsonl", media_column="image")


def test_fasta(tmp_path: Path) -> None:
    (tmp_path / "a.fasta").write_text(">sp|P1|X first\nMKV\nLAA*\n\n; a comment\n>second\nacd ef\n>empty\n")
    found = list(read_source(source(tmp_path, "fasta")))
    assert [(d.id, d.text) for d in found] == [("a.fasta#sp|P1|X", "MKVLAA"), ("a.fasta#second", "ACDEF")]
    for text, why in (
        ("MKV\n", r"a.fasta:1: residues before"),
        (">x\nMK1\n", r"a.fasta:1: '1' is no residue"),
    ):
        (tmp_path / "a.fasta").write_text(text)
        with pytest.raises(DataError, match=why):
            list(read_source(source(tmp_path, "fasta")))


def image(seed: int, name: str = "") -> MediaFile:
    return MediaFile("image", png(seed), name)


def documents() -> list[Document]:
    made = [Document(f"text {i}", "words", "MIT", str(i)) for i in range(20)]
    made += [
        Document(f"{MARK}picture {i}", "pairs", "CC0-1.0", f"p{i}", media=(image(i % 6),)) for i in range(20)
    ]
    made.append(Document(f"see {MARK} and {MARK}", "pairs", "CC0-1.0", "two", media=(image(0), image(1))))
    return made


def test_media_are_stored_once_and_come_back(tmp_path: Path) -> None:
    given = documents()
    dataset = prepare(given, tmp_path / "d", holdout=0.3)
    found = [d for split in ("train", "holdout") for d in dataset.documents(split)]
    assert {(d.text, tuple(m.data for m in d.media), d.licence) for d in found} == {
        (d.text, tuple(m.data for m in d.media), d.licence) for d in given
    }
    assert len(dataset.media_files) == 1
    assert pq.read_table(dataset.dir / dataset.media_files[0]).num_rows == 6
    stats = dataset.stats["pairs"]
    assert stats["media"] == 22 and stats["media_bytes"] == sum(len(png(i)) for i in range(6))
    assert "media" not in dataset.stats["words"]
    verify(dataset.dir)
    assert dataset.record.get("sources.pairs.media") == 22
    with pytest.raises(ArtifactError, match="has no media 0123"):
        dataset.media("0123" * 16)


def test_order_and_shards_do_not_matter(tmp_path: Path) -> None:
    given = documents()
    one = prepare(given, tmp_path / "a")
    other = prepare(reversed(given), tmp_path / "b", shard_bytes=64)
    assert one.fingerprint == other.fingerprint and len(other.media_files) == 6
    assert Dataset.open(tmp_path / "b").media(image(3).digest).data == png(3)
    swapped = [*given[:-1], Document(given[-1].text, "pairs", "CC0-1.0", "two", media=(image(1), image(0)))]
    assert prepare(swapped, tmp_path / "c").fingerprint != one.fingerprint
    again = prepare([*given, *given], tmp_path / "d")
    assert again.fingerprint == one.fingerprint and again.stats["pairs"]["duplicates_removed"] == 21


def test_a_dataset_of_text_is_what_it_was(tmp_path: Path) -> None:
    dataset = prepare(documents()[:20], tmp_path / "d")
    facts = json.loads((tmp_path / "d" / "dataset.json").read_text())
    assert "media" not in facts and not dataset.media_files
    assert "media" not in pq.read_schema(dataset.dir / dataset.shards[0]).names


def test_a_token_set_of_text_refuses_media(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["text"], 300)
    with pytest.raises(DataError, match="reads text alone"):
        TokenSet.build(prepare(documents(), tmp_path / "d"), "train", tokenizer)


def test_bad_media_leave_their_document_out_and_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = {
        "a.png": png(0)[:40],
        "b.png": b"no picture",
        "c.wav": b"RIFF\0\0\0\0WAVE",
        "d.wav": wav(tmp_path, 0)[:-100],
    }
    given = documents() + [
        Document(
            f"{MARK}{name}",
            "pairs",
            "",
            name,
            media=(MediaFile("audio" if "wav" in name else "image", data, name),),
        )
        for name, data in bad.items()
    ]
    with caplog.at_level(logging.WARNING):
        dataset = prepare(given, tmp_path / "d")
    assert dataset.stats["pairs"]["bad_media_removed"] == 4 and dataset.stats["pairs"]["documents"] == 21
    assert "4 documents are left out" in caplog.text and "a.png" in caplog.text and "c.wav" in caplog.text
    assert dataset.fingerprint == prepare(documents(), tmp_path / "e").fingerprint
    with pytest.raises(DataError, match="1 documents are left out"):
        prepare(given[-4:-3], tmp_path / "f")
    with pytest.raises(DataError, match="0 places for 1 images and sounds"):
        prepare([Document("no place", "pairs", "", "x", media=(image(0),))], tmp_path / "g")
