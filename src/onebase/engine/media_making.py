"""Images and sounds made by a base: it writes what follows a prompt, how large, and then its patches. N patches, P values, B made at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.engine.decoder import generate
from onebase.engine.drawing import Drawing, drawn
from onebase.engine.media_prompts import media_codec
from onebase.engine.sampler import Sampling
from onebase.errors import UserError
from onebase.modality.media import MEDIA, MediaKind, coordinates
from onebase.modality.patches.tokens import PATCHES
from onebase.modality.text.sample import Sample, Segment
from onebase.model.proj import AdapterRouting

DIGITS = 12
"""Tokens that a size may take."""


@dataclass(frozen=True)
class Made:
    """Clean patches fp32 [N, P] of a shape; `data` is the file that shows them (PNG, WAV)."""

    patch_NP: Tensor
    shape: tuple[int, ...]
    kind: MediaKind
    cfg: Any

    @property
    def data(self) -> bytes:
        return self.kind.encode(self.patch_NP.cpu(), self.shape, self.cfg)


def made(
    base: LoadedBase,
    name: str,
    prompt: str,
    count: int,
    how: Drawing,
    *,
    shape: tuple[int, ...] | None = None,
    known: tuple[Tensor, Tensor] | None = None,
    start: tuple[Tensor, float] | None = None,
    routing: AdapterRouting | None = None,
) -> list[Made]:
    """`count` images or sounds (`name`) behind a prompt. shape: patches along each coordinate (None: the base says how many). known, start: as for
    `engine.drawing.drawn`. Raises UserError for a base that makes none, and where the base names no size that can be."""
    if count < 1:
        raise UserError(f"n is {count}", "give at least 1")
    codec = media_codec(base, name)
    kind = MEDIA[name]
    cfg = codec.patches[kind.codec]
    segments = (Segment("text", prompt),) if prompt else ()
    ids = base.codec.tokens(Sample(segments)).ids.tolist()
    shape = shape or _shape(base, ids, kind, cfg, routing)
    opening = codec.opening(kind.codec, shape)
    first = base.codec.tokens(Sample(())).ids.tolist()
    at_NK = torch.from_numpy(coordinates(shape)).to(base.model.device)
    found_BNP = drawn(
        base.model,
        kind.codec,
        [*ids, *opening],
        at_NK,
        count,
        how,
        unprompted=[*first, *opening],
        known=known,
        start=start,
        routing=routing,
    )
    return [Made(patch_NP, shape, kind, cfg) for patch_NP in found_BNP]


def _shape(
    base: LoadedBase, ids: Sequence[int], kind: MediaKind, cfg: Any, routing: AdapterRouting | None
) -> tuple[int, ...]:
    """The size that the base writes behind the token which opens the media."""
    tok = base.codec.tokenizer
    mark = tok.id_of(PATCHES)
    sampling = Sampling(DIGITS, 0.0)
    (said,) = generate(base, [[*ids, tok.id_of(kind.special)]], sampling, routing)
    written = list(said.ids)
    text = tok.decode(written[: written.index(mark)]) if mark in written else ""
    sides = text.strip().split("x")
    remedy = "give size=, or train it longer on such media"
    if not all(s.isascii() and s.isdigit() and 0 < len(s) < 6 for s in sides) or len(sides) != cfg.axes:
        shown = tok.decode(written, skip_special=False)
        raise UserError(f"the base writes no size of the {kind.name}: {shown!r}", remedy)
    shape = tuple(int(s) for s in reversed(sides))
    if not 0 < (count := torch.Size(shape).numel()) <= cfg.limit:
        raise UserError(
            f"the base writes the size {text}, {count:,} patches; the limit is {cfg.limit:,}", remedy
        )
    return shape
