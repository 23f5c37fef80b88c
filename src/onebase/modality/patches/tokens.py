"""Samples with images and sounds as tokens: each stands as its opening, a token for every patch, and a token that ends it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from onebase.errors import DataError
from onebase.modality.patches.config import ImagePatchesConfig, PatchConfig, SoundPatchesConfig
from onebase.modality.patches.contents import image_content, sound_content
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.sample import Media, MediaContent, Sample, Segment, Tokens

IMAGE, AUDIO, PATCHES, END_MEDIA = "<|image|>", "<|audio|>", "<|patches|>", "<|end_media|>"
MEDIA_SPECIALS = (IMAGE, AUDIO, PATCHES, END_MEDIA)
"""Special tokens that a tokenizer for media has beside those of text."""


@dataclass(frozen=True)
class MediaCodec:
    """Turns samples of text, images and audio into tokens. An opening says how many patches follow: `<|image|>28x12<|patches|>`,
    `<|audio|>25<|patches|>`; the patches stand in the places of as many `<|patches|>`, and `<|end_media|>` follows.

    A segment of kind `image` or `audio` has a file or its bytes as its data; with `loss` it is trained to be generated."""

    text: TextCodec
    patches: Mapping[str, PatchConfig]

    def tokens(self, sample: Sample) -> Tokens:
        """The sample as tokens. Raises DataError for a kind of segment that this base has no codec for, and for a damaged file."""
        flat: list[Segment] = []
        contents: list[tuple[str, MediaContent, bool]] = []
        for segment in sample.segments:
            if segment.kind not in ("image", "audio"):
                flat.append(segment)
                continue
            kind, content, opening, size = self._content(segment)
            contents.append((kind, content, segment.loss))
            flat += [
                Segment("special", opening, segment.loss),
                Segment("text", size, segment.loss),
                Segment("special", PATCHES, segment.loss),
                Segment("special", END_MEDIA, not segment.loss),
            ]
        read = self.text.tokens(replace(sample, segments=tuple(flat)))
        return self._with_patches(read, contents)

    def opening(self, kind: str, size: tuple[int, int] | int) -> list[int]:
        """The ids that announce an image of so many patches across and down, or a sound of so many patches."""
        tok = self.text.tokenizer
        shown = f"{size[0]}x{size[1]}" if isinstance(size, tuple) else str(size)
        first = IMAGE if kind == "image_patches" else AUDIO
        return [
            tok.id_of(first),
            *tok.encode(shown, follows="special"),
            tok.id_of(PATCHES),
        ]

    def _content(self, segment: Segment) -> tuple[str, MediaContent, str, str]:
        for kind, cfg in self.patches.items():
            if segment.kind == "image" and isinstance(cfg, ImagePatchesConfig):
                content, (across, down) = image_content(segment.data, cfg)
                return kind, content, IMAGE, f"{across}x{down}"
            if segment.kind == "audio" and isinstance(cfg, SoundPatchesConfig):
                content = sound_content(segment.data, cfg)
                return kind, content, AUDIO, str(content.count)
        raise DataError(
            f"this base has no codec for segments of kind {segment.kind!r}",
            f"it reads text{''.join(f', {k}' for k in self._kinds())}",
        )

    def _kinds(self) -> Iterable[str]:
        kinds = {"image_patches": "image", "sound_patches": "audio"}
        return (kinds[k] for k in self.patches)

    def _with_patches(self, read: Tokens, contents: list[tuple[str, MediaContent, bool]]) -> Tokens:
        """Each `<|patches|>` of an opening followed by one token for each patch."""
        if not contents:
            return read
        tok = self.text.tokenizer
        mark, opens = tok.id_of(PATCHES), {tok.id_of(IMAGE), tok.id_of(AUDIO)}
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
