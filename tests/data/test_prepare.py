from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.artifact.files import verify
from onebase.data import Dataset, Document, prepare
from onebase.errors import ArtifactError, ConfigError, DataError

Docs = Callable[..., Iterator[Document]]


def contents(dataset: Dataset) -> dict[str, set[str]]:
    return {s: {d.text for d in dataset.documents(s)} for s in ("train", "holdout")}


def test_what_is_stored_is_what_was_given(documents: Docs, dataset: Dataset) -> None:
    given_docs = {d.text: d for d in documents()}
    stored = [d for s in ("train", "holdout") for d in dataset.documents(s)]
    assert {d.text for d in stored} == set(given_docs)
    assert len(stored) == 120
    for d in stored:
        assert (d.source, d.licence, d.id) == (
            given_docs[d.text].source,
            given_docs[d.text].licence,
            given_docs[d.text].id,
        )
    assert len(dataset.shards) > 2
    schema = pq.read_schema(dataset.dir / dataset.shards[0])
    assert {"hash", "text", "source", "licence", "split"} <= set(schema.names)
    meta = pq.ParquetFile(dataset.dir / dataset.shards[0]).metadata
    assert meta.row_group(0).column(1).compression == "ZSTD"
    assert all(d.source == "b" for d in dataset.documents("train", "b"))
    verify(dataset.dir)


def test_statistics_and_record(documents: Docs, tmp_path: Path) -> None:
    docs = [
        *documents(30),
        *documents(10),
        Document(" \n", "a", "GPL"),
        Document("document 1 word ", "c", "GPL"),
    ]
    dataset = prepare(docs, tmp_path / "d", holdout=0.3)
    a = dataset.stats["a"]
    assert (a["documents"], a["duplicates_removed"], a["empty_removed"], a["licence"]) == (
        20,
        6,
        1,
        "GPL, MIT",
    )
    assert a["bytes"] == sum(len(d.text) for d in documents(30) if d.source == "a")
    assert (dataset.stats["c"]["documents"], dataset.stats["c"]["duplicates_removed"]) == (0, 1)
    assert dataset.count("train") + dataset.count("holdout") == 30
    assert dataset.count("holdout") == len(list(dataset.documents("holdout"))) > 0
    record = dataset.record
    assert record.hashes["fingerprint"] == dataset.fingerprint
    assert record.get("sources.b.duplicates_removed") == 4
    assert record.get("sources.b.licence") == "BSD"


def test_order_and_shard_size_change_nothing(documents: Docs, dataset: Dataset, tmp_path: Path) -> None:
    docs = list(documents())
    random.Random(1).shuffle(docs)
    other = prepare([*docs, *docs[:5]], tmp_path / "other", holdout=0.2)
    assert other.fingerprint == dataset.fingerprint
    assert contents(other) == contents(dataset)
    assert len(other.shards) != len(dataset.shards)


def test_content_seed_and_holdout_change_the_fingerprint(
    documents: Docs, dataset: Dataset, tmp_path: Path
) -> None:
    docs = list(documents())
    others = [
        prepare(docs, tmp_path / "1", holdout=0.2, seed=1),
        prepare(docs, tmp_path / "2", holdout=0.5),
        prepare([replace(docs[0], text="x"), *docs[1:]], tmp_path / "3", holdout=0.2),
    ]
    assert len({d.fingerprint for d in [dataset, *others]}) == 4


def test_the_split_is_a_share_and_a_function_of_the_text(tmp_path: Path) -> None:
    docs = [Document(f"text {i}", "a") for i in range(3000)]
    large = prepare(docs, tmp_path / "large", holdout=0.1)
    assert 0.08 < large.count("holdout") / 3000 < 0.12
    small = prepare(docs[:500], tmp_path / "small", holdout=0.1)
    assert contents(small)["holdout"] == contents(large)["holdout"] & {d.text for d in docs[:500]}
    none = prepare(docs[:500], tmp_path / "none", holdout=0)
    assert none.count("holdout") == 0


