"""Next tokens of a text beside media: images in its places (LLaVA), or a sound that its cross-attention reads (Whisper).

B rows, T time, N images. Media are decoded when a batch is built, never all at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from onebase.base.model import BaseModel
from onebase.model.cross import Memory
from onebase.model.mask import Cols
from onebase.model.proj import AdapterRouting
from onebase.objective.base import Batch, Losses, Row, TrunkInput
from onebase.objective.next_token import packed_batch, states_loss


@dataclass(frozen=True)
class MediaText:
    """Cross-entropy of each supervised token given those before it and the row's media. A row is one sample. Its media have a kind that is a trunk
    of the base (image, audio), and as their `shape` the vectors that this trunk reads."""

    routing: AdapterRouting | None = None
    reserve: int = 0

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        made = packed_batch("next_token", rows, max(sum(map(len, row)) for row in rows))
        inputs = dict(made.inputs)
        for kind in ("image", "audio"):
            found = [m.content for row in rows for piece in row for m in piece.media if m.kind == kind]
            if found:
                data = torch.stack([torch.from_numpy(content.load()[0]) for content in found])
                inputs[kind] = TrunkInput(data, Cols.simple(len(found), found[0].shape[0]))
        return Batch(inputs, made.targets, made.counts, made.ids, made.sources)

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        read, inserts, memory = batch.inputs["text"], None, None
        if (seen := batch.inputs.get("image")) is not None:
            inserts = base.seen(seen.ids_BT, self.routing)
        if (heard := batch.inputs.get("audio")) is not None:
            memory = Memory(base.states("audio", heard.ids_BT, routing=self.routing).hidden, heard.cols)
        h_BTD = base.hidden(
            read.ids_BT, read.cols, routing=self.routing, memory=memory, inserts=inserts
        ).hidden
        count = batch.counts["next_token"]
        loss = states_loss(base, h_BTD, batch.targets["next_token"], count, self.routing)
        return {"next_token": (loss, count)}
