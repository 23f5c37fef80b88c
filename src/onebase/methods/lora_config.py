"""Options of LoRA (Hu et al., 2106.09685), and its config in an adapter."""

import math

from onebase.config import config
from onebase.errors import ConfigError
from onebase.methods.method import option
from onebase.model.sites import value_at

EMBEDDING, LM_HEAD = "text.embedding", "text.lm_head"
"""The text codec's matrices as sites: the token embedding, and the language-model head."""
ENDS = {"embedding": EMBEDDING, "lm_head": LM_HEAD, EMBEDDING: EMBEDDING, LM_HEAD: LM_HEAD}


@config
class LoraOptions:
    """LoRA's options. `sites` are patterns of `model.sites` (`q`: every attention's q; `text.[0-3].*`: the first four blocks), empty for all
    projections; `embedding` and `lm_head` name the text codec's matrices, which no glob matches. Scaling is alpha / rank, with `rslora`
    alpha / sqrt(rank) (2312.03732). `ranks` and `alphas` set another rank or alpha for some sites, by pattern; the longest match wins.
    `dora` trains magnitudes of rows besides their directions (2402.09353)."""

    rank: int = option(8, "rank of the added matrices")
    alpha: float = option(16.0, "scaling: the product is multiplied by alpha / rank")
    sites: tuple[str, ...] = option(
        (),
        "sites: last words (q, v), full names (text.3.attn.q), globs (text.[0-3].*), embedding, lm_head; empty: all projections",
    )
    ranks: dict[str, int] | None = option(None, "other ranks for some sites, by pattern")
    alphas: dict[str, float] | None = option(None, "other alphas for some sites, by pattern")
    rslora: bool = option(False, "scale by alpha / sqrt(rank)")
    dora: bool = option(False, "DoRA: also train the magnitude of every row")

    def __post_init__(self) -> None:
        for rank in (self.rank, *(self.ranks or {}).values()):
            if rank < 1:
                raise ConfigError(f"LoRA rank is {rank}", "give at least 1")
        if self.dora and self.ends:
            raise ConfigError(
                f"DoRA at {', '.join(self.ends)}: only projections are supported",
                "remove dora, or these sites",
            )

    @property
    def ends(self) -> tuple[str, ...]:
        """The sites that are matrices of the text codec."""
        return tuple(dict.fromkeys(ENDS[s] for s in self.sites if s in ENDS))

    @property
    def projections(self) -> tuple[str, ...] | None:
        """The sites that are patterns of projections: empty for all, None where no projection is meant."""
        patterns = tuple(s for s in self.sites if s not in ENDS)
        return None if self.sites and not patterns else patterns


@config
class LoraConfig(LoraOptions):
    """LoRA's config in an adapter. `tokens` are ids whose rows in embedding and head are trained too: the base may never have seen them.
    `replaced` are matrices of the text codec that are replaced as a whole (PEFT adapters may have saved them)."""

    tokens: tuple[int, ...] = ()
    replaced: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.tokens)) < len(self.tokens) or any(i < 0 for i in self.tokens):
            raise ConfigError(f"LoRA tokens are {list(self.tokens)}", "give different ids of at least 0")
        if odd := [e for e in self.replaced if e not in (EMBEDDING, LM_HEAD)]:
            raise ConfigError(f"LoRA replaces {odd[0]!r}", "use the adapter as it was saved")

    def rank_at(self, site: str) -> int:
        return value_at(self.ranks, site, self.rank)

    def scaling_at(self, site: str) -> float:
        """The factor of the low-rank product at a site."""
        rank = self.rank_at(site)
        return self.alpha_at(site) / (math.sqrt(rank) if self.rslora else rank)

    def alpha_at(self, site: str) -> float:
        return value_at(self.alphas, site, self.alpha)
