"""Where the media of a token set stand, and how they are read: by the hash of their bytes, from the dataset that has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from onebase.data.sources import MediaFile
from onebase.errors import ArtifactError, DataError
from onebase.modality.media import coordinates, of_codec
from onebase.modality.patches.config import PatchConfig
from onebase.modality.text.sample import Media, MediaContent, Tokens

AXES = 3
#: one per image or sound, by document: its first token in it, tokens that open it, index of its codec, patches along each axis (0: no such axis),
#: SHA-256 of its bytes
ROW = np.dtype(
    [
        ("document", "<u8"),
        ("start", "<u8"),
        ("opening", "<u4"),
        ("codec", "<u4"),
        ("shape", "<u4", AXES),
        ("digest", "u1", 32),
    ]
)


@dataclass(frozen=True)
class MediaTable:
    """rows: ROW [M], sorted by document and start. codecs: by name, in the order of their indices. read: a file by its hash (64 hex digits)."""

    rows: NDArray[np.void]
    codecs: Mapping[str, PatchConfig]
    read: Callable[[str], MediaFile]

    def groups(self, document: int) -> list[tuple[int, int]]:
        """First and last token (exclusive) of each media of a document with its opening and its end: nothing between may be cut."""
        return [(m.start - m.opening, m.stop + 1) for m in self.of(document)]

    def of(self, document: int, first: int = 0, last: int | None = None) -> tuple[Media, ...]:
        """The media between two tokens of a document, `start` counted from the first."""
        a, b = np.searchsorted(self.rows["document"], [document, document + 1])
        found = [self._media(row) for row in self.rows[a:b]]
        return tuple(
            Media(m.kind, m.start - first, m.content, m.noise, m.opening)
            for m in found
            if m.start >= first and (last is None or m.stop <= last)
        )

    @property
    def documents(self) -> NDArray[np.int64]:
        """Numbers of the documents with media, ascending."""
        numbers: NDArray[np.int64] = np.unique(self.rows["document"]).astype(np.int64)
        return numbers

    def _media(self, row: np.void) -> Media:
        codec = list(self.codecs)[int(row["codec"])]
        shape = tuple(int(n) for n in row["shape"] if n)
        digest = bytes(row["digest"]).hex()
        load = partial(self._load, digest, codec, shape)
        shown = self.codecs[codec].shown(shape)
        content = MediaContent(
            digest, int(np.prod(shape)), load, digest[:12], shape, shown, partial(self._raw, digest)
        )
        return Media(codec, int(row["start"]), content, False, int(row["opening"]))

    def _raw(self, digest: str) -> tuple[bytes, str]:
        file = self.read(digest)
        return file.data, file.name

    def _load(
        self, digest: str, codec: str, shape: tuple[int, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        file, kind = self.read(digest), of_codec(codec)
        patch_NP = kind.patches(file.data, self.codecs[codec], file.name).numpy()
        if len(patch_NP) != np.prod(shape):
            raise ArtifactError(
                f"{file.name} has {len(patch_NP):,} patches, and had {np.prod(shape):,} when it was tokenised",
                "tokenise the dataset again: remove the run's folder tokens/",
            )
        return patch_NP, coordinates(shape)


def table_rows(document: int, tokens: Tokens, codecs: Sequence[str]) -> NDArray[np.void]:
    """The rows of a tokenised document."""
    rows = np.zeros(len(tokens.media), ROW)
    for row, m in zip(rows, tokens.media, strict=True):
        shape = m.content.shape
        if not 1 <= len(shape) <= AXES:
            raise DataError(f"{m.content.name}: patches along {len(shape)} axes", f"give 1 to {AXES}")
        row["document"], row["start"], row["opening"] = document, m.start, m.opening
        row["codec"], row["digest"] = codecs.index(m.kind), list(bytes.fromhex(m.content.digest))
        row["shape"][: len(shape)] = shape
    return rows
