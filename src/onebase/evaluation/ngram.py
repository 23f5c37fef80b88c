"""An interpolated Kneser-Ney n-gram language model over token ids, as a baseline.

Chen and Goodman (1998), "An Empirical Study of Smoothing Techniques for Language Modeling": modified Kneser-Ney, whose three
discounts per order come from the counts of counts. All tables are sorted integer arrays, so fitting a million tokens takes seconds.

Grams are identified by their end position. id_k[e] is the index, in the sorted table of order k, of the k-gram that ends at position
e; its key is id_{k-1}[e-1] * (V + 1) + token[e], which fits 64 bits for any vocabulary. The extra symbol V pads each document with
`order - 1` tokens in front and is never predicted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from onebase.errors import DataError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Order:
    """One order k: its grams, and per context ((k-1)-gram) the probability reserved for the order below."""

    keys: Ints  # sorted [grams]
    gain: NDArray[np.float32]  # [grams] discounted count over the context's total
    back: NDArray[np.float32]  # [contexts] share of probability for the order below; 1 for an unseen context

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.gain.nbytes + self.back.nbytes


class NGram:
    """Fit on documents of token ids; then nats per document, and the exact distribution after any context."""

    name = "n-gram"

    def __init__(self, vocab_size: int, order: int = 5) -> None:
        if vocab_size < 1 or order < 1:
            raise DataError(f"an n-gram of order {order} over {vocab_size} tokens", "both must be at least 1")
        self.vocab_size, self.order = vocab_size, order
        self.name = f"{order}-gram"
        self.seconds = 0.0
        self._orders: list[_Order] = []

    @property
    def size(self) -> int:
        """Bytes of the tables."""
        return sum(o.nbytes for o in self._orders)

    def fit(self, documents: Sequence[Sequence[int] | Ints]) -> Self:
        """Count the n-grams of `documents`, each a list of ids in 0..V-1 (with its end token, if that is to be predicted)."""
        start = time.perf_counter()
        tokens, real = self._join(documents)
        if not real.any():
            raise DataError("no tokens to count", "give at least one document that is not empty")
        keys: list[Ints] = []
        ids: list[Ints] = []
        before = np.zeros(len(tokens), dtype=np.int64)  # the empty context ends everywhere
        for _ in range(self.order):
            table, index = np.unique(self._key(before, tokens), return_inverse=True)
            keys.append(table)
            ids.append(index.astype(np.int64).reshape(-1))
            before = np.r_[np.int64(0), ids[-1][:-1]]  # no context that ends at the first position is used
        self._orders = []
        for k in range(1, self.order + 1):
            grams = len(keys[k - 1])
            if k == self.order:
                counts = np.bincount(ids[k - 1][real], minlength=grams)
            else:  # number of different tokens before the gram: one per longer gram that ends with it
                _, first = np.unique(ids[k][real], return_index=True)
                counts = np.bincount(ids[k - 1][real][first], minlength=grams)
            contexts = 1 if k == 1 else len(keys[k - 2])
            self._orders.append(self._discounted(keys[k - 1], counts.astype(np.int64), contexts))
        self.seconds += time.perf_counter() - start
        return self

    def nats(self, documents: Sequence[Sequence[int] | Ints]) -> list[Floats]:
        """Negative log-probability of every token given the previous ones in its document: float64 [tokens] per document."""
        start = time.perf_counter()
        tokens, real = self._join(documents)
        p = np.full(len(tokens), 1.0 / self.vocab_size)
        context = np.zeros(len(tokens), dtype=np.int64)
        for o in self._orders:
            gain, back, gram = self._look_up(o, context, tokens)
            p = gain + back * p
            context = np.r_[
                np.int64(-1), gram[:-1]
            ]  # the k-gram ending one earlier: the context of order k + 1
        out = -np.log(p[real])
        self.seconds += time.perf_counter() - start
        return np.split(out, np.cumsum([len(d) for d in documents])[:-1]) if len(documents) else []

    def totals(self, documents: Sequence[Sequence[int] | Ints]) -> Floats:
        """Nats summed over each document, float64 [documents]: the first argument of bits_per_byte and nats_per_token."""
        return np.array([float(x.sum()) for x in self.nats(documents)])

    def distribution(self, context: Sequence[int]) -> Floats:
        """P(next token | start of document + context), float64 [V]; sums to one."""
        padded = [self.vocab_size] * (self.order - 1) + [int(t) for t in context]
        every = np.arange(self.vocab_size, dtype=np.int64)
        p = np.full(self.vocab_size, 1.0 / self.vocab_size)
        for k, o in enumerate(self._orders, 1):
            index = np.zeros(1, dtype=np.int64)
            for j, token in enumerate(padded[len(padded) - (k - 1) :]):
                index = self._find(self._orders[j].keys, self._key(index, np.array([token])))
                if index[0] < 0:
                    break
            gain, back, _ = self._look_up(o, np.full(self.vocab_size, index[0]), every)
            p = gain + back * p
        return p

    def _discounted(self, keys: Ints, counts: Ints, contexts: int) -> _Order:
        discounts = _discounts(counts)
        reserved = discounts[np.minimum(counts, 3)]
        context = keys // (self.vocab_size + 1)
        total = np.bincount(context, weights=counts, minlength=contexts)
        back = np.bincount(context, weights=reserved, minlength=contexts)
        seen = total > 0
        back = np.divide(back, total, out=np.ones(contexts), where=seen)
        gain = np.divide(counts - reserved, total[context], out=np.zeros(len(keys)), where=seen[context])
        keep = counts > 0  # grams that end in the start symbol serve as contexts only
        gain[~keep] = 0.0
        return _Order(keys, gain.astype(np.float32), back.astype(np.float32))

    def _look_up(self, o: _Order, context: Ints, tokens: Ints) -> tuple[Floats, Floats, Ints]:
        """Gain and back-off share of each (context id, token), and the gram's id; unseen: gain 0, id -1."""
        gram = self._find(o.keys, np.where(context < 0, -1, self._key(context, tokens)))
        gain = np.where(gram < 0, 0.0, o.gain[gram].astype(np.float64))
        back = np.where(context < 0, 1.0, o.back[context].astype(np.float64))
        return gain, back, gram

    def _key(self, context: Ints, tokens: Ints) -> Ints:
        return context * (self.vocab_size + 1) + tokens

    @staticmethod
    def _find(keys: Ints, wanted: Ints) -> Ints:
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[at] == wanted, at, -1)

    def _join(self, documents: Sequence[Sequence[int] | Ints]) -> tuple[Ints, NDArray[np.bool_]]:
        """All documents concatenated, each after `order - 1` start symbols (at least one, so that every position has a context)."""
        pad = np.full(max(self.order - 1, 1), self.vocab_size, dtype=np.int64)
        parts = [np.asarray(d, dtype=np.int64).reshape(-1) for d in documents]
        tokens = np.concatenate([x for d in parts for x in (pad, d)]) if parts else pad
        real = tokens != self.vocab_size
        if (len(tokens) and ((tokens < 0) | (tokens > self.vocab_size)).any()) or sum(
            map(len, parts)
        ) != real.sum():
            raise DataError(
                "a token id is outside the vocabulary", f"ids must be in 0..{self.vocab_size - 1}"
            )
        return tokens, real


def _discounts(counts: Ints) -> Floats:
    """D(0)=0, D(1), D(2), D(3+) from the counts of counts; each within its count so that no probability is negative."""
    n1, n2, n3, n4 = (int((counts == c).sum()) for c in (1, 2, 3, 4))
    if not n1 or not n2:
        return np.array([0.0, 0.5, 0.5, 0.5])  # too little data for an estimate
    y = n1 / (n1 + 2 * n2)
    d = [0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3 if n3 else 1.0]
    return np.array([min(max(x, 0.1 if c else 0.0), float(c) if c else 0.0) for c, x in enumerate(d)])
