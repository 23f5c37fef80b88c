"""What LoRA (Hu et al., 2106.09685) is told, and what an adapter keeps of it."""

import math

from onebase.adapt.method import option
from onebase.config import config
from onebase.errors import ConfigError
from onebase.model.sites import value_at


@config
class LoraOptions:
    """What users say of LoRA. `sites` are patterns of `model.sites` (`q` means every attention's q, `text.[0-3].*` the first four blocks), every
    projection when empty. Scaling is alpha / rank, with `rslora` alpha / sqrt(rank) (2312.03732). `ranks` and `alphas` give some of the sites another
    rank or alpha, by pattern, the longest that fits. `dora` learns the length of every row beside the direction (2402.09353)."""

    rank: int = option(8, "rank of the added matrices")
    alpha: float = option(16.0, "they are scaled by alpha / rank")
    sites: tuple[str, ...] = option(
        (),
        "which projections: last words (q, v), whole names (text.3.attn.q) or globs (text.[0-3].*); all when empty",
    )
    ranks: dict[str, int] | None = option(None, "other ranks for some sites, by pattern")
    alphas: dict[str, float] | None = option(None, "other alphas, likewise")
    rslora: bool = option(False, "scale by alpha / sqrt(rank)")
    dora: bool = option(False, "learn the length of every row beside its direction")

    def __post_init__(self) -> None:
        for rank in (self.rank, *(self.ranks or {}).values()):
            if rank < 1:
                raise ConfigError(f"LoRA rank is {rank}", "give at least 1")


@config
class LoraConfig(LoraOptions):
    """LoRA as an adapter has it. `tokens` are ids whose rows in the text codec's ends are learnt too: a base may never have seen them."""

    tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.tokens)) < len(self.tokens) or any(i < 0 for i in self.tokens):
            raise ConfigError(f"LoRA tokens are {list(self.tokens)}", "give different ids, from 0 on")

    def rank_at(self, site: str) -> int:
        return value_at(self.ranks, site, self.rank)

    def scaling_at(self, site: str) -> float:
        """What the low-rank product is multiplied by at a site."""
        rank = self.rank_at(site)
        return self.alpha_at(site) / (math.sqrt(rank) if self.rslora else rank)

    def alpha_at(self, site: str) -> float:
        return value_at(self.alphas, site, self.alpha)
