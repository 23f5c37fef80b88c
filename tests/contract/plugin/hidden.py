"""Objective hidden: some tokens of a text are hidden, and learnt from all others, as BERT is (1810.04805). B rows, T time, N hidden."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from onebase.base.folder import LoadedBase
from onebase.base.model import BaseModel
from onebase.config import config
from onebase.draws import Draws
from onebase.errors import ConfigError
from onebase.evaluation.bootstrap import Score, mean_score
from onebase.modality.text.sample import Tokens
from onebase.objective.base import IGNORE, Batch, Losses, Row
from onebase.objective.next_token import packed_batch, text_loss
from onebase.pretraining.heldout import Heldout
from onebase.pretraining.objectives import PretrainingObjective, Setting, register

MASK = "<mask>"


@config
class MaskedConfig:
    """rate: the share of tokens that is learnt. Of these `hidden` are replaced by the mask, half of the rest by any token."""

    kind: Literal["hidden"] = "hidden"
    rate: float = 0.15
    hidden: float = 0.8

    def __post_init__(self) -> None:
        if not (0 < self.rate < 1 and 0 <= self.hidden <= 1):
            raise ConfigError(
                f"'rate' is {self.rate}, 'hidden' {self.hidden}", "give shares, rate between 0 and 1"
            )


@dataclass(frozen=True)
class Masked:
    length: int
    mask: int
    vocab: int
    cfg: MaskedConfig
    seed: int = 0
    reserve: int = 0

    def hide(self, piece: Tokens, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
        """What is read in the place of the tokens, and which of them are learnt, both [T]."""
        chance_T, how_T, other_T = (draws.uniform(len(piece)) for _ in range(3))
        learnt_T = (chance_T < self.cfg.rate) & piece.loss
        masked_T = learnt_T & (how_T < self.cfg.hidden)
        random_T = learnt_T & (how_T >= (1 + self.cfg.hidden) / 2)
        ids_T = np.where(masked_T, self.mask, piece.ids)
        return np.where(random_T, (other_T * self.vocab).astype(np.int64), ids_T), learnt_T

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        batch = packed_batch(
            "hidden", rows, self.length
        )  # the columns of documents; ids and targets are ours
        read = batch.inputs["text"]
        ids_BT, targets_BT = read.ids_BT.clone(), torch.full_like(read.ids_BT, IGNORE)
        for b, row in enumerate(rows):
            draws, at = Draws(self.seed, "hidden", first + b), 0
            for piece in row:
                ids_T, learnt_T = self.hide(piece, draws)
                place = slice(at, at + len(piece))
                ids_BT[b, place] = torch.from_numpy(ids_T)
                targets_BT[b, place] = torch.from_numpy(np.where(learnt_T, piece.ids, IGNORE))
                at += len(piece)
        counts = {"hidden": int((targets_BT != IGNORE).sum())}
        inputs = {"text": replace(read, ids_BT=ids_BT)}
        return replace(batch, inputs=inputs, targets={"hidden": targets_BT}, counts=counts)

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        return {"hidden": text_loss(base, batch, "hidden", None)}


def make(cfg: MaskedConfig, run: Setting) -> Masked:
    return Masked(run.length, run.tokenizer.id_of(MASK), run.tokenizer.vocab_size, cfg, run.seed)


def shown(objective: Masked, document: Tokens, number: int) -> Tokens:
    _, learnt_T = objective.hide(document, Draws(objective.seed, "hidden", number))
    return replace(document, loss=learnt_T)


@torch.no_grad()
def measure(base: LoadedBase, held: Heldout) -> dict[str, Score]:
    """Nats of each hidden token, the mean over documents; the same ones are hidden whenever it is asked."""
    tok, out = base.codec.tokenizer, {}
    objective = Masked(held.length, tok.id_of(MASK), tok.vocab_size, MaskedConfig(hidden=1.0))
    for source, documents in held.documents.items():
        found, left = [], held.tokens // len(held.documents)
        for n, document in enumerate(documents):
            ids = np.asarray(tok.encode(document.text, bos=True)[: held.length], np.int32)
            if left < len(ids):
                break
            left -= len(ids)
            batch = objective.batch([[Tokens(ids, np.arange(len(ids)) > 0)]], n).to(base.model.device)
            if batch.counts["hidden"]:
                nats, count = objective.losses(base.model, batch)["hidden"]
                found.append(float(nats) / count)
        if found:
            out[source] = mean_score("nats_per_hidden_token", found)
    return out


register(
    PretrainingObjective(
        config=MaskedConfig,
        make=make,
        specials=(MASK,),
        direction="both",
        shown=shown,
        measure=measure,
        measured="nats_per_hidden_token",
        version="1",
    )
)
