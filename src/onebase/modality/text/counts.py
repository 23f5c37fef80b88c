"""How often each token occurs in a text: a sparse matrix. N texts, V tokens, K entries, C outputs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.modality.text.sample import Tokens


@dataclass(frozen=True, eq=False)
class TokenCounts:
    """A sparse matrix [N, V]: the entries of row n are `value_K` in the columns `ids_K`, from `start_N[n]` up to the next row's start. Products
    are sums of embeddings, which torch has for every processor (its CSR products need MKL)."""

    ids_K: Tensor
    value_K: Tensor
    start_N: Tensor
    columns: int

    def __len__(self) -> int:
        return len(self.start_N)

    @property
    def row_K(self) -> Tensor:
        """The row of each entry."""
        size_N = self.start_N.diff(append=self.start_N.new_tensor([len(self.ids_K)]))
        return torch.arange(len(self)).repeat_interleave(size_N)

    def __getitem__(self, keep_N: Tensor) -> "TokenCounts":
        """The rows where `keep_N` is true."""
        row_K = self.row_K
        kept_K = keep_N[row_K]
        size_N = row_K.bincount(minlength=len(self))[keep_N]
        return replace(
            self, ids_K=self.ids_K[kept_K], value_K=self.value_K[kept_K], start_N=size_N.cumsum(0) - size_N
        )

    def times(self, w_VC: Tensor) -> Tensor:
        """The product with a matrix, [N, C], of its type and on its device."""
        ids_K, start_N, value_K = (x.to(w_VC.device) for x in (self.ids_K, self.start_N, self.value_K))
        return F.embedding_bag(ids_K, w_VC, start_N, mode="sum", per_sample_weights=value_K.to(w_VC.dtype))

    def scaled(self, d_V: Tensor) -> "TokenCounts":
        """Each column times its factor."""
        return replace(self, value_K=self.value_K * d_V[self.ids_K])

    def transposed(self) -> "TokenCounts":
        """[V, N]."""
        order_K = self.ids_K.argsort(stable=True)
        size_V = self.ids_K.bincount(minlength=self.columns)
        return TokenCounts(self.row_K[order_K], self.value_K[order_K], size_V.cumsum(0) - size_V, len(self))

    def gram(self) -> Tensor:
        """The inner products of all rows, [N, N]."""
        part_N, parts = torch.arange(len(self)) // 256, []
        for i in range(int(part_N.max()) + 1):
            block = self[part_N == i]
            dense_Vn = self.value_K.new_zeros(self.columns, len(block))
            dense_Vn[block.ids_K, block.row_K] = block.value_K
            parts.append(self.times(dense_Vn))
        return torch.cat(parts, 1)

    def mean_square(self) -> Tensor:
        """The mean of the squares of each column, [V]."""
        zero_V = self.value_K.new_zeros(self.columns)
        return zero_V.index_add(0, self.ids_K, self.value_K.square()) / len(self)


def token_counts(texts: Sequence[Tokens], vocabulary: int) -> TokenCounts:
    """1 + log(n) for each token that occurs n times among the tokens of a text that are read, in fp64; rows have length 1. Sublinear counts:
    Manning, Raghavan and Schuetze (2008), 6.4.1."""
    ids, values = [], []
    for text in texts:
        found, n = np.unique(text.ids, return_counts=True)
        value = 1 + np.log(n)
        ids.append(found.astype(np.int64))
        values.append(value / np.sqrt((value**2).sum()))
    size = np.array([len(x) for x in ids], np.int64)
    return TokenCounts(
        torch.from_numpy(np.concatenate(ids)),
        torch.from_numpy(np.concatenate(values)),
        torch.from_numpy(size.cumsum() - size),
        vocabulary,
    )
