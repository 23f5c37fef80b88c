"""Rows of a few tokens: what an adapter may change of a codec's ends, and what learns of a stem's matrix while the rest is not read.
K tokens, V vocabulary, D width, T tokens read."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EndDelta(nn.Module):
    """What an adapter adds at the two ends of a text codec: at the stem's matrix, at the matrix that makes logits. This one adds nothing.

    With tied ends the two stay apart: the base has one matrix, the adapter says for each end what it adds there.
    """

    def stem(self, ids_BT: Tensor, scale: float | None = None) -> Tensor | None:
        """What is added to the vectors of ids [B, T]: [B, T, D]; None for nothing. scale: what the stem multiplies its vectors by."""
        return None

    def add_logits(self, z: Tensor, h: Tensor) -> Tensor:
        """Logits [..., V] of hidden states [..., D] with what is added to them."""
        return z

    def stem_added(self, weight_VD: Tensor, scale: float | None = None) -> Tensor:
        """A stem's matrix with the deltas in it."""
        return weight_VD

    def head_added(self, weight_VD: Tensor) -> Tensor:
        """A head's matrix with the deltas in it; no gradient reaches `rows` through it (see `HeadMatrix`)."""
        return weight_VD

    @property
    def rows(self) -> tuple["TokenRows", ...]:
        """The rows of tokens in it."""
        return ()


class TokenRows(EndDelta):
    """Deltas on the rows of the tokens `ids` in the stem's and in the head's matrix; both start at zero, so they change nothing. What the stem
    multiplies its vectors by does not touch them."""

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
    """The rows of the tokens `ids` of a stem's matrix, in its place while no other is read. The others would have no gradient, and AdamW
    without decay leaves such rows as they are: it is the same learning, without zeros of the size of the matrix in every step."""

    ids_K: Tensor
    place_V: Tensor

    def __init__(self, weight_VD: Tensor, ids: Sequence[int]) -> None:
        super().__init__()
        ids_K = torch.tensor(sorted({0, *ids}), dtype=torch.long, device=weight_VD.device)
        # Padding is token 0. Any other token stands behind the last row: reading it is an error, and not another token's vector.
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
    """The matrix that makes logits, and the deltas that are in it already. What learns from logits looks after the gradient of these itself: it
    needs the columns of a few tokens, where that of the whole matrix would cost as much as the logits."""

    weight_VD: Tensor
    rows: tuple[TokenRows, ...] = ()

    def first(self, vocab: int) -> "HeadMatrix":
        """For the first `vocab` tokens, those of the deltas among them."""
        return HeadMatrix(self.weight_VD[:vocab], self.rows)
