"""Write your own training objective: one class, and the training loop runs it. Run: python examples/own_objective.py

This objective replaces some input tokens by others and trains on the true next tokens. So the base becomes robust to mistakes
in its input.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pretrain_tiny import tiny_base

from onebase.base.model import BaseModel
from onebase.data import RowPlan, TokenSet
from onebase.modality.text.sample import Tokens, document_sample
from onebase.objective.base import Batch, Losses, Row
from onebase.objective.next_token import packed_batch, text_loss
from onebase.train.config import ScheduleConfig, TrainConfig
from onebase.train.loop import Job, run


@dataclass(frozen=True)
class Forgiving:
    """Next-token prediction on rows where a share `rate` of the input tokens is noise.

    An objective has three things: `reserve` (tokens that it adds to a piece), `batch` and `losses`.
    """

    length: int
    vocab: int
    rate: float = 0.1
    seed: int = 0
    reserve: int = 0

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        """`first` is the global number of the first row. Seeding by it keeps the run the same on any number of ranks."""
        batch = packed_batch("next_token", rows, self.length)
        read = batch.inputs["text"]
        ids = read.ids_BT.clone()
        for i in range(len(rows)):
            rng = np.random.default_rng([self.seed, first + i])
            for t in np.flatnonzero(rng.random(self.length) < self.rate):
                if int(read.cols.doc[i, t]) >= 0 and int(read.cols.pos[i, t]) > 0:
                    ids[i, t] = int(rng.integers(self.vocab))
        # The targets come from the clean ids and are not changed.
        return replace(batch, inputs={"text": replace(read, ids_BT=ids)})

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        """Each loss is a sum and a count; the loop divides by the count of the whole global batch."""
        return {"next_token": text_loss(base, batch, "next_token", None)}


base = tiny_base(steps=20)
codec = base.loaded.codec
texts = [
    f"On {day} there is {weather}."
    for day in ("Monday", "Friday")
    for weather in ("fog", "rain", "snow", "sun")
]
tokens: list[Tokens] = [
    codec.tokens(document_sample(text, id=str(i), source="more")) for i, text in enumerate(texts * 20)
]

model = base.loaded.model
for p in model.parameters():
    p.requires_grad_(True)  # a loaded base is frozen
train = TrainConfig(
    steps=15, batch_size=8, sequence_length=64, schedule=ScheduleConfig(warmup=3), device="cpu", dtype="fp32"
)
plan = RowPlan(TokenSet.from_tokens(tokens), train.sequence_length, train.batch_size, seed=0)
result = run(Job(model, Forgiving(train.sequence_length, codec.tokenizer.vocab_size), plan, train))
print(f"loss {result.losses[0]:.3f} -> {result.losses[-1]:.3f} nats per token over {result.state.step} steps")
print(
    f"{result.state.tokens} tokens read, {result.state.supervised} supervised, by source: {result.state.sources}"
)
