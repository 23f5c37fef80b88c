"""Reads and writes LoRA adapters in PEFT's format, by the rules of a family.

Source: peft `tuners/lora/config.py` and `tuners/lora/layer.py`, read for names and meaning. A delta is scaling * B A with A [rank, in] and
B [out, rank] there and here; DoRA has one magnitude per row of the weight. Where a PEFT module is several of our projections (a fused q, k,
v), they share A, and B is split like the rows of the weight.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from onebase.errors import ArtifactError, ConfigError
from onebase.formats.peft.folder import CONFIG, PREFIX, PeftFolder, Target
from onebase.formats.peft.names import PeftModule, by_any_name, decodes, ends_by_any_name, modules, task
from onebase.methods.lora_config import LoraConfig
from onebase.methods.lora_peft_config import MAX_RANK, PeftSettings, by_name, settings
from onebase.methods.lora_peft_ends import read_ends, write_ends
from onebase.model.sites import exceptions, worded

_KEY = re.compile(re.escape(PREFIX) + r"(.+?)\.((?:lora_|base_layer|token_adapter).*)")
_KINDS = {
    r"lora_A\.weight": "A",
    r"lora_B\.weight": "B",
    r"lora_embedding_A": "A",
    r"lora_embedding_B": "B",
    r"lora_magnitude_vector(?:\.weight)?": "magnitude",
    r"base_layer\.weight": "base_layer",
    r"token_adapter\.trainable_tokens_delta": "tokens",
}


def read_peft(folder: PeftFolder, target: Target) -> tuple[LoraConfig, dict[str, Tensor]]:
    """See `Peft.read`. Raises ArtifactError for tensors that are missing or do not fit, ConfigError for settings that our LoRA does not support."""
    cfg = settings(folder)
    found = _modules_of(folder.own, folder.where)
    ends = ends_by_any_name(target.model, target.family())
    at_ends = read_ends(folder, target, {m: found.pop(m) for m in [*found] if m in ends}, cfg.tokens)
    known = by_any_name(target.model, target.family())
    tensors: dict[str, Tensor] = {}
    ranks, alphas = {}, {}
    for module, parts in found.items():
        made = known.get(module)
        if made is None:
            raise ArtifactError(
                f"{folder.where}: the adapted module {module!r} is not a projection of this base's trunk",
                "give an adapter of this base that adapts only attention and feed-forward",
            )
        _whole(folder, module, parts, cfg.dora)
        a, b = parts["A"], parts["B"]
        rank, projs = a.shape[0], [p for p, _ in made.parts]
        sizes = sum(p.d_out for p in projs)
        if a.shape != (rank, projs[0].d_in) or b.shape != (sizes, rank) or not 0 < rank <= MAX_RANK:
            raise ArtifactError(
                f"{folder.where}: {module!r} has A {list(a.shape)} and B {list(b.shape)}, the base needs "
                f"[rank, {projs[0].d_in}] and [{sizes}, rank]",
                "give an adapter of this base",
            )
        _ranked(folder, cfg, module, rank)
        for proj, part in zip(projs, made.there(b), strict=True):
            tensors[f"{proj.site}.a"], tensors[f"{proj.site}.b"] = a.float().clone(), part.float().clone()
            ranks[proj.site], alphas[proj.site] = rank, float(by_name(cfg.alphas, module, cfg.alpha))
        if cfg.dora:
            m = parts["magnitude"]
            if m.numel() != sizes:
                raise ArtifactError(
                    f"{folder.where}: {module!r} has {m.numel()} magnitudes, the base needs {sizes}",
                    "give an adapter of this base",
                )
            for proj, part in zip(projs, made.there(m.reshape(-1, 1)), strict=True):
                tensors[f"{proj.site}.magnitude"] = part.flatten().float().clone()
    sites = worded(list(ranks), list(target.model.sites())) if ranks or not at_ends.modules else ()
    if at_ends.modules:
        sites = (*(("*",) if ranks and not sites else sites), *at_ends.modules)
    for end, module in at_ends.modules.items():
        rank = len(at_ends.tensors[f"{end}.a"])
        _ranked(folder, cfg, module, rank)
        ranks[end], alphas[end] = rank, float(by_name(cfg.alphas, module, cfg.alpha))
    made_cfg = LoraConfig(
        rank=cfg.rank,
        alpha=cfg.alpha,
        sites=sites,
        tokens=at_ends.tokens,
        replaced=at_ends.replaced,
        ranks=exceptions(ranks, cfg.rank),
        alphas=exceptions(alphas, cfg.alpha),
        rslora=cfg.rslora,
        dora=cfg.dora,
    )
    return made_cfg, tensors | at_ends.tensors


def _ranked(folder: PeftFolder, cfg: PeftSettings, module: str, rank: int) -> None:
    if rank != (wanted := by_name(cfg.ranks, module, cfg.rank)):
        raise ArtifactError(
            f"{folder.path / CONFIG}: {module!r} has rank {rank}, the config says {wanted}",
            "take an intact copy",
        )


def write_peft(
    cfg: LoraConfig, tensors: Mapping[str, Tensor], target: Target
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """See `Peft.write`. Raises ConfigError for tensors that PEFT's LoRA cannot represent."""
    model, family = target.model, target.family()
    ends, more, out = write_ends(cfg, tensors, target)
    sites = {k.removesuffix(".a") for k in tensors if k.endswith(".a")} - set(ends)
    ranks = {m: cfg.rank_at(end) for end, m in ends.items() if cfg.rank_at(end) != cfg.rank}
    alphas = {m: cfg.alpha_at(end) for end, m in ends.items() if cfg.alpha_at(end) != cfg.alpha}
    adapted, others = [], []
    for module, made in modules(model, family, target.headed):
        here = [p.site for p, _ in made.parts]
        if not sites & set(here):
            others.append(module)
            continue
        adapted.append(module)
        a, b, alpha = _joined(made, cfg, tensors)
        sites -= set(here)
        out[f"{PREFIX}{module}.lora_A.weight"], out[f"{PREFIX}{module}.lora_B.weight"] = a, b
        if cfg.dora:
            out[f"{PREFIX}{module}.lora_magnitude_vector"] = _lengths(made, tensors)
        if a.shape[0] != cfg.rank:
            ranks[module] = a.shape[0]
        if alpha != cfg.alpha:
            alphas[module] = alpha
    if sites := {s for s in sites if bool(tensors[f"{s}.b"].any())}:  # untrained deltas are zero
        raise ConfigError(
            f"the {family.model_types[0]} layout has no module for a delta at {sorted(sites)[0]!r}",
            "export the merged base instead",
        )
    turned = any(made.turned for m, made in modules(model, family, target.headed) if m in adapted)
    adapted += ends.values()
    words = sorted({m.rsplit(".", 1)[-1] for m in adapted})
    # Heads, poolers and towers of other models have matrices with the same last word that are not our projections.
    plain = decodes(model.cfg) and not any(m.rsplit(".", 1)[-1] in words for m in others)
    tree = {
        "task_type": task(model.cfg),
        "r": cfg.rank,
        "lora_alpha": cfg.alpha,
        "target_modules": words if plain else sorted(adapted),
        "fan_in_fan_out": turned,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "use_rslora": cfg.rslora,
        "use_dora": cfg.dora,
        "lora_dropout": 0.0,
        "bias": "none",
        "init_lora_weights": True,
    }
    return tree | more, out


