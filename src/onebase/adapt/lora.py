"""LoRA by injection (Hu et al., 2106.09685): a low-rank delta at chosen sites, and the rows of chosen tokens. R rank."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from onebase.adapt.lowrank import Dora, Lora
from onebase.adapt.method import SCRATCH, Learner, Method, MethodOptions, Part
from onebase.adapt.rounding import Rounding
from onebase.base.folder import LoadedBase
from onebase.base.model import BaseModel
from onebase.codec.text.rows import TokenRows
from onebase.config import config
from onebase.errors import ConfigError, UserError
from onebase.model.kernels.storage import Int4, Int8
from onebase.model.proj import Active, Proj
from onebase.model.sites import fits, value_at, worded

__all__ = [
    "Lora",
    "LoraConfig",
    "chosen_sites",
    "METHOD",
    "count",
    "inject",
    "learn",
    "merge",
    "owns",
    "put",
    "remove",
    "sites_of",
    "tensors",
]


ROWS_RATE = 3.0
"""Rate of the rows of tokens as a multiple of LoRA's: about the head's rate in pretraining, for they start as untaught. At LoRA's own
rate a base of width 64 needs 120 steps to learn to end an answer, at this one 60; widths 384 and 768 learn it in 18."""


@config
class LoraConfig:
    """`sites` are patterns of `model.sites` (`q` means every attention's q, `text.[0-3].*` the first four blocks), every projection when
    empty. Scaling is alpha / rank, with `rslora` alpha / sqrt(rank) (2312.03732). `ranks` and `alphas` give some of the sites another
    rank or alpha, by pattern, the longest that fits. `dora` learns the length of every row beside the direction (2402.09353).
    `tokens` are ids whose rows in the text codec's ends are learnt too: a base may never have seen them.
    """

    rank: int = 8
    alpha: float = 16.0
    sites: tuple[str, ...] = ()
    tokens: tuple[int, ...] = ()
    ranks: dict[str, int] | None = None
    alphas: dict[str, float] | None = None
    rslora: bool = False
    dora: bool = False

    def __post_init__(self) -> None:
        for rank in (self.rank, *(self.ranks or {}).values()):
            if rank < 1:
                raise ConfigError(f"LoRA rank is {rank}", "give at least 1")
        if len(set(self.tokens)) < len(self.tokens) or any(i < 0 for i in self.tokens):
            raise ConfigError(f"LoRA tokens are {list(self.tokens)}", "give different ids, from 0 on")

    def rank_at(self, site: str) -> int:
        return value_at(self.ranks, site, self.rank)

    def scaling_at(self, site: str) -> float:
        """What the low-rank product is multiplied by at a site."""
        rank = self.rank_at(site)
        return value_at(self.alphas, site, self.alpha) / (math.sqrt(rank) if self.rslora else rank)


def chosen_sites(model: BaseModel, cfg: LoraConfig) -> dict[str, Proj]:
    """The projections a config names. Raises ConfigError for a pattern that means none (of `ranks` and `alphas`: none of the chosen)."""
    known = model.sites()
    chosen = {s: p for s, p in known.items() if not cfg.sites or any(fits(s, w) for w in cfg.sites)}
    for pattern in cfg.sites:
        _meant(pattern, "site", list(known), "is not in this base")
    for kind, table in (("ranks", cfg.ranks), ("alphas", cfg.alphas)):
        for pattern in table or ():
            _meant(pattern, kind, list(chosen), "means no site that LoRA is put on")
    return chosen


def sites_of(model: BaseModel, patterns: Sequence[str], trunk: str) -> tuple[str, ...]:
    """The patterns as they stand, or, where they mean sites of another trunk too, those that mean their sites in this one alone. Raises
    ConfigError for one that means none in it."""
    known = list(model.sites())
    inside = [s for s in known if s.startswith(f"{trunk}.")]
    for pattern in patterns:
        _meant(pattern, "site", known, "is not in this base")
        _meant(pattern, "site", inside, f"is not in its trunk {trunk!r}, and these rows go through no other")
    if not patterns:
        return () if inside == known else (f"{trunk}.*",)
    chosen = [s for s in known if any(fits(s, p) for p in patterns)]
    if set(chosen) <= set(inside):
        return tuple(patterns)
    return worded([s for s in chosen if s in inside], known)


def _meant(pattern: str, kind: str, sites: list[str], fault: str) -> None:
    if not any(fits(site, pattern) for site in sites):
        words = sorted({s.rsplit(".", 1)[-1] for s in sites})
        raise ConfigError(
            f"LoRA {kind} {pattern!r} {fault}",
            f"known: {', '.join(words)}, a whole site name ({sites[0]}), or a glob of it (text.[0-3].*)",
        )


def inject(model: BaseModel, name: str, cfg: LoraConfig, seed: int = 0) -> list[nn.Parameter]:
    """Attach a fresh LoRA called `name` at every chosen site, and at the chosen tokens' rows; returns its parameters."""
    if cfg.tokens and max(cfg.tokens) >= (vocab := model.cfg.text.vocab_size):
        raise ConfigError(
            f"LoRA token {max(cfg.tokens)} is not in this base", f"ids go from 0 to {vocab - 1}"
        )
    generator = torch.Generator().manual_seed(seed)
    out: list[nn.Parameter] = []
    for site, proj in chosen_sites(model, cfg).items():
        kind = Dora if cfg.dora else Lora
        lora = kind(proj.d_in, proj.d_out, cfg.rank_at(site), cfg.scaling_at(site), proj.device)
        lora.reset(generator, proj)
        proj.deltas[name] = lora
        out += list(lora.parameters())
    if cfg.tokens:
        rows = TokenRows(cfg.tokens, model.text.width, model.device)
        model.text.deltas[name] = rows
        out += list(rows.parameters())
    return out


def remove(model: BaseModel, name: str) -> None:
    """Take the adapter off everywhere; the base is then bitwise what it was."""
    for proj in model.sites().values():
        if name in proj.deltas and isinstance(proj.deltas[name], Lora):
            del proj.deltas[name]
    if name in (rows := _rows(model)):
        del rows[name]


def _rows(model: BaseModel) -> nn.ModuleDict:
    """Rows of tokens by adapter; none on a base that reads no text."""
    return model.text.deltas if "text" in model.cfg.codecs else nn.ModuleDict()


@torch.no_grad()
def merge(model: BaseModel, *names: str) -> Rounding:
    """Add adapters into the weights and take them off; each delta is that beside the base alone, so their order does not matter. The base is then another base, with another fingerprint.

    Tied ends are untied first where the adapter has rows of tokens: one matrix cannot hold two deltas. A projection in few bits is rounded
    anew: measure what that does (`api.merging` does). Returned is what storing the others in half precision takes away. Raises UserError
    for rows of tokens where the matrix that makes logits is kept in few bits.
    """
    storage = model.cfg.storage
    if storage is not None and storage.head is not None and any(n in _rows(model) for n in names):
        raise UserError(
            f"the base keeps the matrix that makes logits in {storage.head} bits: the adapter's rows of tokens would be rounded away",
            "serve the adapter beside the base, or merge first and quantize the result",
        )
    rounding = Rounding()
    for site, proj in model.sites().items():
        if here := [n for n in names if n in proj.deltas]:
            whole_OI = _merged_OI(proj, here)
            if proj.weight is None:
                assert isinstance(proj.store, Int8 | Int4)
                proj.store.take(whole_OI)
            else:
                own_OI = proj.weight.clone()
                proj.weight.copy_(whole_OI)
                rounding.note(site, own_OI, whole_OI, proj.weight)
            for name in here:
                del proj.deltas[name]
    for name in names:
        if name in _rows(model):
            model.untie()
            _merge_rows(model, name, rounding)
    return rounding


def _merge_rows(model: BaseModel, name: str, rounding: Rounding) -> None:
    rows, text = model.text.deltas[name], model.text
    assert isinstance(rows, TokenRows) and text.stem.weight is not None and text.head.weight is not None
    ends = {
        "text.stem": (text.stem.weight, text.stem.weight.clone(), rows.stem_added),
        "text.head": (text.head.weight, text.head.weight.clone(), rows.head_added),
    }
    text.merge(name)
    for end, (stored_VD, own_VD, added) in ends.items():
        own_VD = own_VD.to(torch.promote_types(own_VD.dtype, torch.float32))
        rounding.note(end, own_VD, added(own_VD), stored_VD)


def _merged_OI(proj: Proj, names: Sequence[str]) -> Tensor:
    """The projection's matrix with these adapters in it."""
    loras = [proj.deltas[name] for name in names]
    wholes = [x.merged_OI(proj) for x in loras if isinstance(x, Lora)]
    if len(wholes) == 1:
        return wholes[0]
    own_OI = proj.matrix_OI(wholes[0].dtype)
    return own_OI + torch.stack([w - own_OI for w in wholes]).sum(0)


def owns(key: str) -> bool:
    """See `tensors`."""
    return key.endswith((".a", ".b", ".magnitude", ".rows"))


def tensors(model: BaseModel, name: str) -> dict[str, Tensor]:
    """The adapter's tensors: `site.a`, `site.b` and for DoRA `site.magnitude`, and of tokens `text.stem.rows` and `text.head.rows` (in the config's order)."""
    out: dict[str, Tensor] = {}
    for site, proj in model.sites().items():
        if name in proj.deltas and isinstance(lora := proj.deltas[name], Lora):
            out[f"{site}.a"], out[f"{site}.b"] = lora.a_RI.detach(), lora.b_OR.detach()
            if isinstance(lora, Dora):
                out[f"{site}.magnitude"] = lora.m_O.detach()
    if name in (ends := _rows(model)):
        rows = ends[name]
        assert isinstance(rows, TokenRows)
        out["text.stem.rows"], out["text.head.rows"] = rows.stem_KD.detach(), rows.head_KD.detach()
    return out


@torch.no_grad()
def put(model: BaseModel, name: str, cfg: LoraConfig, found: dict[str, Tensor]) -> None:
    """Attach saved tensors; all sites of the config must be there, and no others. Raises ConfigError naming the site."""
    inject(model, name, cfg)
    wanted = tensors(model, name)
    odd = sorted(wanted.keys() ^ found.keys())
    if odd or any(wanted[k].shape != found[k].shape for k in wanted):
        bad = odd[0] if odd else next(k for k in wanted if wanted[k].shape != found[k].shape)
        remove(model, name)
        raise ConfigError(
            f"LoRA tensor {bad!r} does not fit this base", "use the base the adapter was made for"
        )
    for key, t in wanted.items():
        t.copy_(found[key])


def count(model: BaseModel, names: Iterable[str]) -> int:
    """Learned numbers of the named adapters."""
    return sum(t.numel() for n in names for t in tensors(model, n).values())


@contextmanager
def learn(base: LoadedBase, options: MethodOptions, tokens: tuple[int, ...], trunk: str) -> Iterator[Learner]:
    """A fresh LoRA on the sites that the options name."""
    more = {k: getattr(options, k) for k in ("ranks", "alphas", "rslora", "dora")}
    sites = sites_of(base.model, options.sites, trunk)
    cfg = LoraConfig(rank=options.rank, alpha=options.alpha, sites=sites, tokens=tokens, **more)
    params = inject(base.model, SCRATCH, cfg, options.seed)
    yield Learner(params, Active.all_rows(SCRATCH), {"lora": cfg}, rate=ROWS_RATE)


METHOD = Method(
    name="lora",
    part=Part(owns, tensors, put, remove),
    learn=learn,
    rates={"answers": 2e-3, "pairs": 2e-4, "rewards": 3e-4},
    merges=True,
)
