"""Pictures with captions: the caption's tokens, and the picture beside them, which takes no place in the text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from onebase.data.media_table import ROW
from onebase.data.sources import MARK, Document, MediaFile
from onebase.errors import DataError
from onebase.modality.image.config import ImageCodecConfig
from onebase.modality.text import Tokenizer, Tokens
from onebase.modality.text.sample import Media, MediaContent

Placed = NDArray[np.int64]
CAPTIONED = "captioned pictures"
"""In the list of codecs of a token set: it has a picture beside each text."""


def caption(document: Document) -> str:
    """The text of a document without the place of its picture. Raises DataError for one that is not one picture with a caption."""
    text = document.text.replace(MARK, "").strip()
    kinds = [m.kind for m in document.media]
    if kinds != ["image"] or not text:
        found = ", ".join(kinds) or "no picture"
        raise DataError(
            f"it has {found} and {'a' if text else 'no'} caption",
            "give documents of one picture and a caption",
        )
    return text


def caption_tokens(document: Document, tokenizer: Tokenizer, codec: ImageCodecConfig) -> Tokens:
    """The caption in the tokenizer's frame of a complete text, and its picture, which is decoded once to see that it can be. Raises DataError."""
    from onebase.modality.image.pixels import prepared, read_picture

    text, (file,) = caption(document), document.media
    prepared(read_picture(file.data, file.name), codec, file.name)
    ids = np.asarray(tokenizer.framed(tokenizer.encode(text)), np.int32)
    loss = np.ones(len(ids), np.bool_)
    loss[0] = False
    media = (Media("image", 0, content(file.digest, codec, lambda _: file), opening=0),)
    return Tokens(ids, loss, document.id, document.source, media=media)


def content(digest: str, codec: ImageCodecConfig, read: Callable[[str], MediaFile]) -> MediaContent:
    """A picture as a content of samples, with no tokens in the text. Its `load` gives the pixels, fp32 [C, side, side]."""
    side = codec.side // codec.patch
    load = partial(_pixels, digest, codec, read)
    return MediaContent(digest, 0, load, digest[:12], (side, side), f"image {codec.side}x{codec.side}")


def _pixels(
    digest: str, codec: ImageCodecConfig, read: Callable[[str], MediaFile]
) -> tuple[NDArray[np.float32], Placed]:
    from onebase.modality.image.pixels import prepared, read_picture

    file = read(digest)
    pixels_CHW: NDArray[np.float32] = prepared(read_picture(file.data, file.name), codec, file.name).numpy()
    return pixels_CHW, np.zeros((0, 2), np.int64)


@dataclass(frozen=True)
class PictureTable:
    """The pictures of a token set of captions. rows: as of `media_table.MediaTable`, one of each document, in order. read: a file by its hash."""

    rows: NDArray[np.void]
    codec: ImageCodecConfig
    read: Callable[[str], MediaFile]

    @property
    def documents(self) -> Placed:
        """Numbers of the documents with pictures: all."""
        return np.arange(len(self.rows), dtype=np.int64)

    def groups(self, document: int) -> list[tuple[int, int]]:
        """Tokens that may not be parted: none, because pictures take no place."""
        return []

    def of(self, document: int, first: int = 0, last: int | None = None) -> tuple[Media, ...]:
        """The picture of a document."""
        digest = bytes(self.rows[document]["digest"]).hex()
        return (Media("image", 0, content(digest, self.codec, self.read), opening=0),)


def picture_row(document: int, tokens: Tokens) -> NDArray[np.void]:
    """The row of a tokenised document, for the table."""
    row = np.zeros(1, ROW)
    row["document"], row["digest"] = document, list(bytes.fromhex(tokens.media[0].content.digest))
    return row
