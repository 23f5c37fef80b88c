"""Parquet shards of a dataset in the making: documents, and the media that they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from onebase.artifact.disk import disk_errors
from onebase.artifact.files import ArtifactWriter
from onebase.data.sources import MediaFile

COLUMNS = pa.schema(
    [
        ("hash", pa.string()),
        ("text", pa.string()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("split", pa.string()),
        ("bytes", pa.int64()),
        ("id", pa.string()),
    ]
)
MEDIA_COLUMNS = COLUMNS.append(
    pa.field("media", pa.list_(pa.struct([("kind", pa.string()), ("digest", pa.string())])))
)
"""Of shards of documents with media. Those without stay in shards of their own, as they always were."""
BLOB_COLUMNS = pa.schema([("digest", pa.string()), ("kind", pa.string()), ("data", pa.binary())])
GROUP_BYTES = 4 << 20
BLOB_GROUP_BYTES = 512 << 10
"""Of media, which are read one by one in the order of training."""


class Shards:
    """Writes rows as Parquet: a row group per `group` bytes of content, a new file per `limit` bytes."""

    def __init__(
        self,
        writer: ArtifactWriter,
        limit: int,
        prefix: str = "shard",
        columns: pa.Schema = COLUMNS,
        group: int = GROUP_BYTES,
    ) -> None:
        self._writer, self._limit, self._group = writer, limit, group
        self._prefix, self._columns = prefix, columns
        few = [name for name in columns.names if name != "data"]
        # A dictionary and the least and largest value would be copies of whole files of media.
        self._copies: dict[str, Any] = (
            {} if len(few) == len(columns.names) else {"use_dictionary": few, "write_statistics": few}
        )
        self._files: list[str] = []
        self._open: pq.ParquetWriter | None = None
        self._rows: list[tuple[Any, ...]] = []
        self._pending = self._filled = 0

    def add(self, row: tuple[Any, ...], size: int) -> None:
        self._rows.append(row)
        self._pending += size
        if self._pending >= min(self._group, self._limit) or self._filled + self._pending >= self._limit:
            self._flush()
        if self._filled >= self._limit:
            self._end()

    def close(self) -> list[str]:
        self._flush()
        self._end()
        return self._files

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._open is None:
            self._files.append(f"{self._prefix}-{len(self._files):05d}.parquet")
            path = self._writer.path(self._files[-1])
            with disk_errors(path):
                self._open = pq.ParquetWriter(path, self._columns, compression="zstd", **self._copies)
        columns = zip(*self._rows, strict=True)
        arrays = [pa.array(c, f.type) for c, f in zip(columns, self._columns, strict=True)]
        table = pa.table(arrays, schema=self._columns)
        with disk_errors(self._writer.path(self._files[-1])):
            self._open.write_table(table)
        self._filled += self._pending
        self._rows, self._pending = [], 0

    def _end(self) -> None:
        if self._open is not None:
            with disk_errors(self._writer.path(self._files[-1])):
                self._open.close()
        self._open, self._filled = None, 0


class Blobs:
    """Stores each image or sound once, whatever documents have it."""

    def __init__(self, shards: Shards) -> None:
        self._shards, self._known = shards, set[str]()

    def add(self, media: Sequence[MediaFile]) -> int:
        """Store those that are new. Returns their bytes."""
        size = 0
        for m in media:
            if m.digest not in self._known:
                self._known.add(m.digest)
                self._shards.add((m.digest, m.kind, m.data), len(m.data))
                size += len(m.data)
        return size

    def close(self) -> list[str]:
        return self._shards.close()
