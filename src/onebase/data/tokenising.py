"""Writes a split of a dataset as arrays of token ids, with a table of its media."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onebase.artifact.files import ArtifactWriter, canonical_json, write_atomic
from onebase.artifact.raw import save_array
from onebase.config_plain import to_dict
from onebase.data import bad_rows
from onebase.data.captions import CAPTIONED, caption_tokens, picture_row
from onebase.data.dataset import Dataset
from onebase.data.media_table import ROW, table_rows
from onebase.data.sources import MARK, Document
from onebase.errors import DataError
from onebase.modality.image.config import ImageCodecConfig
from onebase.modality.media import MEDIA
from onebase.modality.patches.config import PatchConfig
from onebase.modality.patches.tokens import MediaCodec
from onebase.modality.text import TextCodec, Tokenizer, Tokens
from onebase.modality.text.sample import Sample, Segment

SCHEMA = 1
CHUNK_BYTES = 2 << 20
#: one per document: array, offset in it, number of tokens (BOS and EOS included), index into `sources`
PLACE = np.dtype([("shard", "<u4"), ("start", "<u8"), ("length", "<u8"), ("source", "<u4")])
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tokenising:
    """How the documents of a split become tokens. patches: the codecs of their media, by name. pictures: of captions with pictures beside them."""

    dataset: Dataset
    split: str
    tokenizer: Tokenizer
    patches: Mapping[str, PatchConfig]
    pictures: ImageCodecConfig | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What the result depends on."""
        media: dict[str, Any] = {}
        if self.pictures is not None:
            media = {"captions": 1}  # a version: what tokens the captions become
        elif self._has_media:
            media = {"media": {k: to_dict(v) for k, v in self.patches.items()}}
        return {
            "schema": SCHEMA,
            "dataset": self.dataset.fingerprint,
            "tokenizer": self.tokenizer.digest,
            "split": self.split,
        } | media

    @property
    def _has_media(self) -> bool:
        return bool(self.dataset.media_files)

    def check(self) -> None:
        """Raises DataError for an empty split, and for media without codecs."""
        if self.pictures is not None and not self._has_media:
            raise DataError(
                f"{self.dataset.dir} has no images, and objective contrastive learns pictures with captions",
                "give sources of kind imagefolder, webdataset, or parquet with images (docs/data.md)",
            )
        if self._has_media and not self.patches and self.pictures is None:
            raise DataError(
                f"{self.dataset.dir} has images or audio, and this base reads text alone",
                "list them in the recipe: modalities: [{kind: image_patches}], objective: {kind: mixed}; or learn captions by objective contrastive; "
                "or prepare the sources of text by themselves",
            )
        if self.dataset.count(self.split) == 0:
            raise DataError(
                f"the split '{self.split}' of {self.dataset.dir} has no documents",
                "raise `holdout` or give more documents" if self.split == "holdout" else "lower `holdout`",
            )

    def write(self, writer: ArtifactWriter, fingerprint: str) -> None:
        """Write ids by shard, places and names of the documents, sorted by hash, and the table of media."""
        sources = sorted(self.dataset.stats)
        first = self.tokenizer.begun([])
        dtype = np.uint16 if self.tokenizer.vocab_size <= 1 << 16 else np.uint32
        shards, left_out = list[str](), list[str]()
        hashes: list[bytes] = []
        places: list[NDArray[Any]] = []
        media: list[NDArray[np.void]] = []
        for shard in self.dataset.shards:
            parts, lengths, owners = list[NDArray[Any]](), list[int](), list[int]()
            for row, tokens in self._read(shard, left_out):
                parts.append(tokens.ids.astype(dtype))
                lengths.append(len(tokens))
                owners.append(sources.index(row["source"]))
                if self.pictures is not None:
                    media.append(picture_row(len(hashes), tokens))
                elif tokens.media:
                    media.append(table_rows(len(hashes), tokens, list(self.patches)))
                hashes.append(bytes.fromhex(row["hash"]))
            if not parts:
                continue
            place = np.zeros(len(parts), PLACE)
            place["shard"], place["length"], place["source"] = len(shards), lengths, owners
            place["start"] = np.cumsum(place["length"]) - place["length"]
            places.append(place)
            shards.append(f"ids-{len(shards):05d}.npy")
            save_array(writer.path(shards[-1]), np.concatenate(parts))
        _tell(left_out, len(hashes))
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
        if self._has_media:
            found = np.concatenate(media) if media else np.zeros(0, ROW)
            numbers = np.empty(len(order), np.int64)
            numbers[order] = np.arange(len(order))
            found["document"] = numbers[found["document"].astype(np.int64)]
            save_array(writer.path("media.npy"), found[np.lexsort((found["start"], found["document"]))])
            names_of = [CAPTIONED] if self.pictures is not None else list(self.patches)
            facts |= {"media": names_of, "left_out": len(left_out)}
        write_atomic(writer.path("tokens.json"), canonical_json(facts).encode())

    def _read(self, shard: str, left_out: list[str]) -> Iterator[tuple[dict[str, Any], Tokens]]:
        """Each row of a shard, and its tokens. A document whose media do not fit is left out, and named."""
        end = [] if self.tokenizer.eos is None else [self.tokenizer.eos]
        codec = MediaCodec(TextCodec(self.tokenizer), self.patches)
        for rows in _chunks(self.dataset.rows(shard, self.split)):
            if "media" in rows[0] or self.pictures is not None:
                for row in rows:
                    if self.pictures is None:
                        self._check_kinds(row)
                    try:
                        yield row, self._with_media(codec, row)
                    except DataError as e:
                        left_out.append(f"{row['id']} ({row['source']}): {e.cause}")
                continue
            for row, ids in zip(rows, self.tokenizer.encode_batch([r["text"] for r in rows]), strict=True):
                whole = np.asarray([*self.tokenizer.begun(ids), *end], np.int32)
                yield row, Tokens(whole, np.ones(len(whole), np.bool_))

    def _check_kinds(self, row: dict[str, Any]) -> None:
        """Raise DataError for media that no document of this base could have."""
        for m in row["media"]:
            if (codec := MEDIA[m["kind"]].codec) not in self.patches:
                raise DataError(
                    f"document {row['id']} ({row['source']}) has {m['kind']}, and the modalities are {', '.join(self.patches)}",
                    f"add {{kind: {codec}}} to modalities in the recipe, or leave the source out",
                )

    def _with_media(self, codec: MediaCodec, row: dict[str, Any]) -> Tokens:
        media = tuple(self.dataset.media(m["digest"]) for m in row.get("media", ()))
        document = Document(row["text"], row["source"], id=row["id"], media=media)
        if self.pictures is not None:
            return caption_tokens(document, self.tokenizer, self.pictures)
        return codec.tokens(media_sample(document))


def media_sample(document: Document) -> Sample:
    """A document to pretrain on: its text, its media in their places, and its end. The text is supervised."""
    segments: list[Segment] = []
    texts = document.text.split(MARK) if document.media else [document.text]
    for text, file in zip(texts, [*document.media, None], strict=True):
        if text:
            segments.append(Segment("text", text, loss=True))
        if file is not None:
            segments.append(Segment(file.kind, file.data))
    return Sample((*segments, Segment("end", None, loss=True)), document.id, document.source)


def _tell(left_out: list[str], kept: int) -> None:
    if not left_out:
        return
    told = bad_rows.left_out(left_out, "their media do not fit")
    if not kept:
        raise DataError(told, "raise `limit` of the modality, or give other documents")
    log.warning("%s", told)


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
