"""Trains on preferences between two answers to a prompt. n pairs, N answers, B rows, T time, D width, V vocabulary.

The answers of a pair follow one copy of their prompt, as branches that do not attend to each other (`model.mask.branches`), so the prompt
is read once. Four losses of their log-probabilities under the policy and under the base that it started from (the reference):

    dpo    Rafailov et al., 2305.18290; with `smoothing` the conservative form, in which labels are wrong at that rate
    ipo    Azar et al., 2310.12036, with log-probabilities averaged over an answer's tokens, so that long answers count like short ones
    kto    Ethayarajh et al., 2402.01306, with chosen answers as desirable and rejected ones as undesirable, both of weight 1
    orpo   Hong et al., 2403.07691, without a reference: likelihood of the chosen answer, and the odds ratio, both averaged over tokens
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from onebase.base.model import BaseModel
from onebase.config import config
from onebase.data.packing import pack
from onebase.errors import ConfigError
from onebase.model.mask import Cols, branches
from onebase.model.proj import AdapterRouting
from onebase.objective.base import IGNORE, Batch, Losses, Row, TrunkInput, count_sources
from onebase.objective.cross_entropy import token_nll

ANSWERS = 2
"""Answers of a row: the chosen and the rejected one. For KTO as many answers of other prompts follow."""


@config
class PreferConfig:
    """`beta`: strength of the pull towards the reference; for orpo the weight of the odds ratio (the paper's lambda). `smoothing`: the assumed
    share of pairs in the wrong order, from 0 to below 0.5 (dpo only)."""

    loss: Literal["dpo", "ipo", "kto", "orpo"] = "dpo"
    beta: float = 0.1
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.beta < math.inf:
            raise ConfigError(f"prefer.beta is {self.beta}", "give a number above 0, such as 0.1")
        if not 0 <= self.smoothing < 0.5:
            raise ConfigError(
                f"prefer.smoothing is {self.smoothing}",
                "give a number from 0 to below 0.5: a share of the pairs",
            )
        if self.smoothing and self.loss != "dpo":
            raise ConfigError(
                f"prefer.smoothing is {self.smoothing} and the loss is {self.loss}", "only dpo has smoothing"
            )

    @property
    def referred(self) -> bool:
        """Does the loss compare with the reference?"""
        return self.loss != "orpo"


@dataclass(frozen=True)
class PreferenceLogProbs:
    """Log-probabilities of n pairs (chosen, rejected) in nats under the policy and the reference, and the number of supervised tokens. `drift`:
    KTO's reference point, in nats."""

    logp_n2: Tensor
    ref_n2: Tensor
    size_n2: Tensor
    drift: Tensor | float = 0.0


def dpo(a: PreferenceLogProbs, cfg: PreferConfig) -> Tensor:
    """-log sigmoid(beta (log-ratio of the chosen - log-ratio of the rejected)), [n]."""
    ratio_n2 = a.logp_n2 - a.ref_n2
    z_n = cfg.beta * (ratio_n2[:, 0] - ratio_n2[:, 1])
    return -(1 - cfg.smoothing) * F.logsigmoid(z_n) - cfg.smoothing * F.logsigmoid(-z_n)


def ipo(a: PreferenceLogProbs, cfg: PreferConfig) -> Tensor:
    """(difference of the log-ratios per token - 1 / (2 beta))^2, [n]."""
    ratio_n2 = (a.logp_n2 - a.ref_n2) / a.size_n2
    return (ratio_n2[:, 0] - ratio_n2[:, 1] - 1 / (2 * cfg.beta)).square()


def kto(a: PreferenceLogProbs, cfg: PreferConfig) -> Tensor:
    """1 - value of each answer, averaged over the two of a pair, [n]."""
    gain_n2 = cfg.beta * (a.logp_n2 - a.ref_n2 - a.drift)
    return (torch.sigmoid(-gain_n2[:, 0]) + torch.sigmoid(gain_n2[:, 1])) / 2


def orpo(a: PreferenceLogProbs, cfg: PreferConfig) -> Tensor:
    """Nats per token of the chosen answer, plus beta times -log sigmoid of the log odds ratio, [n]."""
    mean_n2 = (a.logp_n2 / a.size_n2).clamp(max=-1e-6)  # odds of a probability of 1 have no logarithm
    odds_n2 = mean_n2 - torch.log(-torch.expm1(mean_n2))
    return -mean_n2[:, 0] - cfg.beta * F.logsigmoid(odds_n2[:, 0] - odds_n2[:, 1])


LOSSES: dict[str, Callable[[PreferenceLogProbs, PreferConfig], Tensor]] = {
    "dpo": dpo,
    "ipo": ipo,
    "kto": kto,
    "orpo": orpo,
}


@dataclass(frozen=True)
class Preference:
    """The mean over pairs of one of the losses. A row is [chosen, rejected], or for KTO [chosen, rejected, other, other], where the others are
    another row's answers after this row's prompt.

    reference: log-probability of each answer under the reference, by text id. KTO estimates the policy's divergence from the reference on the
    other answers: the mean over a step, at least 0, without a gradient. So it needs all rows of a step at once (`whole_step`), and reads them
    in chunks of `tokens`. packs: several pairs may share a row; False with virtual tokens.
    """

    cfg: PreferConfig
    reference: Mapping[str, float] = field(default_factory=dict)
    routing: AdapterRouting | None = None
    packs: bool = True
    tokens: int = 2048
    reserve: int = 0

    @property
    def whole_step(self) -> bool:
        return self.cfg.loss == "kto"

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        inputs: dict[str, TrunkInput] = {}
        targets = {"size": torch.tensor([[int(t.loss.sum()) for t in row[:ANSWERS]] for row in rows])}
        limit = self.tokens if self.whole_step else None
        for kind, sides in (("own", slice(0, ANSWERS)), ("other", slice(ANSWERS, None))):
            answers = [row[sides] for row in rows]
            if not answers[0]:
                continue
            for i, (read, wanted, owner) in enumerate(laid_out(answers, self.packs, limit)):
                inputs[f"{kind} {i}"] = read
                targets[f"{kind} {i}"], targets[f"{kind} {i} owner"] = wanted, owner
            if self.reference:
                logps = [[self.reference[t.id] for t in row] for row in answers]
                targets[f"{kind} reference"] = torch.tensor(logps)
        return Batch(
            inputs=inputs,
            targets=targets,
            counts={self.cfg.loss: len(rows)},
            ids=tuple(t.id for row in rows for t in row[:ANSWERS]),
            sources=count_sources([row[:ANSWERS] for row in rows]),
        )

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        name = self.cfg.loss
        logp_n2 = self.logps(base, batch, "own")
        ref_n2 = batch.targets.get("own reference", torch.zeros_like(logp_n2))
        found = PreferenceLogProbs(logp_n2, ref_n2, batch.targets["size"], self._drift(base, batch))
        return {name: (LOSSES[name](found, self.cfg).sum(), batch.counts[name])}

    @torch.no_grad()
    def _drift(self, base: BaseModel, batch: Batch) -> Tensor | float:
        if not self.whole_step:
            return 0.0
        away_n2 = self.logps(base, batch, "other") - batch.targets["other reference"]
        return away_n2.mean().clamp(min=0)

    def logps(self, base: BaseModel, batch: Batch, kind: str) -> Tensor:
        """The log-probability in nats of each answer of a kind (`own`, `other`), [n, 2]."""
        names = [k for k in batch.inputs if k.startswith(f"{kind} ")]
        # Reading a single chunk twice would save no memory.
        again = len(names) > 1 and torch.is_grad_enabled()
        parts = [
            checkpoint(self._sums, base, batch, k, use_reentrant=False, preserve_rng_state=False)
            if again
            else self._sums(base, batch, k)
            for k in names
        ]
        return torch.stack(parts).sum(0).view(-1, ANSWERS)

    def _sums(self, base: BaseModel, batch: Batch, name: str) -> Tensor:
        """Log-probabilities of the answers in one chunk, [N]; 0 for the others."""
        read, targets_BT = batch.inputs[name], batch.targets[name]
        h_BTD = base.text.ready(base.hidden(read.ids_BT, read.cols, read.mask, routing=self.routing).hidden)
        ((_, head),) = base.text.head_weights(self.routing, len(h_BTD))
        used = targets_BT != IGNORE  # logits of answers only
        nll_K = token_nll(
            h_BTD[used],
            head,
            targets_BT[used],
            softcap=base.text.cfg.softcap,
            bias=base.text.head.bias,
        )
        N = batch.targets["size"].numel()
        return nll_K.new_zeros(N).index_add(0, batch.targets[f"{name} owner"][used], -nll_K)


def shared(row: Row) -> int:
    """Length of the common prefix of a row's texts that predicts no token of an answer: it is read only once."""
    prompt = (
        min(int(t.loss.argmax()) for t in row) - 1
    )  # the last token of a prompt predicts another answer in each
    first = row[0].ids[:prompt]
    return min([prompt, *(int(np.append(t.ids[:prompt] != first, True).argmax()) for t in row[1:])])


def row_tokens(row: Row) -> int:
    """Number of tokens that are read for a row."""
    return sum(map(len, row)) - (len(row) - 1) * shared(row)


def laid_out(
    rows: Sequence[Row], packs: bool, tokens: int | None = None
) -> list[tuple[TrunkInput, Tensor, Tensor]]:
    """The trunk's input, the targets [B, T], and the number of each target's answer [B, T], counted through all rows. In chunks of about
    `tokens` with rows of similar length; None: one chunk."""
    sizes = np.array([row_tokens(row) for row in rows])
    longest = int(sizes.max())
    if tokens is None:
        chunks = [np.arange(len(rows))]
    else:
        order, each = np.argsort(sizes, kind="stable"), max(1, tokens // longest)
        chunks = [order[i : i + each] for i in range(0, len(rows), each)]
    out = []
    for chunk in chunks:
        length = int(sizes[chunk].max())
        row_of, count = pack(sizes[chunk], length) if packs else (np.arange(len(chunk)), len(chunk))
        out.append(_chunk(rows, chunk, row_of, (count, length)))
    return out


def _chunk(
    rows: Sequence[Row], chosen: np.ndarray, row_of: np.ndarray, shape: tuple[int, int]
) -> tuple[TrunkInput, Tensor, Tensor]:
    """The chosen rows as rows of a batch: each has its common prefix, then the rest of each text as a block."""
    ids, wanted, owner = np.zeros(shape, np.int64), np.full(shape, IGNORE), np.zeros(shape, np.int64)
    pos, doc, block = np.zeros(shape, np.int64), np.full(shape, -1), np.full(shape, -1)
    used, docs = np.zeros(shape[0], np.int64), np.zeros(shape[0], np.int64)
    for n, b in zip(chosen.tolist(), row_of.tolist(), strict=True):
        row, at, skip = rows[n], int(used[b]), shared(rows[n])
        parts = [(0, skip, -1), *((skip, len(t), i) for i, t in enumerate(row))]
        for start, stop, i in parts:
            text, here = row[max(i, 0)], slice(at, at + stop - start)
            ids[b, here], pos[b, here] = text.ids[start:stop], np.arange(start, stop)
            doc[b, here], block[b, here] = docs[b], i
            if i >= 0:
                wanted[b, at : at + stop - start - 1] = np.where(
                    text.loss[start + 1 : stop], text.ids[start + 1 : stop], IGNORE
                )
                owner[b, here] = n * len(row) + i
            at += stop - start
        used[b], docs[b] = at, docs[b] + 1
    cols = Cols(torch.from_numpy(pos), torch.from_numpy(doc), torch.from_numpy(block))
    return (
        TrunkInput(torch.from_numpy(ids), cols, branches()),
        torch.from_numpy(wanted),
        torch.from_numpy(owner),
    )
