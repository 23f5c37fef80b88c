"""Token sets: a split of a dataset as memory-mapped ids, or tokenised samples with their loss masks in memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onebase.artifact.files import (
    ArtifactWriter,
    canonical_json,
    check_fast,
    read_json,
    read_manifest,
    sha256_bytes,
    understood,
    write_atomic,
)
from onebase.artifact.owned import owned
from onebase.artifact.raw import save_array
from onebase.data.dataset import Dataset
from onebase.errors import ArtifactError, DataError
from onebase.modality.text import TextCodec, Tokenizer, Tokens

KIND = "tokens"
SCHEMA = 1
CHUNK_BYTES = 2 << 20
#: one per document: array, offset in it, number of tokens (BOS and EOS included), index into `sources`
PLACE = np.dtype([("shard", "<u4"), ("start", "<u8"), ("length", "<u8"), ("source", "<u4")])
log = logging.getLogger(__name__)


class TokenSet:
    """Documents as tokens, sorted by hash or in the given order.

    `tokens(i)` is document i with its BOS; everything except BOS is supervised, unless the samples have loss masks of their own.
    """

    def __init__(
        self,
        ids: Sequence[NDArray[Any]],
        loss: Sequence[NDArray[np.bool_]] | None,
        places: NDArray[Any],
        names: Sequence[str] | NDArray[np.uint8],
        sources: Sequence[str],
        bos: int | None,
        fingerprint: str,
        path: Path | None = None,
    ) -> None:
        self._ids, self._loss, self._places, self._names = ids, loss, places, names
        self.sources = tuple(sources)
        self.bos = bos
        self.fingerprint = fingerprint
        self.path = path

    @classmethod
    def build(
        cls, dataset: Dataset, split: str, tokenizer: Tokenizer | TextCodec, out: str | Path | None = None
    ) -> TokenSet:
        """Tokenise a split shard by shard, or open the result of an earlier call.

        out: folder for the results, one sub-folder each (default: `<dataset>.tokens` beside the dataset, because nothing may be added
        to an artifact). Raises DataError for an empty split, ArtifactError when the folder cannot be written.
        """
        if isinstance(tokenizer, TextCodec):
            tokenizer = tokenizer.tokenizer
        if dataset.media_files:
            raise DataError(
                f"{dataset.dir} has images or audio, and this objective reads text alone",
                "prepare the sources of text by themselves",
            )
        if dataset.count(split) == 0:
            raise DataError(
                f"the split '{split}' of {dataset.dir} has no documents",
                "raise `holdout` or give more documents" if split == "holdout" else "lower `holdout`",
            )
        facts = {
            "schema": SCHEMA,
            "dataset": dataset.fingerprint,
            "tokenizer": tokenizer.digest,
            "split": split,
        }
        fingerprint = "tk1-" + sha256_bytes(canonical_json(facts).encode())
        # Copies of a dataset may name their sources differently under one fingerprint: the hashes of the shards distinguish them.
        key = sha256_bytes(
            canonical_json(
                [facts, read_manifest(dataset.dir)["files"]["dataset.json"], _shards(dataset)]
            ).encode()
        )
        root = Path(out) if out is not None else dataset.dir.with_name(f"{dataset.dir.name}.tokens")
        final = root / key[:24]
        if (found := _reopen(final)) is not None:
            return found
        # All runs on this dataset share the folder: the second waits for the first and reads its result.
        with owned(final, beside=True, wait=True):
            if (found := _reopen(final)) is not None:
                return found
            try:
                with ArtifactWriter(final, kind=KIND, facts=facts, overwrite=True) as writer:
                    _write(writer, dataset, split, tokenizer, fingerprint)
            except ArtifactError:
                if (
                    found := _reopen(final)
                ) is not None:  # a system without locks, and another process was quicker
                    return found
                raise
        return cls.open(final)

    @classmethod
    def open(cls, path: str | Path) -> TokenSet:
        """Open a folder that `build` wrote. Raises ArtifactError when it is damaged or not a token set."""
        path = Path(path)
        if (kind := read_manifest(path)["kind"]) != KIND:
            raise ArtifactError(f"{path} is a {kind}, not a token set", "tokenise the dataset again")
        check_fast(path)
        facts = read_json(path / "tokens.json")
        with understood(path):
            ids = [np.load(path / name, mmap_mode="r", allow_pickle=False) for name in facts["shards"]]
            places = np.load(path / "places.npy", allow_pickle=False)
            names = np.load(path / "names.npy", mmap_mode="r", allow_pickle=False)
            return cls(ids, None, places, names, facts["sources"], facts["bos"], facts["fingerprint"], path)

    @classmethod
    def from_tokens(cls, tokens: Sequence[Tokens], *, alike: bool = True) -> TokenSet:
        """Tokenised samples in memory, in the given order. alike: all begin with the same BOS, which later parts of long samples get
        too. Raises DataError when there are no samples or they have no common BOS.
        """
        if not tokens:
            raise DataError("there are no samples", "give at least one")
        if any(t.media for t in tokens):
            raise DataError(
                "samples with images or audio, and a token set has room for ids alone",
                "train on them by ExampleOrder",
            )
        if any(not len(t) or (alike and t.ids[0] != tokens[0].ids[0]) for t in tokens):
            raise DataError(
                "the samples do not all begin with the same BOS", "build them with TextCodec.tokens"
            )
        sources = sorted({t.source for t in tokens})
        places = np.zeros(len(tokens), PLACE)
        places["length"] = [len(t) for t in tokens]
        places["start"] = np.cumsum(places["length"]) - places["length"]
        places["source"] = [sources.index(t.source) for t in tokens]
        ids = np.concatenate([t.ids for t in tokens]).astype(np.int32)
        loss = np.concatenate([t.loss for t in tokens]).astype(np.bool_)
        content = [places["length"].tobytes(), ids.astype("<i4").tobytes(), loss.tobytes()]
        fingerprint = "tk1-" + sha256_bytes(b"".join(content))
        bos = int(tokens[0].ids[0]) if alike else None
        return cls([ids], [loss], places, [t.id for t in tokens], sources, bos, fingerprint)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Tokens]:
        return (self.tokens(i) for i in range(len(self)))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each document, int64 [N]."""
        lengths: NDArray[np.int64] = self._places["length"].astype(np.int64)
        return lengths

    def counts(self) -> dict[str, int]:
        """Tokens per source."""
        total = np.zeros(len(self.sources), np.int64)
        np.add.at(total, self._places["source"], self.lengths)
        return dict(zip(self.sources, total.tolist(), strict=True))

    def name(self, i: int) -> str:
        """The sample's own id, or the first 16 hex digits of the document's hash."""
        name = self._names[i]
        return name if isinstance(name, str) else bytes(name).hex()

    def numbers(self, hashed: str) -> list[int]:
        """Numbers of the documents with this hash (64 hex digits, of which the first 16 are stored)."""
        names: list[int] = np.flatnonzero(
            (np.asarray(self._names) == np.frombuffer(bytes.fromhex(hashed[:16]), np.uint8)).all(1)
        ).tolist()
        return names

    @property
    def source_numbers(self) -> NDArray[np.int64]:
        """The source of each document, as an index into `sources`, int64 [N]."""
        numbers: NDArray[np.int64] = self._places["source"].astype(np.int64)
        return numbers

    def tokens(self, i: int) -> Tokens:
        """Document i. Raises IndexError."""
        return self.part(i, 0, int(self._places[i]["length"]))

    def part(self, i: int, start: int, stop: int) -> Tokens:
        """Tokens `start` to `stop` of document i. A part that does not begin the document gets a BOS before it (without BOS: the
        previous token), which has no loss.
        """
        place = self._places[i]
        at = int(place["start"])
        shard = int(place["shard"])
        ids = self._ids[shard][at + start : at + stop].astype(np.int32)
        if self._loss is not None:
            loss = self._loss[shard][at + start : at + stop].copy()
        else:
            loss = np.ones(len(ids), np.bool_)
            loss[: start == 0] = False  # BOS is given: it has no loss
        if start > 0:
            first = self._ids[shard][at + start - 1] if self.bos is None else self.bos
            ids, loss = np.append(np.int32(first), ids), np.append(False, loss)
        return Tokens(ids, loss, self.name(i), self.sources[int(place["source"])])


