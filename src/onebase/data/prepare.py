"""Builds a dataset from documents: removes exact duplicates, splits by document, writes zstd Parquet shards, fingerprint and record.

It streams: memory holds one row group of text, and a hash and a flag per distinct document. The result depends only on the set of
documents and the seed: their order and the shard size change neither split nor fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import logging
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from onebase.artifact.disk import disk_errors
from onebase.artifact.files import ArtifactWriter, write_atomic
from onebase.artifact.record import Origin, Record
from onebase.data.bad_rows import left_out
from onebase.data.dataset import KIND, SCHEMA, Dataset
from onebase.data.shards import BLOB_COLUMNS, BLOB_GROUP_BYTES, MEDIA_COLUMNS, Blobs, Shards
from onebase.data.sources import HOLDOUT, MARK, SPLITS, TRAIN, UNKNOWN, Document
from onebase.errors import ConfigError, DataError
from onebase.modality.media import MEDIA

HOLDOUT_SHARE = 0.02
"""Default share of documents that is held out from training."""
UNREADABLE = "their media cannot be read"
log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]


@dataclass
class _Source:
    """Running counts of one source."""

    licences: set[str] = field(default_factory=set)
    documents: int = 0
    bytes: int = 0
    holdout_documents: int = 0
    holdout_bytes: int = 0
    duplicates_removed: int = 0
    empty_removed: int = 0
    media: int = 0
    media_bytes: int = 0
    bad_media_removed: int = 0

    def public(self) -> dict[str, Any]:
        rare = ("media", "media_bytes", "bad_media_removed")  # named only where there are any
        facts = {k: v for k, v in vars(self).items() if k != "licences" and (v or k not in rare)}
        return facts | {"licence": ", ".join(sorted(self.licences)) or UNKNOWN}


def prepare(
    documents: Iterable[Document],
    out: str | Path,
    *,
    holdout: float | None = None,
    seed: int | None = None,
    shard_bytes: int = 64 << 20,
    progress: Progress | None = None,
    overwrite: bool = False,
    stated: str = Origin.USER,
) -> Dataset:
    """Write `documents` as a dataset folder and open it.

    holdout: share of documents held out from training, chosen by hash of (seed, text) (default HOLDOUT_SHARE). A document's
    `meta["split"]` overrides it; if copies of a text disagree, the text is held out. seed: default 0. stated: origin of these values and of the
    licences, for the record. shard_bytes: text bytes per shard. progress(documents, bytes) is called as documents are read. Raises DataError
    for documents that cannot be stored, ArtifactError for a folder that cannot be written; either leaves nothing behind.
    """
    origins = {k: Origin.DEFAULT if v is None else stated for k, v in (("holdout", holdout), ("seed", seed))}
    holdout, seed = HOLDOUT_SHARE if holdout is None else holdout, seed or 0
    if not 0 <= holdout < 1:
        raise ConfigError(f"holdout is {holdout}", "give a share from 0 to below 1, for example 0.02")
    if shard_bytes < 1:
        raise ConfigError(f"shard_bytes is {shard_bytes}", "give at least 1")
    stats: dict[str, _Source] = {}
    held: dict[bytes, bool] = {}  # document hash -> is held out
    moved: set[str] = set()  # stored as train before a copy in holdout was read
    with ArtifactWriter(Path(out), kind=KIND, overwrite=overwrite) as writer:
        shards = Shards(writer, shard_bytes)
        mixed = Shards(writer, shard_bytes, "mixed", MEDIA_COLUMNS)
        blobs = Blobs(Shards(writer, shard_bytes, "media", BLOB_COLUMNS, BLOB_GROUP_BYTES))
        bad: list[str] = []
        seen = size = 0
        for document in documents:
            raw = _encode(document)
            seen, size = seen + 1, size + len(raw)
            source = stats.setdefault(document.source, _Source())
            source.licences.add(document.licence)
            if progress is not None and seen % 256 == 0:
                progress(seen, size)
            if not document.text.strip():
                source.empty_removed += 1
                continue
            if document.media:
                try:
                    check_media(document)
                except DataError as e:
                    source.bad_media_removed += 1
                    bad.append(e.cause)
                    continue
            digest = document_digest(raw, document)
            is_held = _is_held(document, digest, holdout, seed)
            if digest in held:
                source.duplicates_removed += 1
                if is_held and not held[digest]:
                    held[digest] = True
                    moved.add(digest.hex())
                continue
            held[digest] = is_held
            row = _row(document, digest.hex(), len(raw), HOLDOUT if is_held else TRAIN)
            if document.media:
                references = [{"kind": m.kind, "digest": m.digest} for m in document.media]
                mixed.add((*row, references), len(raw))
                source.media += len(document.media)
                source.media_bytes += blobs.add(document.media)
            else:
                shards.add(row, len(raw))
        if bad:
            log.warning("%s", left_out(bad, UNREADABLE))
        if not held:
            raise DataError(
                left_out(bad, UNREADABLE) if bad else "every document is empty",
                "check the sources' paths and text columns",
            )
        files = shards.close() + mixed.close()
        media_files = blobs.close()
        if progress is not None:
            progress(seen, size)
        _move(writer, files, moved)
        _count(writer, files, stats)
        fingerprint = _fingerprint(held)
        facts = {
            "schema": SCHEMA,
            "fingerprint": fingerprint,
            "seed": seed,
            "holdout": holdout,
            "shards": files,
            "sources": {name: stats[name].public() for name in sorted(stats)},
        } | ({"media": media_files} if media_files else {})
        write_atomic(writer.path("dataset.json"), json.dumps(facts, indent=2, ensure_ascii=False).encode())
        _record(facts, origins, stated).save(writer.path("record.json"))
    return Dataset.open(out)


def _encode(document: Document) -> bytes:
    if not isinstance(document.text, str):
        raise DataError(
            f"document {document.id!r} of '{document.source}' is not text", "give Document(text=...) a str"
        )
    try:
        return document.text.encode()
    except UnicodeEncodeError as e:
        raise DataError(
            f"document {document.id!r} of '{document.source}': "
            f"a lone surrogate at character {e.start} is not valid Unicode",
            "fix or remove the document",
        ) from None


def document_digest(raw: bytes, document: Document) -> bytes:
    """SHA-256 of a document: of its text, and of the hashes of its media in their order."""
    if not document.media:
        return hashlib.sha256(raw).digest()
    content = [f"{m.kind}:{m.digest}" for m in document.media]
    return hashlib.sha256(b"\0".join([raw, *(c.encode() for c in content)])).digest()


def check_media(document: Document) -> None:
    """Read a document's media before it is stored: images whole, of sounds the header. Raises DataError naming the file; UserError without the
    packages."""
    if document.text.count(MARK) != len(document.media):
        raise DataError(
            f"document {document.id!r} of '{document.source}' has {document.text.count(MARK)} places for "
            f"{len(document.media)} images and sounds",
            "write U+FFFC in the text for each",
        )
    for media in document.media:
        if media.problem:
            raise DataError(media.problem, "give an intact file")
        MEDIA[media.kind].check(media.data, media.name or f"{media.kind} of document {document.id!r}")


def _row(document: Document, digest: str, size: int, split: str) -> tuple[Any, ...]:
    return digest, document.text, document.source, document.licence, split, size, document.id


def _is_held(document: Document, digest: bytes, holdout: float, seed: int) -> bool:
    own = document.meta.get("split")
    if own is not None:
        if own not in SPLITS:
            raise DataError(
                f"document {document.id!r} of '{document.source}': split {own!r}",
                f"accepted: {', '.join(SPLITS)}",
            )
        return SPLITS[own] == HOLDOUT
    mixed = hashlib.sha256(b"split:%d:" % seed + digest).digest()
    return float(struct.unpack(">Q", mixed[:8])[0]) < holdout * 2.0**64


def _fingerprint(held: Mapping[bytes, bool]) -> str:
    total = hashlib.sha256()
    for digest in sorted(held):
        total.update(digest + (b"h" if held[digest] else b"t"))
    return f"ds1-{total.hexdigest()}"


def _move(writer: ArtifactWriter, files: list[str], moved: set[str]) -> None:
    """Rewrite the split of documents whose copies disagreed (rare)."""
    for name in files if moved else []:
        table = pq.read_table(writer.path(name))
        hit = pc.is_in(table["hash"], value_set=pa.array(sorted(moved)))
        if pc.any(hit).as_py():
            split = pc.if_else(hit, HOLDOUT, table["split"])
            table = table.set_column(table.schema.get_field_index("split"), "split", split)
            with disk_errors(writer.path(name)):
                pq.write_table(table, writer.path(name), compression="zstd")


def _count(writer: ArtifactWriter, files: list[str], stats: dict[str, _Source]) -> None:
    """Count documents and bytes per source and split, from the stored shards."""
    for name in files:
        table = pq.read_table(writer.path(name), columns=["source", "split", "bytes"])
        grouped = table.group_by(["source", "split"]).aggregate([("bytes", "sum"), ("bytes", "count")])
        for row in grouped.to_pylist():
            source = stats[row["source"]]
            source.documents += row["bytes_count"]
            source.bytes += row["bytes_sum"]
            if row["split"] == HOLDOUT:
                source.holdout_documents += row["bytes_count"]
                source.holdout_bytes += row["bytes_sum"]


def _record(facts: Mapping[str, Any], origins: Mapping[str, str], stated: str) -> Record:
    record = Record(kind=KIND, hashes={"fingerprint": facts["fingerprint"]}, parents=[], events=[])
    for key in ("seed", "holdout"):
        record.add(key, facts[key], origins[key])
    for name, source in facts["sources"].items():
        for key, value in source.items():
            if key != "licence":
                record.add(f"sources.{name}.{key}", value, f"{Origin.COUNTED} while preparing")
        known = source["licence"] != UNKNOWN
        note = stated if known else f"{Origin.UNKNOWN}: nobody stated it"
        record.add(f"sources.{name}.licence", source["licence"] if known else None, note)
    return record
