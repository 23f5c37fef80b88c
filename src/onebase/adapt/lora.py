"""LoRA by injection (Hu et al., 2106.09685): a low-rank delta at chosen sites, and the rows of chosen tokens. R rank."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from onebase.adapt.combine import combine
from onebase.adapt.lora_config import LoraConfig as LoraConfig
from onebase.adapt.lora_config import LoraOptions
from onebase.adapt.lora_peft import read_peft, write_peft
from onebase.adapt.lowrank import Dora, Lora
from onebase.adapt.merge import HEAD, STEM
from onebase.adapt.method import SCRATCH, Learner, Method, Part, Peft, Start, Whole
from onebase.base.model import BaseModel
from onebase.codec.text.rows import TokenRows
from onebase.errors import ConfigError
from onebase.model.proj import Active, Proj
from onebase.model.sites import fits, worded

ROWS_RATE = 3.0
"""Rate of the rows of tokens as a multiple of LoRA's: about the head's rate in pretraining, for they start as untaught. At LoRA's own
rate a base of width 64 needs 120 steps to learn to end an answer, at this one 60; widths 384 and 768 learn it in 18."""


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


def merge(model: BaseModel, name: str) -> dict[str, Callable[[], Whole]]:
    """Each projection with its delta in it, and the two ends where it has rows of tokens."""
    out: dict[str, Callable[[], Whole]] = {}
    for site, proj in model.sites().items():
        if name in proj.deltas and isinstance(delta := proj.deltas[name], Lora):
            out[site] = partial(_whole, proj, delta)
    if name in _rows(model):
        rows, text = model.text.deltas[name], model.text
        assert isinstance(rows, TokenRows)
        out[STEM] = lambda: Whole(rows.stem_added(_exact(text.stem.weight)))
        out[HEAD] = lambda: Whole(rows.head_added(_exact(text.head.weight)))
    return out


def _whole(proj: Proj, delta: Lora) -> Whole:
    return Whole(delta.merged_OI(proj))


def _exact(weight: Tensor | None) -> Tensor:
    assert weight is not None
    return weight.to(torch.promote_types(weight.dtype, torch.float32))


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
def learn(start: Start) -> Iterator[Learner]:
    """A fresh LoRA on the sites that the options name."""
    o, model = start.options, start.base.model
    asked = {f: getattr(o, f) for f in METHOD.option_names}
    cfg = LoraConfig(**asked | {"sites": sites_of(model, o.sites, start.trunk)}, tokens=start.tokens)
    params = inject(model, SCRATCH, cfg, start.seed)
    yield Learner(params, Active.all_rows(SCRATCH), cfg, rate=ROWS_RATE)


METHOD = Method(
    name="lora",
    options=LoraOptions,
    config=LoraConfig,
    part=Part(owns, tensors, put, remove),
    learn=learn,
    rates={"answers": 2e-3, "pairs": 2e-4, "rewards": 3e-4},
    tuned={"rank": (4, 8, 16, 32)},
    merge=merge,
    combine=combine,
    peft=Peft("LORA", read_peft, write_peft),
)
