"""Masked language modelling: some tokens are hidden and predicted from all others (BERT, 1810.04805), one by one or in spans (SpanBERT, 1907.10529).

Of the chosen tokens 80% are replaced by the mask token, 10% by any token, and 10% stay. B rows, T time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from onebase.base.model import BaseModel
from onebase.draws import Draws
from onebase.errors import ConfigError
from onebase.modality.text.sample import MASK, Tokens
from onebase.modality.text.tokenizer import Tokenizer
from onebase.model.proj import AdapterRouting
from onebase.objective.base import IGNORE, Batch, Losses, Row
from onebase.objective.next_token import packed_batch, text_loss

LONGEST = 10
"""Tokens of the longest span."""


def mask_id(tokenizer: Tokenizer) -> int:
    """The id of the mask token: the one that an imported tokenizer names `mask_token`, or our own. Raises ConfigError where there is none."""
    name = tokenizer.roles.others.get("mask_token", MASK)
    if name not in tokenizer.specials:
        raise ConfigError(
            "the tokenizer has no mask token, which objective masked needs",
            f"let the run train a tokenizer, or add the special token {MASK}",
        )
    return tokenizer.id_of(name)


@dataclass(frozen=True, eq=False)
class Masked:
    """Cross-entropy of hidden tokens given the text around them.

    rate: share of the tokens to predict. masked, random: shares of these that are replaced by the mask token and by a random ordinary token.
    span: mean length of a hidden stretch (1: each token by itself); lengths are geometric, up to 10. words: ids of the ordinary tokens.
    """

    length: int
    mask: int
    words: NDArray[np.int64]
    rate: float = 0.15
    masked: float = 0.8
    random: float = 0.1
    span: float = 1.0
    seed: int = 0
    routing: AdapterRouting | None = None
    reserve: int = 0

    def hide(self, piece: Tokens, draws: Draws) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The ids that are read, int64 [T], and the tokens to predict, bool [T]. Special tokens at the ends are never chosen, and one token of a
        piece always is."""
        able_T = piece.loss & np.isin(piece.ids, self.words)
        learnt_T = self._chosen(able_T, draws)
        how_T, other_T = draws.uniform(len(piece)), draws.below(len(self.words), len(piece))
        ids_T = np.where(learnt_T & (how_T < self.masked), self.mask, piece.ids.astype(np.int64))
        replaced_T = learnt_T & (how_T >= self.masked) & (how_T < self.masked + self.random)
        return np.where(replaced_T, self.words[other_T], ids_T), learnt_T

    def _chosen(self, able_T: NDArray[np.bool_], draws: Draws) -> NDArray[np.bool_]:
        places = np.flatnonzero(able_T)
        chosen_T = np.zeros(len(able_T), np.bool_)
        if not len(places):
            return chosen_T
        if self.span == 1.0:
            chosen_T[places] = draws.uniform(len(places)) < self.rate
            if not chosen_T.any():
                chosen_T[places[int(draws.below(len(places), 1)[0])]] = True
            return chosen_T
        # Spans until the share is reached: as many draws as could be needed, so that their number depends on the piece alone.
        wanted = max(1, round(self.rate * len(places)))
        starts, sizes = draws.below(len(places), 4 * wanted), draws.uniform(4 * wanted)
        lengths = np.minimum(1 + np.log1p(-sizes) // np.log1p(-1 / self.span), LONGEST).astype(int)
        count = 0
        for start, size in zip(starts.tolist(), lengths.tolist(), strict=True):
            span = places[start : start + min(size, wanted - count)]
            count += int((~chosen_T[span]).sum())
            chosen_T[span] = True
            if count >= wanted:
                break
        return chosen_T

    def shown(self, piece: Tokens, number: int) -> Tokens:
        """The piece with the tokens marked that are predicted, for the ledger."""
        return replace(piece, loss=self.hide(piece, Draws(self.seed, "masked", number))[1])

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        batch = packed_batch("masked", rows, self.length)
        read = batch.inputs["text"]
        ids_BT, targets_BT = read.ids_BT.numpy().copy(), np.full(read.ids_BT.shape, IGNORE, np.int64)
        for b, row in enumerate(rows):
            draws, at = Draws(self.seed, "masked", first + b), 0
            for piece in row:
                place = slice(at, at + len(piece))
                ids_BT[b, place], learnt_T = self.hide(piece, draws)
                targets_BT[b, place] = np.where(learnt_T, piece.ids, IGNORE)
                at += len(piece)
        return replace(
            batch,
            inputs={"text": replace(read, ids_BT=torch.from_numpy(ids_BT))},
            targets={"masked": torch.from_numpy(targets_BT)},
            counts={"masked": int((targets_BT != IGNORE).sum())},
        )

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        return {"masked": text_loss(base, batch, "masked", self.routing)}


def ordinary(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Ids of the tokens that are not special, int64 [W]."""
    return np.setdiff1d(np.arange(tokenizer.vocab_size), list(tokenizer.special_ids))
