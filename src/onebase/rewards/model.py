"""A reward model: an adapter on the same base whose head gives a value. It reads prompt and answer as in training. N answers."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from onebase.base.folder import LoadedBase
from onebase.base.head import Head
from onebase.engine.features import features, room_of
from onebase.engine.prompt_tokens import answer_tokens, less_prompt
from onebase.errors import UserError
from onebase.methods.folder import attach, detach
from onebase.methods.table import METHODS
from onebase.modality.text.codec import Known
from onebase.opening.names import read_adapter
from onebase.rewards.answer import Reward, RewardInput

NAME = "__reward"
"""The name of a reward model on its base."""


@contextmanager
def model(folder: Path, base: LoadedBase) -> Iterator[Reward]:
    """The adapter is on the base inside the block; `scores` needs the base's own weights. Raises UserError for an adapter that gives no value,
    ArtifactError for one of another base."""
    parts = read_adapter(base, folder)
    cfg = parts.config.head
    if cfg is None or cfg.gives != "value" or METHODS[parts.config.method].replaces:
        raise UserError(
            f"{folder} is an adapter of task {parts.config.task} by {parts.config.method}: it gives no value on this base's own weights",
            "give one of task reward by head, lora, soft or prefix",
        )
    on = attach(base, parts, NAME)

    @torch.no_grad()
    def scores(answers: Sequence[RewardInput]) -> list[float]:
        limit = room_of(base, cfg.limit, base.model.virtual_counts(on.routing, 1)[0])
        known: Known = {}  # answers to one prompt share its tokens
        read = [
            less_prompt(answer_tokens(base, a.prompt, a.completion, known), limit, cfg.long) for a in answers
        ]
        head = base.model.heads[NAME]
        assert isinstance(head, Head)
        z_N1 = head(features(base, read, cfg.pooling, on.routing).to(base.model.device))
        values: list[float] = (cfg.mean + cfg.scale * z_N1[:, 0].cpu().double()).tolist()
        for value, a in zip(values, answers, strict=True):
            if not math.isfinite(value):
                raise UserError(
                    f"the reward model {folder} gave {value} at {a.where}", "train it again, or use fp32"
                )
        return values

    try:
        yield Reward(scores, facts={"adapter": parts.fingerprint})
    finally:
        detach(base, NAME)
