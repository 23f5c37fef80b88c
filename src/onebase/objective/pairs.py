"""Contrastive pretraining on pictures with captions: each picture must find its caption among those of the step, on all processes.

B pairs of the step, b of this process, R packed rows of captions, T tokens of a row, P vectors of a picture, D width, E width of the space. Losses of CLIP (2103.00020)
and of SigLIP (2303.15343). Captions share rows without padding between them; a batch is read in chunks if it must be (GradCache, 2101.06983).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from onebase.base.link_modules import PairLink
from onebase.base.model import BaseModel
from onebase.data.sources import MediaFile
from onebase.draws import Draws
from onebase.modality.image.augment import Augment, augmented
from onebase.modality.image.config import ImageCodecConfig
from onebase.modality.image.pixels import prepared, read_picture
from onebase.modality.text.sample import Tokens
from onebase.model.mask import Cols
from onebase.objective.base import Batch, Losses, Row, TrunkInput, count_sources
from onebase.objective.gather import gathered
from onebase.objective.image_text import pair_loss
from onebase.objective.padding import shared_rows

ROWS = 4
"""Packed rows are a multiple of this: few different shapes, for compiled blocks."""
MOST = 100.0
"""The largest factor of a cosine with CLIP's loss, as in the paper."""


@dataclass(frozen=True)
class CaptionPairs:
    """A row is one caption with one picture beside it. Pairs with the same caption, or the same picture, are not each other's negatives.

    length: tokens of a packed row, and of the longest caption; a longer one ends there, with `end`. media: a file by the hash of its bytes.
    augment: how pictures are changed each time they are read (None: not at all). chunk: pairs read at a time (0: all).
    """

    length: int
    end: int
    codec: ImageCodecConfig
    media: Callable[[str], MediaFile]
    augment: Augment | None = None
    seed: int = 0
    chunk: int = 0
    reserve: int = 0
    whole_step: bool = True
    gathers: bool = True

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        inputs: dict[str, TrunkInput] = {}
        targets: dict[str, Tensor] = {}
        size = self.chunk or len(rows)
        for n, i in enumerate(range(0, len(rows), size)):
            part = rows[i : i + size]
            inputs[f"text {n}"], targets[f"last {n}"] = packed_captions(
                [ended(row[0].ids, self.length, self.end) for row in part], self.length
            )
            pixels = torch.stack([self._pixels(row[0], first + i + b) for b, row in enumerate(part)])
            inputs[f"image {n}"] = TrunkInput(pixels, Cols.simple(len(part), 1))
        targets["text"] = torch.tensor([_number(row[0].ids.tobytes()) for row in rows])
        targets["image"] = torch.tensor([_number(row[0].media[0].content.digest.encode()) for row in rows])
        return Batch(
            inputs, targets, {"contrastive": len(rows)}, tuple(r[0].id for r in rows), count_sources(rows)
        )

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        pair = the_link(base)
        chunks = range(sum(name.startswith("image") for name in batch.inputs))
        parts = []
        for n in chunks:
            read = partial(pair_vectors, base, batch.inputs[f"image {n}"].ids_BT, batch.inputs[f"text {n}"])
            last_b = batch.targets[f"last {n}"]
            parts.append(
                checkpoint(read, last_b, use_reentrant=False, preserve_rng_state=False)
                if len(chunks) > 1
                else read(last_b)
            )
        image_bE, text_bE = (torch.cat(side) for side in zip(*parts, strict=True))
        (image_BE, first), (text_BE, _) = gathered(image_bE), gathered(text_bE)
        most = MOST if pair.shift is None else None
        twin_bB = _equal(batch.targets["text"]) | _equal(batch.targets["image"])
        nats = pair_loss(
            pair.scores(image_bE, text_BE, most),
            pair.scores(image_BE, text_bE, most),
            twin_bB,
            first,
            pair.shift is not None,
        )
        return {"contrastive": (nats, batch.counts["contrastive"])}

    def _pixels(self, caption: Tokens, number: int) -> Tensor:
        file = self.media(caption.media[0].content.digest)
        picture = read_picture(file.data, file.name)
        if self.augment is not None:
            picture = augmented(picture, self.augment, Draws(self.seed, "augment", number))
        return prepared(picture, self.codec, file.name)


def the_link(base: BaseModel) -> PairLink:
    """The link to the common space."""
    pair = base.link("pair")
    assert isinstance(pair, PairLink)
    return pair


def pair_vectors(
    base: BaseModel, pixels_bCHW: Tensor, read: TrunkInput, last_b: Tensor
) -> tuple[Tensor, Tensor]:
    """Unit vectors of pictures and of captions, fp32 [b, E] each. last: the place of each caption's last token in the flat packed rows."""
    pair = the_link(base)
    image_bE = pair.placed(base.image.pooled(base.states("image", pixels_bCHW).hidden), "src")
    h_RTD = base.hidden(read.ids_BT, read.cols).hidden
    last_bD = h_RTD.flatten(0, 1).index_select(0, last_b)
    return image_bE, pair.placed(last_bD.float(), "dst")


def ended(ids: np.ndarray, length: int, end: int) -> np.ndarray:
    """A caption of at most `length` tokens, the last of which is `end`."""
    return ids if len(ids) < length or ids[-1] == end else np.append(ids[: length - 1], np.int32(end))


def packed_captions(captions: Sequence[np.ndarray], length: int) -> tuple[TrunkInput, Tensor]:
    """Captions in shared rows of `length` tokens, which the mask separates, and the place of the last token of each."""
    rows = shared_rows([len(c) for c in captions], length)
    count = -(-len(rows) // ROWS) * ROWS if len(rows) > ROWS else len(rows)
    ids, pos = np.zeros((count, length), np.int64), np.zeros((count, length), np.int64)
    doc = np.full((count, length), -1, np.int64)
    last = np.zeros(len(captions), np.int64)
    for r, members in enumerate(rows):
        at = 0
        for d, c in enumerate(members):
            n = len(captions[c])
            ids[r, at : at + n], pos[r, at : at + n], doc[r, at : at + n] = captions[c], np.arange(n), d
            at += n
            last[c] = r * length + at - 1
    cols = Cols(torch.from_numpy(pos), torch.from_numpy(doc))
    return TrunkInput(torch.from_numpy(ids), cols), torch.from_numpy(last)


def _number(content: bytes) -> int:
    """63 bits of a hash: the same for equal contents on every process."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8]) >> 1


def _equal(number_b: Tensor) -> Tensor:
    """Bool [b, B]: which pairs of the step have the same content as each of this process."""
    return number_b[:, None] == gathered(number_b)[0][None]
