"""Prompts with media for a base of patches: their ids, and where the patches stand in a batch. B rows, T time."""

from collections.abc import Sequence
from pathlib import Path

import torch

from onebase.base.folder import LoadedBase
from onebase.base.model import BaseModel
from onebase.base.patches import Patches
from onebase.errors import UserError
from onebase.modality.media import MEDIA, of_codec
from onebase.modality.patches.tokens import MediaCodec
from onebase.modality.text.sample import Media, Sample, Segment, Tokens
from onebase.model.mask import Cols


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


def positions_after(prompt: int, media: Sequence[Media]) -> int:
    """The position of the next token: media have one position each."""
    return prompt - sum(len(m) - 1 for m in media)


def with_media(
    base: BaseModel, cols: Cols, media: Sequence[Sequence[Media]], lengths: Sequence[int]
) -> tuple[Cols, dict[str, Patches]]:
    """Columns [B, T] of rows padded on the left, with the media of each row (clean) in their places, and the patches by codec."""
    T, device = cols.shape[1], cols.pos.device
    pos, block, kind = cols.pos.clone(), torch.full_like(cols.pos, -1), torch.zeros_like(cols.pos)
    names = base.trunk.cfg.groups
    parts: dict[str, list[Patches]] = {}
    for b, row in enumerate(media):
        for n, m in enumerate(row):
            start = T - lengths[b] + m.start
            stop = start + len(m)
            pos[b, start:stop] = pos[b, start].clone()
            pos[b, stop:] -= len(m) - 1
            block[b, start:stop] = n
            kind[b, start:stop] = names.index(base.patches[m.kind].cfg.group) if names else 0
            patch_NP, at_NK = (torch.from_numpy(x).to(device) for x in m.content.load())
            clean = torch.ones(len(m), device=device)
            place = b * T + torch.arange(start, stop, device=device)
            parts.setdefault(m.kind, []).append(Patches(patch_NP, at_NK, clean, place))
    joined = {
        name: Patches(
            *(torch.cat([getattr(p, k) for p in found]) for k in ("patch_NP", "at_NK", "t_N", "place_N"))
        )
        for name, found in parts.items()
    }
    return Cols(pos, cols.doc, block, kind), joined
