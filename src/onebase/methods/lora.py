"""LoRA by injection (Hu et al., 2106.09685): a low-rank delta at chosen sites, and the rows of chosen tokens. R rank."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from onebase.base.model import BaseModel
from onebase.codec.text.rows import EndDelta
from onebase.errors import ConfigError
from onebase.methods.combine import combine
from onebase.methods.dora import Dora
from onebase.methods.lora_config import ENDS, LoraOptions
from onebase.methods.lora_config import LoraConfig as LoraConfig
from onebase.methods.lora_ends import end_tensors, inject_ends
from onebase.methods.lora_peft import read_peft, write_peft
from onebase.methods.lowrank import Lora
from onebase.methods.merge import HEAD, STEM
from onebase.methods.method import SCRATCH, Learner, Method, Part, Peft, Start, Whole
from onebase.model.proj import Active, Proj
from onebase.model.sites import fits, worded

ROWS_RATE = 3.0
"""Rate of the rows of tokens as a multiple of LoRA's: about the head's rate in pretraining, for they start as untaught. At LoRA's own
rate a base of width 64 needs 120 steps to learn to end an answer, at this one 60; widths 384 and 768 learn it in 18."""


def chosen_sites(model: BaseModel, cfg: LoraConfig) -> dict[str, Proj]:
    """The projections a config names. Raises ConfigError for a pattern that means none (of `ranks` and `alphas`: none of the chosen)."""
    known, wanted = model.sites(), cfg.projections
    chosen = {s: p for s, p in known.items() if wanted == () or any(fits(s, w) for w in wanted or ())}
    for pattern in wanted or ():
        _meant(pattern, "site", list(known), "is not in this base")
    for kind, table in (("ranks", cfg.ranks), ("alphas", cfg.alphas)):
        for pattern in table or ():
            _meant(pattern, kind, [*chosen, *cfg.ends], "means no site that LoRA is put on")
    return chosen


def sites_of(model: BaseModel, patterns: Sequence[str], trunk: str) -> tuple[str, ...]:
    """The patterns as they stand, or, where they mean sites of another trunk too, those that mean their sites in this one alone. Raises
    ConfigError for one that means none in it."""
    known = list(model.sites())
    inside = [s for s in known if s.startswith(f"{trunk}.")]
    ends = tuple(p for p in patterns if p in ENDS)
    if ends and trunk != "text":
        raise ConfigError(f"LoRA site {ends[0]!r}, and these rows are no text", "leave it out of sites")
    if ends:
        others = [p for p in patterns if p not in ENDS]
        return (*(sites_of(model, others, trunk) if others else ()), *ends)
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
    generator = torch.Generator().manual_seed(seed)
    out: list[nn.Parameter] = []
    for site, proj in chosen_sites(model, cfg).items():
        kind = Dora if cfg.dora else Lora
        lora = kind(proj.d_in, proj.d_out, cfg.rank_at(site), cfg.scaling_at(site), proj.device)
        lora.reset(generator, proj)
        proj.deltas[name] = lora
        out += list(lora.parameters())
    return out + inject_ends(model, name, cfg, generator)


def remove(model: BaseModel, name: str) -> None:
    """Take the adapter off everywhere; the base is then bitwise what it was."""
    for proj in model.sites().values():
        if name in proj.deltas and isinstance(proj.deltas[name], Lora):
            del proj.deltas[name]
    if name in (ends := _ends(model)):
        del ends[name]


def _ends(model: BaseModel) -> nn.ModuleDict:
    """What stands at the ends of the text by adapter; nothing on a base that reads none."""
    return model.text.deltas if "text" in model.cfg.codecs else nn.ModuleDict()


def merge(model: BaseModel, name: str) -> dict[str, Callable[[], Whole]]:
    """Each projection with its delta in it, and the two ends of the text where it has something there."""
    out: dict[str, Callable[[], Whole]] = {}
    for site, proj in model.sites().items():
        if name in proj.deltas and isinstance(delta := proj.deltas[name], Lora):
            out[site] = partial(_whole, proj, delta)
    if name in _ends(model):
        ends, text = model.text.deltas[name], model.text
        assert isinstance(ends, EndDelta)
        out[STEM] = lambda: Whole(ends.stem_added(_exact(text.stem.weight), text.cfg.scale))
        out[HEAD] = lambda: Whole(ends.head_added(_exact(text.head.weight)))
    return out


def _whole(proj: Proj, delta: Lora) -> Whole:
    return Whole(delta.merged_OI(proj))


def _exact(weight: Tensor | None) -> Tensor:
    assert weight is not None
    return weight.to(torch.promote_types(weight.dtype, torch.float32))


def owns(key: str) -> bool:
    """See `tensors`."""
    return key.endswith((".a", ".b", ".magnitude", ".rows", ".delta"))


def tensors(model: BaseModel, name: str) -> dict[str, Tensor]:
    """The adapter's tensors: `site.a`, `site.b` and for DoRA `site.magnitude`, and those of `end_tensors`."""
    out: dict[str, Tensor] = {}
    for site, proj in model.sites().items():
        if name in proj.deltas and isinstance(lora := proj.deltas[name], Lora):
            out[f"{site}.a"], out[f"{site}.b"] = lora.a_RI.detach(), lora.b_OR.detach()
            if isinstance(lora, Dora):
                out[f"{site}.magnitude"] = lora.m_O.detach()
    return out | end_tensors(model, name)


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
