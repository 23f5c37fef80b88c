"""The learned ends of the text codec: ids to vectors, vectors to logits. V vocabulary, D width."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.config import config
from onebase.errors import ConfigError


@config
class TextCodecConfig:
    """`tied` shares one matrix between both ends; `softcap` c bounds logits to c*tanh(z/c); `std` are starting deviations."""

    vocab_size: int
    context: int
    tied: bool = False
    softcap: float | None = None
    embed_std: float = 0.02
    head_std: float = 0.02

    def __post_init__(self) -> None:
        if self.vocab_size < 2 or self.context < 2:
            raise ConfigError(f"vocab_size {self.vocab_size}, context {self.context}", "give both at least 2")


class TextStem(nn.Module):
    """Token ids [B, T] to vectors [B, T, D]."""

    def __init__(self, cfg: TextCodecConfig, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(cfg.vocab_size, width))

    def forward(self, ids_BT: Tensor, dtype: torch.dtype) -> Tensor:
        return F.embedding(ids_BT, self.weight).to(dtype)


class TextHead(nn.Module):
    """Hidden states [..., D] to logits [..., V] in fp32; holds no weight when tied to the stem."""

    def __init__(self, cfg: TextCodecConfig, width: int) -> None:
        super().__init__()
        self.softcap = cfg.softcap
        self.weight = None if cfg.tied else nn.Parameter(torch.empty(cfg.vocab_size, width))

    def forward(self, h: Tensor, weight_VD: Tensor) -> Tensor:
        z = F.linear(h, weight_VD.to(h.dtype)).float()
        return z if self.softcap is None else self.softcap * torch.tanh(z / self.softcap)


class TextEnds(nn.Module):
    """Stem and head of one text codec."""

    def __init__(self, cfg: TextCodecConfig, width: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.stem = TextStem(cfg, width)
        self.head = TextHead(cfg, width)

    @property
    def head_weight_VD(self) -> nn.Parameter:
        """The matrix that makes logits: the head's own, or the stem's when tied."""
        return self.stem.weight if self.head.weight is None else self.head.weight

    def logits(self, h: Tensor) -> Tensor:
        """fp32 logits [..., V]."""
        out: Tensor = self.head(h, self.head_weight_VD)
        return out

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Draw starting weights."""
        nn.init.normal_(self.stem.weight, 0.0, self.cfg.embed_std, generator)
        if self.head.weight is not None:
            nn.init.normal_(self.head.weight, 0.0, self.cfg.head_std, generator)
