"""Contrastive training of images and texts in one space: each image must find its text among those of the step, and each text its image.

B pairs, b of one process, E width of the space. CLIP's loss (2103.00020) where the base has no shift, SigLIP's (2303.15343) where it has one. As in
`objective.contrastive` all rows of a step are one batch, read chunk by chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from onebase.base.link_modules import PairLink
from onebase.base.model import BaseModel
from onebase.model.mask import Cols
from onebase.model.proj import AdapterRouting
from onebase.objective.base import Batch, Losses, Row, TrunkInput, count_sources
from onebase.objective.padding import states
from onebase.objective.pooled import text_batch


@dataclass(frozen=True)
class ImageText:
    """A row is one text with one image beside it. Pairs of the step with the same text are not each other's negatives. chunk: pairs read at a time."""

    routing: AdapterRouting | None = None
    chunk: int = 8
    reserve: int = 0
    whole_step: bool = True

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        inputs: dict[str, TrunkInput] = {}
        for i in range(0, len(rows), self.chunk):
            texts = [row[0] for row in rows[i : i + self.chunk]]
            images = [t.media[0].content for t in texts]
            pixels = torch.stack([torch.from_numpy(m.load()[0]) for m in images])
            inputs[f"chunk {i}"] = text_batch(texts)
            inputs[f"image {i}"] = TrunkInput(pixels, Cols.simple(len(images), images[0].shape[0]))
        number: dict[bytes, int] = {}
        same_B = torch.tensor([number.setdefault(row[0].ids.tobytes(), len(number)) for row in rows])
        return Batch(
            inputs,
            {"text": same_B},
            {"contrastive": len(rows)},
            tuple(row[0].id for row in rows),
            count_sources(rows),
        )

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        pair = base.link("pair")
        assert isinstance(pair, PairLink)

        def seen(read: TrunkInput) -> Tensor:
            hidden_BTD = base.states("image", read.ids_BT, routing=self.routing).hidden
            return pair.placed(base.image.pooled(hidden_BTD), "src")

        def said(read: TrunkInput) -> Tensor:
            return pair.texts(states(base, read, self.routing), read.cols.doc >= 0)

        vectors = {}
        for kind, of in (("image", seen), ("chunk", said)):
            parts = [x for name, x in batch.inputs.items() if name.startswith(kind)]
            vectors[kind] = torch.cat(
                [checkpoint(of, x, use_reentrant=False, preserve_rng_state=False) for x in parts]
                if len(parts) > 1
                else [of(x) for x in parts]
            )
        z_BB, same_B = pair.scores(vectors["image"], vectors["chunk"]), batch.targets["text"]
        nats = pair_loss(z_BB, z_BB, same_B[:, None] == same_B, 0, pair.shift is not None)
        return {"contrastive": (nats, batch.counts["contrastive"])}


def pair_loss(z_bB: Tensor, z_Bb: Tensor, twin_bB: Tensor, first: int, independent: bool) -> Tensor:
    """Summed over b pairs, of B in all, which are those from number `first` on, in nats. z_bB: scores of their images against all texts; z_Bb: of all
    images against their texts. twin: pairs that belong together, and are not each other's negatives. independent: each score is a decision of its own (SigLIP)."""
    own_b = torch.arange(first, first + len(z_bB), device=z_bB.device)
    own_bB = F.one_hot(own_b, z_bB.shape[1]).bool()
    twin_bB = twin_bB & ~own_bB
    if independent:
        nats_bB = -F.logsigmoid(torch.where(own_bB, z_bB, -z_bB))
        return nats_bB.masked_fill(twin_bB, 0.0).sum()
    nats = [
        F.cross_entropy(z.masked_fill(twin_bB, -torch.inf), own_b, reduction="sum") for z in (z_bB, z_Bb.T)
    ]
    return (nats[0] + nats[1]) / 2
