"""Pools the hidden states of a text's tokens into one vector. B texts, T tokens, D width."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from onebase.config import config
from onebase.config_fields import later
from onebase.errors import ConfigError
from onebase.modality.text.long import Long

if TYPE_CHECKING:
    from torch import Tensor

Pooling = Literal["mean", "cls", "last", "max"]


@config
class EmbeddingConfig:
    """How a text becomes a vector: the mean or maximum over its tokens (special tokens included), or the hidden state of the first or last.
    `normalise` scales it to length 1. `limit`: maximum tokens of a text, special tokens included (null: the context).

    filled: shorter texts are padded to the limit with the padding token, which then counts like any other (SigLIP). ends: the token that
    must end a text, where it is known (CLIP). long: what to do with longer texts.
    """

    pooling: Pooling = "mean"
    normalise: bool = False
    limit: int | None = None
    filled: bool = False
    ends: int | None = None
    long: Long = later("head")

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"embedding limit is {self.limit}", "use at least 1, or null for the context")


def pooled(hidden_BTD: Tensor, live_BT: Tensor, cfg: EmbeddingConfig) -> Tensor:
    """fp32 vectors (fp64 of fp64) [B, D] of hidden states [B, T, D]. live: bool [B, T], false for padding, true somewhere in every row."""
    import torch  # not at the top: the config is read without it
    import torch.nn.functional as F

    h_BTD = hidden_BTD.to(torch.promote_types(hidden_BTD.dtype, torch.float32))
    T = h_BTD.shape[1]
    if cfg.pooling == "mean":
        kept_BTD = h_BTD.masked_fill(~live_BT[..., None], 0.0)
        v_BD = kept_BTD.sum(1) / live_BT.sum(1, keepdim=True)
    elif cfg.pooling == "max":
        v_BD = h_BTD.masked_fill(~live_BT[..., None], float("-inf")).amax(1)
    else:
        # The first or last live token: padding may be on either side.
        first = live_BT.int().argmax(1)
        last = T - 1 - live_BT.flip(1).int().argmax(1)
        at_B = first if cfg.pooling == "cls" else last
        v_BD = h_BTD[torch.arange(len(h_BTD), device=h_BTD.device), at_B]
    return F.normalize(v_BD, dim=-1) if cfg.normalise else v_BD
