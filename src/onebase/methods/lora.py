"""Method lora (Hu et al., 2106.09685): low-rank deltas at chosen sites, and embedding rows of chosen tokens. R rank."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from onebase.base.model import BaseModel
from onebase.errors import ConfigError
from onebase.methods.combine import combine
from onebase.methods.dora import Dora
from onebase.methods.lora_config import ENDS, LoraOptions
from onebase.methods.lora_config import LoraConfig as LoraConfig
from onebase.methods.lora_ends import end_tensors, inject_ends
from onebase.methods.lora_peft import read_peft, write_peft
from onebase.methods.lowrank import Lora
from onebase.methods.merge import HEAD, STEM
from onebase.methods.method import SCRATCH, Learner, Method, MethodPart, Peft, Start, Whole
from onebase.modality.text.rows import EndDelta
from onebase.model.proj import AdapterRouting, Proj
from onebase.model.sites import fits, worded

ROWS_RATE = 3.0
"""Learning rate of token rows as a multiple of LoRA's: about the head's rate in pretraining, because the rows start untrained. At LoRA's
own rate a base of width 64 needs 120 steps to learn to end an answer, at this one 60; widths 384 and 768 need 18."""


def chosen_sites(model: BaseModel, cfg: LoraConfig) -> dict[str, Proj]:
    """The projections that a config names. Raises ConfigError for a pattern that matches none (of `ranks` and `alphas`: none of the chosen)."""
    known, wanted = model.sites(), cfg.projections
    chosen = {s: p for s, p in known.items() if wanted == () or any(fits(s, w) for w in wanted or ())}
    for pattern in wanted or ():
        _check_match(pattern, "site", list(known), "is not in this base")
    for kind, table in (("ranks", cfg.ranks), ("alphas", cfg.alphas)):
        for pattern in table or ():
            _check_match(pattern, kind, [*chosen, *cfg.ends], "matches no site with LoRA")
    return chosen


def sites_of(model: BaseModel, patterns: Sequence[str], trunk: str) -> tuple[str, ...]:
    """The patterns unchanged, or, where they also match sites of another trunk, patterns for this trunk only. Raises ConfigError for one that
    matches no site in it. trunk: "" means all."""
    known = list(model.sites())
    inside = [s for s in known if not trunk or s.startswith(f"{trunk}.")]
    ends = tuple(p for p in patterns if p in ENDS)
    if ends and trunk not in ("", "text"):
        raise ConfigError(f"LoRA site {ends[0]!r} needs rows of text", "remove it from sites")
    if ends:
        others = [p for p in patterns if p not in ENDS]
        return (*(sites_of(model, others, trunk) if others else ()), *ends)
    for pattern in patterns:
        _check_match(pattern, "site", known, "is not in this base")
        _check_match(
            pattern, "site", inside, f"is not in its trunk {trunk!r}, the only one that reads these rows"
        )
    if not patterns:
        return () if inside == known else (f"{trunk}.*",)
    chosen = [s for s in known if any(fits(s, p) for p in patterns)]
    if set(chosen) <= set(inside):
        return tuple(patterns)
    return worded([s for s in chosen if s in inside], known)


def _check_match(pattern: str, kind: str, sites: list[str], problem: str) -> None:
    if not any(fits(site, pattern) for site in sites):
        words = sorted({s.rsplit(".", 1)[-1] for s in sites})
        raise ConfigError(
            f"LoRA {kind} {pattern!r} {problem}",
            f"accepted: {', '.join(words)}, a full site name ({sites[0]}), or a glob of site names (text.[0-3].*)",
        )


def inject(model: BaseModel, name: str, cfg: LoraConfig, seed: int = 0) -> list[nn.Parameter]:
    """Attach a new LoRA under `name` at every chosen site, and at the rows of the chosen tokens; returns its parameters."""
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
    """Remove the adapter everywhere; the base is then bitwise as before."""
    for proj in model.sites().values():
        if name in proj.deltas and isinstance(proj.deltas[name], Lora):
            del proj.deltas[name]
    if name in (ends := _ends(model)):
        del ends[name]


def _ends(model: BaseModel) -> nn.ModuleDict:
    """Deltas of the text codec's embedding and head, by adapter; empty on a base that reads no text."""
    return model.text.deltas if "text" in model.cfg.codecs else nn.ModuleDict()


def merge(model: BaseModel, name: str) -> dict[str, Callable[[], Whole]]:
    """Each projection with its delta added, and the embedding and head of the text where the adapter changes them."""
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
    """The adapter's tensors: `site.a`, `site.b`, for DoRA `site.magnitude`, and those of `end_tensors`."""
    out: dict[str, Tensor] = {}
    for site, proj in model.sites().items():
        if name in proj.deltas and isinstance(lora := proj.deltas[name], Lora):
            out[f"{site}.a"], out[f"{site}.b"] = lora.a_RI.detach(), lora.b_OR.detach()
            if isinstance(lora, Dora):
                out[f"{site}.magnitude"] = lora.m_O.detach()
    return out | end_tensors(model, name)


@torch.no_grad()
def put(model: BaseModel, name: str, cfg: LoraConfig, found: dict[str, Tensor]) -> None:
    """Attach saved tensors; they must cover exactly the sites of the config. Raises ConfigError that names the site."""
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
    """Trained parameters of the named adapters."""
    return sum(t.numel() for n in names for t in tensors(model, n).values())


@contextmanager
def learn(start: Start) -> Iterator[Learner]:
    """A new LoRA on the sites that the options name."""
    o, model = start.options, start.base.model
    options = {f: getattr(o, f) for f in METHOD.option_names}
    cfg = LoraConfig(**options | {"sites": sites_of(model, o.sites, start.trunk)}, tokens=start.tokens)
    params = inject(model, SCRATCH, cfg, start.seed)
    yield Learner(params, AdapterRouting.all_rows(SCRATCH), cfg, rate=ROWS_RATE)


METHOD = Method(
    name="lora",
    options=LoraOptions,
    config=LoraConfig,
    part=MethodPart(owns, tensors, put, remove),
    learn=learn,
    rates={"answers": 2e-3, "pairs": 2e-4, "rewards": 3e-4},
    tuned={"rank": (4, 8, 16, 32)},
    merge=merge,
    combine=combine,
    peft=Peft("LORA", read_peft, write_peft),
)