def _shards(dataset: Dataset) -> list[str]:
    files = read_manifest(dataset.dir)["files"]
    return [files[name]["sha256"] for name in dataset.shards]


def _reopen(path: Path) -> TokenSet | None:
    if not path.exists():
        return None
    try:
        return TokenSet.open(path)
    except ArtifactError as e:
        log.warning("%s: tokenising again", e.cause)
        return None


def _write(
    writer: ArtifactWriter, dataset: Dataset, split: str, tokenizer: Tokenizer, fingerprint: str
) -> None:
    sources = sorted(dataset.stats)
    first = tokenizer.begun([])
    end = [] if tokenizer.eos is None else [tokenizer.eos]
    dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    shards: list[str] = []
    hashes: list[bytes] = []
    places: list[NDArray[Any]] = []
    for shard in dataset.shards:
        parts: list[NDArray[Any]] = []
        lengths: list[int] = []
        owners: list[int] = []
        for rows in _chunks(dataset.rows(shard, split)):
            for row, ids in zip(rows, tokenizer.encode_batch([r["text"] for r in rows]), strict=True):
                whole = [*tokenizer.begun(ids), *end]
                parts.append(np.asarray(whole, dtype))
                lengths.append(len(whole))
                owners.append(sources.index(row["source"]))
                hashes.append(bytes.fromhex(row["hash"]))
        if not parts:
            continue
        place = np.zeros(len(parts), PLACE)
        place["shard"], place["length"], place["source"] = len(shards), lengths, owners
        place["start"] = np.cumsum(place["length"]) - place["length"]
        places.append(place)
        shards.append(f"ids-{len(shards):05d}.npy")
        save_array(writer.path(shards[-1]), np.concatenate(parts))
    names = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32)
    # By hash, so that the order of samples does not depend on the order of the documents.
    order = np.lexsort(names[:, ::-1].T)
    save_array(writer.path("places.npy"), np.concatenate(places)[order])
    save_array(writer.path("names.npy"), names[order][:, :8])
    facts = {
        "schema": SCHEMA,
        "fingerprint": fingerprint,
        "shards": shards,
        "sources": sources,
        "bos": first[0] if first else None,
    }
    write_atomic(writer.path("tokens.json"), canonical_json(facts).encode())


def _chunks(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    chunk: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += row["bytes"]
        if size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