@settings(deadline=None, max_examples=25)
@given(
    splits=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from([None, "train", "holdout"])), min_size=1, max_size=12
    ),
    seed=st.integers(0, 99),
)
def test_no_text_is_ever_in_both_splits(
    tmp_path_factory: pytest.TempPathFactory, splits: list[tuple[int, str | None]], seed: int
) -> None:
    root = tmp_path_factory.mktemp("p")
    docs = [Document(f"text {i}", f"s{k}", meta={"split": s} if s else {}) for k, (i, s) in enumerate(splits)]
    one = prepare(docs, root / "a", holdout=0.4, shard_bytes=10)
    random.Random(seed).shuffle(docs)
    two = prepare(docs, root / "b", holdout=0.4)
    assert one.fingerprint == two.fingerprint
    assert contents(one) == contents(two)
    assert not contents(one)["train"] & contents(one)["holdout"]
    assert {f"text {i}" for i, s in splits if s == "holdout"} <= contents(one)["holdout"]
    assert sum(s["holdout_documents"] for s in one.stats.values()) == len(list(one.documents("holdout")))


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    docs = (Document(f"{i} " + "x" * 100_000, "a") for i in range(400))  # 40 MB of text
    tracemalloc.start()
    try:
        prepare(docs, tmp_path / "d", shard_bytes=8 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 15e6


def test_progress_is_told(documents: Docs, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    prepare(documents(600), tmp_path / "d", progress=lambda n, size: seen.append((n, size)))
    assert [n for n, _ in seen] == [256, 512, 600]
    assert seen[-1][1] == sum(len(d.text) for d in documents(600))


@pytest.mark.parametrize(
    ("bad", "cause"),
    [
        (Document("a\ud800", "s", id="x"), "document 'x' of 's': a lone surrogate at character 1"),
        (Document(None, "s", id="x"), "is not text"),  # type: ignore[arg-type]
        (Document("a", "s", id="x", meta={"split": "later"}), "split 'later'"),
    ],
)
def test_a_bad_document_leaves_the_old_dataset_whole(
    documents: Docs, dataset: Dataset, tmp_path: Path, bad: Document, cause: str
) -> None:
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(DataError) as e:
        prepare([*documents(5), bad], dataset.dir, overwrite=True)
    assert cause in e.value.cause
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert Dataset.open(dataset.dir).fingerprint == dataset.fingerprint


def test_a_full_disk_is_said_and_leaves_nothing(
    documents: Docs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(ArtifactError, match="the disk is full"):
        prepare(documents(), tmp_path / "d")
    assert not list(tmp_path.glob("*d*"))


def test_places_that_cannot_be_written(documents: Docs, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="already exists"):
        prepare(documents(), dataset.dir)
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError):
        prepare(documents(), tmp_path / "file" / "d")
    with pytest.raises(ArtifactError, match="read-only|permission|created"):
        prepare(documents(), "/proc/nothing/d")


def test_nothing_to_prepare_and_wrong_settings(documents: Docs, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="every document is empty"):
        prepare([Document(" ", "a")], tmp_path / "d")
    with pytest.raises(ConfigError, match="holdout is 1"):
        prepare(documents(), tmp_path / "d", holdout=1)
    with pytest.raises(ConfigError, match="shard_bytes is 0"):
        prepare(documents(), tmp_path / "d", shard_bytes=0)


def test_a_damaged_dataset_is_refused(dataset: Dataset) -> None:
    with pytest.raises(DataError, match="no split 'test'"):
        next(dataset.documents("test"))
    with pytest.raises(DataError, match="no source 'zzz'"):
        next(dataset.documents("train", "zzz"))
    path = dataset.dir / dataset.shards[1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=dataset.shards[1]):
        Dataset.open(dataset.dir)
    with pytest.raises(ArtifactError):
        Dataset.open(dataset.dir / "nowhere")
