"""Samples with media as tokens: each stands as its opening, a token for every patch, and a token that ends it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onebase.errors import DataError
from onebase.modality.media import MEDIA, of_codec
from onebase.modality.patches.config import PatchConfig
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.sample import Media, MediaContent, Sample, Segment, Tokens

PATCHES, END_MEDIA = "<|patches|>", "<|end_media|>"


def media_specials(codecs: Iterable[str]) -> tuple[str, ...]:
    """Special tokens that a tokenizer for these codecs has beside those of text."""
    return (*(of_codec(name).special for name in codecs), PATCHES, END_MEDIA)


MEDIA_SPECIALS = media_specials(("image_patches", "sound_patches"))
"""Those of a tokenizer for images and audio."""


@dataclass(frozen=True)
class MediaCodec:
    """Turns samples of text and media into tokens. An opening says how many patches follow: `<|image|>28x12<|patches|>` (across and down),
    `<|audio|>25<|patches|>`; the patches stand in the places of as many `<|patches|>`, and `<|end_media|>` follows.

    A segment of a kind of media has a file, its bytes or a MediaContent as its data; with `loss` it is trained to be generated."""

    text: TextCodec
    patches: Mapping[str, PatchConfig]

    def tokens(self, sample: Sample) -> Tokens:
        """The sample as tokens. Raises DataError for a kind of segment that this base has no codec for, and for a damaged file."""
        flat: list[Segment] = []
        contents: list[tuple[str, MediaContent, bool]] = []
        for segment in sample.segments:
            if segment.kind not in MEDIA:
                flat.append(segment)
                continue
            codec, content = self.content(segment)
            contents.append((codec, content, segment.loss))
            flat += [
                Segment("special", of_codec(codec).special, segment.loss),
                Segment("text", _size(content.shape), segment.loss),
                Segment("special", PATCHES, segment.loss),
                Segment("special", END_MEDIA, not segment.loss),
            ]
        read = self.text.tokens(replace(sample, segments=tuple(flat)))
        return self._with_patches(read, contents)

    def opening(self, codec: str, shape: Sequence[int]) -> list[int]:
        """The ids that announce media of so many patches along each coordinate."""
        tok = self.text.tokenizer
        return [
            tok.id_of(of_codec(codec).special),
            *tok.encode(_size(tuple(shape)), follows="special"),
            tok.id_of(PATCHES),
        ]

    def content(self, segment: Segment) -> tuple[str, MediaContent]:
        """The codec of a segment, and its data as patches. Raises DataError."""
        kind = MEDIA[segment.kind]
        if (cfg := self.patches.get(kind.codec)) is None:
            known = "".join(f", {of_codec(k).name}" for k in self.patches)
            raise DataError(
                f"this base has no codec for segments of kind {segment.kind!r}", f"it reads text{known}"
            )
        if isinstance(segment.data, MediaContent):
            return kind.codec, segment.data
        return kind.codec, kind.content(segment.data, cfg, "")

    def _with_patches(self, read: Tokens, contents: list[tuple[str, MediaContent, bool]]) -> Tokens:
        """Each `<|patches|>` of an opening followed by one token for each patch."""
        if not contents:
            return read
        tok = self.text.tokenizer
        mark, opens = tok.id_of(PATCHES), {tok.id_of(of_codec(name).special) for name in self.patches}
        begins = np.flatnonzero(np.isin(read.ids, list(opens)))
        ends = np.flatnonzero(read.ids == mark)
        assert len(begins) == len(ends) == len(contents), "special tokens come from segments alone"
        ids, loss, media, done = [], [], [], 0
        size = 0
        for begin, end, (kind, content, noise) in zip(begins, ends, contents, strict=True):
            ids += [read.ids[done : end + 1], np.full(content.count, mark, np.int32)]
            loss += [read.loss[done : end + 1], np.zeros(content.count, np.bool_)]
            size += int(end) + 1 - done
            media.append(Media(kind, size, content, noise, int(end - begin) + 1))
            size, done = size + content.count, int(end) + 1
        ids.append(read.ids[done:])
        loss.append(read.loss[done:])
        return replace(read, ids=np.concatenate(ids), loss=np.concatenate(loss), media=tuple(media))


def _size(shape: tuple[int, ...]) -> str:
    """ "28x12" of 12 patches down and 28 across: the last coordinate first, as sizes of images are written."""
    return "x".join(map(str, reversed(shape)))
