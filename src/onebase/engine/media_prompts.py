"""Prompts with media for a base of patches: what turns them into tokens, and the positions behind them."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from onebase.base.folder import LoadedBase
from onebase.errors import UserError
from onebase.modality.media import MEDIA, of_codec
from onebase.modality.patches.tokens import PATCHES, MediaCodec
from onebase.modality.text.sample import Media, Sample, Segment, Tokens


def media_codec(base: LoadedBase, need: str | None = None) -> MediaCodec:
    """What turns text and media into tokens for this base. Raises UserError for a base without media, or without the one that is needed."""
    patches = {name: m.cfg for name, m in base.model.patches.items()}
    if not patches or (need is not None and MEDIA[need].codec not in patches):
        apart = "text alone" if len(base.model.codecs) == 1 else "text, and media apart from it"
        reads = ", ".join(("text", *(of_codec(c).name for c in patches))) if patches else apart
        raise UserError(
            f"this base has no patches of {need or 'media'}: it reads {reads}",
            "pretrain one with modalities in its recipe (docs/native.md)",
        )
    return MediaCodec(base.codec, patches)


def media_tokens(base: LoadedBase, *parts: tuple[str, str | Path | bytes]) -> Tokens:
    """A prompt of parts such as ("image", path) and ("text", text), to be continued. Raises UserError, DataError naming a file."""
    need = next((kind for kind, _ in parts if kind != "text"), None)
    codec = media_codec(base, need)
    return codec.tokens(Sample(tuple(Segment(kind, data) for kind, data in parts)))


def media_column(base: LoadedBase, columns: Collection[str]) -> str | None:
    """The column that holds files which a base of patches reads in its text; None where the rows are texts, or the base reads no such files."""
    known = base.model.patches
    return (
        next((m.name for m in MEDIA.values() if m.codec in known and m.name in columns), None)
        if "text" not in columns
        else None
    )


def file_tokens(base: LoadedBase, kind: str, source: str | Path | bytes) -> Tokens:
    """A file alone, as a head reads it: the beginning of a text; for a base that attends both ways (`objective: masked_patches`) its patches and nothing
    else, as it was trained. Raises UserError, DataError naming a file."""
    if base.model.trunk.cfg.direction == "causal":
        return media_tokens(base, (kind, source))
    codec, content = media_codec(base, kind).content(Segment(kind, source))
    ids = np.full(content.count, base.codec.tokenizer.id_of(PATCHES), np.int32)
    return Tokens(ids, np.zeros(len(ids), np.bool_), media=(Media(codec, 0, content, opening=0),))


def positions_after(prompt: int, media: Sequence[Media]) -> int:
    """The position of the next token: media have one position each."""
    return prompt - sum(len(m) - 1 for m in media)
