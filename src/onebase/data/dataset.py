"""A dataset folder: Parquet shards, `dataset.json`, `record.json`, `manifest.json`."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from onebase.artifact.files import check_fast, read_json, read_manifest, understood
from onebase.artifact.record import Record
from onebase.data.sources import HOLDOUT, TRAIN, Document, MediaFile
from onebase.errors import ArtifactError, DataError

KIND = "dataset"
MEDIA_CACHE = 64 << 20
"""Bytes of encoded media that are kept in memory."""
SCHEMA = 1


@dataclass(frozen=True)
class Dataset:
    """An opened dataset. `fingerprint` is the hash of the set of (document, split), whatever their order or
    shards.
    """

    dir: Path
    fingerprint: str
    shards: tuple[str, ...]
    stats: dict[str, dict[str, Any]]
    """per source: documents, bytes, holdout_documents, holdout_bytes, duplicates_removed, empty_removed,
    licence
    """
    seed: int
    holdout: float
    media_files: tuple[str, ...] = ()

    @classmethod
    def open(cls, dir: str | Path) -> Dataset:
        """Open a folder that `prepare` wrote. Raises ArtifactError when it is not a dataset, is damaged, or has a newer schema."""
        dir = Path(dir)
        kind = read_manifest(dir)["kind"]
        if kind != KIND:
            raise ArtifactError(f"{dir} is a {kind}, not a dataset", "give a folder made by data preparation")
        check_fast(dir)
        facts = read_json(dir / "dataset.json", "schema")
        if facts.get("schema") != SCHEMA:
            raise ArtifactError(
                f"{dir}: dataset schema {facts.get('schema')!r} is unknown",
                "prepare it again, or update onebase",
            )
        with understood(dir / "dataset.json"):
            return cls(
                dir,
                facts["fingerprint"],
                tuple(facts["shards"]),
                facts["sources"],
                facts["seed"],
                facts["holdout"],
                tuple(facts.get("media", ())),
            )

    @property
    def record(self) -> Record:
        """The dataset's record."""
        return Record.load(self.dir / "record.json")

    def count(self, split: str, source: str | None = None) -> int:
        """Number of documents in a split, of one source if given."""
        key = "holdout_documents" if self._checked(split) == HOLDOUT else "documents"
        total = sum(int(s[key]) for name, s in self.stats.items() if source in (None, name))
        return total if split == HOLDOUT else total - self.count(HOLDOUT, source)

    def documents(self, split: str, source: str | None = None) -> Iterator[Document]:
        """Stream the documents of `split` ("train" or "holdout"), of one source if given. `meta` has hash and split."""
        if source is not None and source not in self.stats:
            raise DataError(f"the dataset has no source '{source}'", f"it has: {', '.join(self.stats)}")
        for shard in self.shards:
            for row in self.rows(shard, split):
                if source is None or row["source"] == source:
                    meta = {"hash": row["hash"], "split": row["split"]}
                    media = tuple(self.media(m["digest"]) for m in row.get("media", ()))
                    yield Document(row["text"], row["source"], row["licence"], row["id"], meta, media)

    def media(self, digest: str) -> MediaFile:
        """An image or sound by the SHA-256 of its bytes. Raises ArtifactError where the dataset does not have it."""
        place = self._places.get(digest)
        if place is None:
            raise ArtifactError(f"{self.dir} has no media {digest[:12]}", "prepare the dataset again")
        name, number, row = place
        table = self._groups(name, number)
        kind, data = (table[column][row].as_py() for column in ("kind", "data"))
        return MediaFile(kind, data, f"{name}: {digest[:12]}")

    @cached_property
    def _places(self) -> dict[str, tuple[str, int, int]]:
        """File, row group and row of each image and sound."""
        found: dict[str, tuple[str, int, int]] = {}
        for name in self.media_files:
            with self._readable(name), pq.ParquetFile(self.dir / name) as file:
                for group in range(file.num_row_groups):
                    digests = file.read_row_group(group, ["digest"])["digest"].to_pylist()
                    found |= {digest: (name, group, i) for i, digest in enumerate(digests)}
        return found

    @cached_property
    def _groups(self) -> Callable[[str, int], pa.Table]:
        """Row groups of media; the last ones are kept, up to MEDIA_CACHE bytes."""
        kept: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()
        lock = threading.Lock()  # batches are made in a thread of their own

        def group(name: str, number: int) -> pa.Table:
            with lock:
                if (found := kept.get((name, number))) is not None:
                    kept.move_to_end((name, number))
                    return found
                with self._readable(name), pq.ParquetFile(self.dir / name) as file:
                    found = kept[name, number] = file.read_row_group(number, ["kind", "data"])
                while len(kept) > 1 and sum(t.nbytes for t in kept.values()) > MEDIA_CACHE:
                    kept.popitem(last=False)
                return found

        return group

    @contextmanager
    def _readable(self, name: str) -> Iterator[None]:
        """Turn a damaged file into one error that names it."""
        try:
            yield
        except (pa.ArrowException, OSError) as e:
            raise ArtifactError(
                f"{self.dir / name} cannot be read: {e}", "prepare the dataset again"
            ) from None

    def first(self, split: str, most: int) -> dict[str, list[Document]]:
        """The first `most` documents of each source in `split`, or all if fewer. One pass, which stops when there are enough."""
        out: dict[str, list[Document]] = {source: [] for source in self.stats}
        left = sum(min(most, self.count(split, source)) for source in out)
        for document in self.documents(split) if left else ():
            mine = out[document.source]
            if len(mine) < most:
                mine.append(document)
                left -= 1
                if not left:
                    break
        return out

    def find(self, name: str) -> list[dict[str, Any]]:
        """id, source, hash and split of the documents with this id or hash prefix (at least 8 hex digits)."""
        columns, found = ["id", "source", "hash", "split"], []
        for shard in self.shards:
            with self._readable(shard):
                table = pq.read_table(self.dir / shard, columns=columns)
            chosen = pc.equal(pc.cast(table["id"], pa.string()), name)
            if re.fullmatch(r"[0-9a-fA-F]{8,64}", name):
                chosen = pc.or_kleene(chosen, pc.starts_with(table["hash"], name.lower()))
            found += table.filter(chosen).to_pylist()
        return found

    def rows(self, shard: str, split: str) -> Iterator[dict[str, Any]]:
        """Stream the rows of one shard that belong to `split`."""
        self._checked(split)
        with self._readable(shard), pq.ParquetFile(self.dir / shard) as file:
            for batch in file.iter_batches(batch_size=512):
                yield from batch.filter(pc.equal(batch["split"], split)).to_pylist()

    def _checked(self, split: str) -> str:
        if split not in (TRAIN, HOLDOUT):
            raise DataError(f"a dataset has no split '{split}'", f"it has: {TRAIN}, {HOLDOUT}")
        return split
