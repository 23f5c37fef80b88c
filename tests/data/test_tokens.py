from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from onebase.data import Dataset, Document, TokenSet, prepare
from onebase.errors import ArtifactError, DataError
from onebase.modality.text import TextCodec, Tokenizer, Tokens, completion_sample, document_sample

Docs = Callable[..., Iterator[Document]]


def test_each_document_is_as_the_codec_says(dataset: Dataset, tokenizer: Tokenizer, tmp_path: Path) -> None:
    codec = TextCodec(tokenizer)
    tokens = TokenSet.build(dataset, "train", codec, tmp_path / "cache")
    texts = {d.meta["hash"]: d for d in dataset.documents("train")}
    assert len(tokens) == len(texts) == dataset.count("train")
    for t in tokens:
        d = next(d for h, d in texts.items() if h.startswith(t.id))
        expected = codec.tokens(document_sample(d.text))
        assert t.ids.tolist() == expected.ids.tolist()
        assert t.loss.tolist() == expected.loss.tolist()
        assert t.source == d.source
        assert t.ids.dtype == np.int32
    assert tokens.counts() == {s: sum(len(t) for t in tokens if t.source == s) for s in ("a", "b")}
    assert tokens.lengths.tolist() == [len(t) for t in tokens]


def test_it_is_cached_and_the_dataset_stays_whole(
    dataset: Dataset, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = TokenSet.build(dataset, "train", tokenizer)
    assert first.path is not None and first.path.parent.name == "set.tokens"
    Dataset.open(dataset.dir)  # nothing was added to it
    held = TokenSet.build(dataset, "holdout", tokenizer)
    assert held.fingerprint != first.fingerprint
    monkeypatch.setattr(Tokenizer, "encode_batch", None)  # may not be called again
    again = TokenSet.build(dataset, "train", tokenizer)
    assert again.fingerprint == first.fingerprint
    assert [t.id for t in again] == [t.id for t in first]
    assert first._ids[0].dtype == np.uint16
    assert isinstance(first._ids[0], np.memmap)


def test_a_damaged_cache_is_made_again(dataset: Dataset, tokenizer: Tokenizer) -> None:
    first = TokenSet.build(dataset, "train", tokenizer)
    wanted = [t.ids.tolist() for t in first]
    assert first.path is not None
    path = first.path / "ids-00000.npy"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ArtifactError, match="ids-00000.npy"):
        TokenSet.open(first.path)
    assert [t.ids.tolist() for t in TokenSet.build(dataset, "train", tokenizer)] == wanted


def test_order_of_documents_and_shards_do_not_show(
    documents: Docs, dataset: Dataset, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    docs = list(documents())
    random.Random(2).shuffle(docs)
    other = prepare(docs, tmp_path / "other", holdout=0.2)
    one, two = (TokenSet.build(d, "train", tokenizer, tmp_path / "c") for d in (dataset, other))
    assert one.fingerprint == two.fingerprint
    assert one.path != two.path
    assert [(t.id, t.source, t.ids.tolist()) for t in one] == [(t.id, t.source, t.ids.tolist()) for t in two]


def test_samples_in_memory_keep_their_loss(tokenizer: Tokenizer) -> None:
    codec = TextCodec(tokenizer)
    samples = [
        codec.tokens(completion_sample("word " * i, "document", id=f"{i}", source="s")) for i in range(5)
    ]
    tokens = TokenSet.from_tokens(samples)
    for given, got in zip(samples, tokens, strict=True):
        assert (got.ids.tolist(), got.loss.tolist(), got.id, got.source) == (
            given.ids.tolist(), given.loss.tolist(), given.id, given.source,
        )  # fmt: skip
    flipped = Tokens(samples[0].ids, ~samples[0].loss)
    assert TokenSet.from_tokens(samples).fingerprint == tokens.fingerprint
    assert TokenSet.from_tokens([flipped, *samples[1:]]).fingerprint != tokens.fingerprint
    assert TokenSet.from_tokens(samples[::-1]).fingerprint != tokens.fingerprint


def test_mistakes(documents: Docs, dataset: Dataset, tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no samples"):
        TokenSet.from_tokens([])
    with pytest.raises(DataError, match="do not all begin with the same BOS"):
        TokenSet.from_tokens([Tokens(np.array([i], np.int32), np.array([True])) for i in (0, 5)])
    whole = prepare(documents(), tmp_path / "whole", holdout=0)
    with pytest.raises(DataError, match="'holdout' .* has no documents"):
        TokenSet.build(whole, "holdout", tokenizer)
    with pytest.raises(ArtifactError, match="is a dataset, not a token set"):
        TokenSet.open(dataset.dir)
    with pytest.raises(ArtifactError):
        TokenSet.build(dataset, "train", tokenizer, "/proc/nothing")
