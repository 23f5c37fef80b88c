"""What LoRA (Hu et al., 2106.09685) is told, and what an adapter keeps of it."""

import math

from onebase.config import config
from onebase.errors import ConfigError
from onebase.methods.method import option
from onebase.model.sites import value_at

EMBEDDING, LM_HEAD = "text.embedding", "text.lm_head"
"""The ends of the text as sites: the matrix of tokens' vectors, and the one that makes logits."""
ENDS = {"embedding": EMBEDDING, "lm_head": LM_HEAD, EMBEDDING: EMBEDDING, LM_HEAD: LM_HEAD}


@config
class LoraOptions:
    """What users say of LoRA. `sites` are patterns of `model.sites` (`q` means every attention's q, `text.[0-3].*` the first four blocks), every
    projection when empty; `embedding` and `lm_head` mean the ends of the text, which no glob means. Scaling is alpha / rank, with `rslora` alpha / sqrt(rank) (2312.03732). `ranks` and `alphas` give some of the sites another
    rank or alpha, by pattern, the longest that fits. `dora` learns the length of every row beside the direction (2402.09353)."""

    rank: int = option(8, "rank of the added matrices")
    alpha: float = option(16.0, "they are scaled by alpha / rank")
    sites: tuple[str, ...] = option(
        (),
        "which projections: last words (q, v), whole names (text.3.attn.q) or globs (text.[0-3].*); embedding, lm_head; all but these when empty",
    )
    ranks: dict[str, int] | None = option(None, "other ranks for some sites, by pattern")
    alphas: dict[str, float] | None = option(None, "other alphas, likewise")
    rslora: bool = option(False, "scale by alpha / sqrt(rank)")
    dora: bool = option(False, "learn the length of every row beside its direction")

    def __post_init__(self) -> None:
        for rank in (self.rank, *(self.ranks or {}).values()):
            if rank < 1:
                raise ConfigError(f"LoRA rank is {rank}", "give at least 1")
        if self.dora and self.ends:
            raise ConfigError(
                f"DoRA at {', '.join(self.ends)}: it is learnt at projections alone",
                "leave dora out, or these sites",
            )

    @property
    def ends(self) -> tuple[str, ...]:
        """The ends of the text that the sites name."""
        return tuple(dict.fromkeys(ENDS[s] for s in self.sites if s in ENDS))

    @property
    def projections(self) -> tuple[str, ...] | None:
        """The patterns of projections among the sites; all when empty, None where the sites are ends alone."""
        found = tuple(s for s in self.sites if s not in ENDS)
        return None if self.sites and not found else found


@config
class LoraConfig(LoraOptions):
    """LoRA as an adapter has it. `tokens` are ids whose rows in the text codec's ends are learnt too: a base may never have seen them.
    `replaced` are ends of the text whose whole matrix is another (an adapter of PEFT may have saved it)."""

    tokens: tuple[int, ...] = ()
    replaced: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.tokens)) < len(self.tokens) or any(i < 0 for i in self.tokens):
            raise ConfigError(f"LoRA tokens are {list(self.tokens)}", "give different ids, from 0 on")
        if odd := [e for e in self.replaced if e not in (EMBEDDING, LM_HEAD)]:
            raise ConfigError(f"LoRA replaces {odd[0]!r}", "use the adapter as it was saved")

    def rank_at(self, site: str) -> int:
        return value_at(self.ranks, site, self.rank)

    def scaling_at(self, site: str) -> float:
        """What the low-rank product is multiplied by at a site."""
        rank = self.rank_at(site)
        return self.alpha_at(site) / (math.sqrt(rank) if self.rslora else rank)

    def alpha_at(self, site: str) -> float:
        return value_at(self.alphas, site, self.alpha)
