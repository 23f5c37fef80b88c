"""Token sets: a split of a dataset as memory-mapped ids, or tokenised samples with their loss masks in memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
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
)
from onebase.artifact.owned import owned
from onebase.data.captions import CAPTIONED, PictureTable
from onebase.data.dataset import Dataset
from onebase.data.media_table import MediaTable
from onebase.data.tokenising import PLACE, Tokenising
from onebase.errors import ArtifactError, DataError
from onebase.modality.image.config import ImageCodecConfig
from onebase.modality.patches.config import PatchConfig
from onebase.modality.text import TextCodec, Tokenizer, Tokens
from onebase.modality.text.sample import Media

KIND = "tokens"
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
        self.media: MediaTable | PictureTable | None = None
        """Where its images and sounds stand; None where it has none."""

    @classmethod
    def build(
        cls,
        dataset: Dataset,
        split: str,
        tokenizer: Tokenizer | TextCodec,
        out: str | Path | None = None,
        patches: Mapping[str, PatchConfig] | None = None,
        pictures: ImageCodecConfig | None = None,
    ) -> TokenSet:
        """Tokenise a split shard by shard, or open the result of an earlier call.

        out: folder for the results, one sub-folder each (default: `<dataset>.tokens` beside the dataset, because nothing may be added
        to an artifact). patches: codecs of the media, by name. pictures: the documents are captions, each with a picture beside it. Raises DataError for an empty split and for media without codecs, ArtifactError
        when the folder cannot be written.
        """
        if isinstance(tokenizer, TextCodec):
            tokenizer = tokenizer.tokenizer
        how = Tokenising(dataset, split, tokenizer, patches or {}, pictures)
        how.check()
        facts = how.facts
        fingerprint = "tk1-" + sha256_bytes(canonical_json(facts).encode())
        # Copies of a dataset may name their sources differently under one fingerprint: the hashes of the shards distinguish them.
        files = read_manifest(dataset.dir)["files"]
        parts = [facts, files["dataset.json"], [files[name]["sha256"] for name in dataset.shards]]
        key = sha256_bytes(canonical_json(parts).encode())
        root = Path(out) if out is not None else dataset.dir.with_name(f"{dataset.dir.name}.tokens")
        final = root / key[:24]

        def known() -> TokenSet | None:
            return _reopen(final, dataset, how.patches, pictures)

        if (found := known()) is not None:
            return found
        # All runs on this dataset share the folder: the second waits for the first and reads its result.
        with owned(final, beside=True, wait=True):
            if (found := known()) is not None:
                return found
            try:
                with ArtifactWriter(final, kind=KIND, facts=facts, overwrite=True) as writer:
                    how.write(writer, fingerprint)
            except ArtifactError:
                if (found := known()) is not None:  # a system without locks, and another process was quicker
                    return found
                raise
        return cls.open(final, dataset, how.patches, pictures)

    @classmethod
    def open(
        cls,
        path: str | Path,
        dataset: Dataset | None = None,
        patches: Mapping[str, PatchConfig] | None = None,
        pictures: ImageCodecConfig | None = None,
    ) -> TokenSet:
        """Open a folder that `build` wrote. dataset, patches, pictures: those it was built with, where it has media. Raises ArtifactError when it is damaged or
        not a token set, and for media without their dataset."""
        path = Path(path)
        if (kind := read_manifest(path)["kind"]) != KIND:
            raise ArtifactError(f"{path} is a {kind}, not a token set", "tokenise the dataset again")
        check_fast(path)
        facts = read_json(path / "tokens.json")
        with understood(path):
            ids = [np.load(path / name, mmap_mode="r", allow_pickle=False) for name in facts["shards"]]
            places = np.load(path / "places.npy", allow_pickle=False)
            names = np.load(path / "names.npy", mmap_mode="r", allow_pickle=False)
            found = cls(ids, None, places, names, facts["sources"], facts["bos"], facts["fingerprint"], path)
        if facts.get("media"):
            if dataset is None or facts["media"] != ([CAPTIONED] if pictures else list(patches or ())):
                raise ArtifactError(
                    f"{path} has media of {', '.join(facts['media'])}",
                    "open it by TokenSet.build, with its dataset and its codecs",
                )
            with understood(path):
                rows = np.load(path / "media.npy", mmap_mode="r", allow_pickle=False)
            found.media = (
                PictureTable(rows, pictures, dataset.media)
                if pictures
                else MediaTable(rows, patches or {}, dataset.media)
            )
        return found

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
        media: tuple[Media, ...] = ()
        if self.media is not None and (media := self.media.of(i, start - (start > 0), stop)):
            for m in media:
                loss[m.start : m.stop] = False
                loss[m.start - m.opening : m.start] = False  # what is read is announced, not predicted
        return Tokens(ids, loss, self.name(i), self.sources[int(place["source"])], media=media)


def _reopen(
    path: Path, dataset: Dataset, patches: Mapping[str, PatchConfig], pictures: ImageCodecConfig | None
) -> TokenSet | None:
    if not path.exists():
        return None
    try:
        return TokenSet.open(path, dataset, patches, pictures)
    except ArtifactError as e:
        log.warning("%s: tokenising again", e.cause)
        return None
