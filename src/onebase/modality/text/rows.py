"""Embedding and head rows of a few tokens: the rows an adapter may change, and the rows of a stem that train when no others are read.
K tokens, V vocabulary, D width, T tokens read."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EndDelta(nn.Module):
    """What an adapter adds to the embedding matrix and the output matrix of a text codec. This base class adds nothing.

    With tied ends the two deltas stay separate: the base has one matrix, the adapter has a delta for each use of it.
    """

    def stem(self, ids_BT: Tensor, scale: float | None = None) -> Tensor | None:
        """The addition to the vectors of ids [B, T]: [B, T, D]; None for nothing. scale: the factor of the stem's vectors."""
        return None

    def add_logits(self, z: Tensor, h: Tensor) -> Tensor:
        """Logits [..., V] of hidden states [..., D] with the delta added."""
        return z

    def stem_added(self, weight_VD: Tensor, scale: float | None = None) -> Tensor:
        """An embedding matrix with the deltas merged."""
        return weight_VD

    def head_added(self, weight_VD: Tensor) -> Tensor:
        """An output matrix with the deltas merged; no gradient reaches `rows` through it (see `HeadMatrix`)."""
        return weight_VD

    @property
    def rows(self) -> tuple["TokenRows", ...]:
        """The token rows in this delta."""
        return ()


class TokenRows(EndDelta):
    """Deltas on the rows of the tokens `ids` in the embedding and the output matrix. Both start at zero, so at first they change nothing.
    The stem's factor does not apply to them."""

    ids_K: Tensor

    def __init__(self, ids: Sequence[int], width: int, device: torch.device | None = None) -> None:
        super().__init__()
        self.register_buffer("ids_K", torch.tensor(ids, dtype=torch.long, device=device), persistent=False)
        self.stem_KD = nn.Parameter(torch.zeros(len(ids), width, device=device))
        self.head_KD = nn.Parameter(torch.zeros(len(ids), width, device=device))

    def stem(self, ids_BT: Tensor, scale: float | None = None) -> Tensor:
        found_BTK = ids_BT[..., None] == self.ids_K
        slot_BT = torch.where(found_BTK.any(-1), found_BTK.int().argmax(-1), len(self.ids_K))
        return F.embedding(
            slot_BT, torch.cat((self.stem_KD, self.stem_KD.new_zeros(1, self.stem_KD.shape[1])))
        )

    def add_logits(self, z: Tensor, h: Tensor) -> Tensor:
        return z.index_add(-1, self.ids_K, F.linear(h, self.head_KD.to(h.dtype)).to(z.dtype))

    def stem_added(self, weight_VD: Tensor, scale: float | None = None) -> Tensor:
        rows_KD = self.stem_KD if scale is None else self.stem_KD / scale
        return weight_VD.index_add(0, self.ids_K, rows_KD.to(weight_VD.dtype))

    def head_added(self, weight_VD: Tensor) -> Tensor:
        return weight_VD.index_add(0, self.ids_K, self.head_KD.detach().to(weight_VD.dtype))

    @property
    def rows(self) -> tuple["TokenRows", ...]:
        return (self,)


class FewRows(nn.Module):
    """Replaces a stem's matrix by the rows of the tokens `ids` while no others are read. The others would have no gradient, and AdamW
    without decay does not change such rows: training is the same, without a gradient of the matrix's size in every step."""

    ids_K: Tensor
    place_V: Tensor

    def __init__(self, weight_VD: Tensor, ids: Sequence[int]) -> None:
        super().__init__()
        ids_K = torch.tensor(sorted({0, *ids}), dtype=torch.long, device=weight_VD.device)
        # Padding is token 0. Any other token maps past the last row: reading it is an error, not another token's vector.
        place_V = torch.full((len(weight_VD),), len(ids_K), device=weight_VD.device)
        place_V[ids_K] = torch.arange(len(ids_K), device=weight_VD.device)
        self.register_buffer("ids_K", ids_K, persistent=False)
        self.register_buffer("place_V", place_V, persistent=False)
        self.rows_KD = nn.Parameter(weight_VD.detach()[ids_K].clone())

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Vectors of ids [B, T]: [B, T, D]."""
        return F.embedding(self.place_V[ids_BT], self.rows_KD)

    @torch.no_grad()
    def put_back(self, weight_VD: Tensor) -> None:
        """Write the rows into the matrix that they were taken from."""
        weight_VD[self.ids_K] = self.rows_KD.to(weight_VD.dtype)


@dataclass(frozen=True)
class HeadMatrix:
    """The output matrix, and the deltas merged into it. A loss computes the gradient of these deltas itself: it needs the columns of a few
    tokens, while the gradient of the whole matrix would cost as much as the logits."""

    weight_VD: Tensor
    rows: tuple[TokenRows, ...] = ()

    def first(self, vocab: int) -> "HeadMatrix":
        """The matrix of the first `vocab` tokens; the deltas must be among them."""
        return HeadMatrix(self.weight_VD[:vocab], self.rows)