def _modules_of(tensors: Mapping[str, Tensor], where: str) -> dict[str, dict[str, Tensor]]:
    """LoRA's tensors of each module, by kind (`_KINDS`)."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, x in tensors.items():
        match = _KEY.fullmatch(key)
        kind = next((k for pattern, k in _KINDS.items() if match and re.fullmatch(pattern, match[2])), None)
        if (
            not match
            or kind is None
            or not x.is_floating_point()
            or x.ndim != (1 if kind == "magnitude" else 2)
        ):
            raise ArtifactError(
                f"{where}: {key!r} {list(x.shape)} is not a matrix of a LoRA on a linear layer",
                "give an adapter with LoRA only",
            )
        found.setdefault(match[1], {})[kind] = x
    return found


def _whole(folder: PeftFolder, module: str, parts: Mapping[str, Tensor], dora: bool) -> None:
    """Raises ArtifactError where a projection's delta is incomplete."""
    if not {"A", "B"} <= parts.keys():
        raise ArtifactError(f"{folder.where}: {module!r} has only one of A and B", "take an intact copy")
    if dora != ("magnitude" in parts):
        raise ArtifactError(
            f"{folder.where}: {module!r} has {'no' if dora else 'a'} magnitude, the config says use_dora: {dora}",
            "take an intact copy",
        )


def _joined(made: PeftModule, cfg: LoraConfig, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, float]:
    """A, B and alpha of one module: a common A of our projections is reused, else each gets its part of a larger rank. B includes the ratio of
    a projection's scaling to the first one's."""
    have = [p.site for p, _ in made.parts if f"{p.site}.a" in tensors]
    tops = [tensors[f"{site}.a"] for site in have]
    shared = len(have) == len(made.parts) and all(torch.equal(a, tops[0]) for a in tops)
    rank = tops[0].shape[0] if shared else sum(a.shape[0] for a in tops)
    first = cfg.scaling_at(have[0])
    bs, at = [], 0
    for proj, _ in made.parts:
        b = tops[0].new_zeros(proj.d_out, rank)
        if proj.site in have:
            part, own = tensors[f"{proj.site}.b"], cfg.scaling_at(proj.site)
            b[:, at : at + part.shape[1]] = part if own == first else part * (own / first)
            at += 0 if shared else part.shape[1]
        bs.append(b)
    same = rank == tops[0].shape[0]
    alpha = cfg.alpha_at(have[0]) if same else first * (math.sqrt(rank) if cfg.rslora else rank)
    return (tops[0] if shared else torch.cat(tops)), made.back(bs), alpha


def _lengths(made: PeftModule, tensors: Mapping[str, Tensor]) -> Tensor:
    """The magnitudes of one module; for a projection without any, the norms of its rows."""
    ms = []
    for proj, _ in made.parts:
        m = tensors.get(f"{proj.site}.magnitude")
        ms.append(torch.linalg.vector_norm(proj.matrix_OI(torch.float32), dim=1) if m is None else m)
    return made.back([m.detach()[:, None] for m in ms]).flatten()
