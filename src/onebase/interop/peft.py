"""LoRA adapters of PEFT in and out: adapter_config.json and adapter_model.safetensors, by the rules of a family.

Source: peft `tuners/lora/config.py` and `tuners/lora/layer.py`, read for names and meaning. A delta is scaling * B A with A [rank, in] and
B [out, rank] there and here; a magnitude of DoRA is a number a row of the weight. Where their module holds several of our projections (a fused q, k, v), A serves each of them and B is cut as
the weight's rows are.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onebase.artifact.tensors import load_tensors, save_tensors
from onebase.base.model import BaseModel
from onebase.errors import ArtifactError, ConfigError
from onebase.interop.family import Family
from onebase.interop.folder import read_json
from onebase.interop.peft_config import MAX_RANK, by_name, said
from onebase.interop.peft_names import Module, by_any_name, decodes, modules, task
from onebase.interop.reader import Reader
from onebase.model.sites import exceptions, value_at, worded

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_KEY = re.compile(r"base_model\.model\.(.+)\.lora_(?:([AB])\.weight|(magnitude_vector)(?:\.weight)?)")


@dataclass(frozen=True)
class LowRank:
    """What a LoRA is, without the base: `tensors` by `site.a` [R, in], `site.b` [out, R] and for DoRA `site.magnitude` [out]; all else as
    `LoraConfig` has it."""

    rank: int
    alpha: float
    sites: tuple[str, ...]
    tensors: dict[str, Tensor]
    ranks: dict[str, int] | None = None
    alphas: dict[str, float] | None = None
    rslora: bool = False
    dora: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """All but the tensors, by the names of `LoraConfig`."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "tensors"}

    def alpha_at(self, site: str) -> float:
        return value_at(self.alphas, site, self.alpha)

    def scaling_at(self, site: str) -> float:
        return scaling(self.alpha_at(site), self.tensors[f"{site}.a"].shape[0], self.rslora)


def scaling(alpha: float, rank: int, rslora: bool) -> float:
    """What multiplies B A."""
    return alpha / (math.sqrt(rank) if rslora else rank)


def is_peft(path: Path) -> bool:
    """Is this a folder that PEFT saved an adapter in?"""
    return path.is_dir() and (path / CONFIG).is_file()


def load_peft(path: Path, model: BaseModel, family: Family) -> LowRank:
    """Read an adapter for `model`, whose tensors `family` names.

    Raises ArtifactError for what is missing or does not fit, ConfigError for what LoRA here cannot express.
    """
    r = Reader(read_json(path / CONFIG), str(path / CONFIG))
    cfg = said(r)
    if not (path / WEIGHTS).is_file() and (path / PICKLE).is_file():
        raise ArtifactError(
            f"{path} has its weights as a pickle ({PICKLE}), which can run any code when opened",
            "ask for safetensors, or convert in a place where nothing can be harmed",
        )
    found = _modules_of(load_tensors(path / WEIGHTS), str(path / WEIGHTS), cfg.dora)
    known = by_any_name(model, family)
    tensors: dict[str, Tensor] = {}
    ranks, alphas = {}, {}
    for module, parts in found.items():
        made = known.get(module)
        if made is None:
            raise ArtifactError(
                f"{path / WEIGHTS}: {module!r} is adapted, which is no projection of this base's trunk",
                "give an adapter of this base that adapts its attention and feed-forward alone",
            )
        a, b = parts["A"], parts["B"]
        rank, projs = a.shape[0], [p for p, _ in made.parts]
        sizes = sum(p.d_out for p in projs)
        if a.shape != (rank, projs[0].d_in) or b.shape != (sizes, rank) or not 0 < rank <= MAX_RANK:
            raise ArtifactError(
                f"{path / WEIGHTS}: {module!r} has A {list(a.shape)} and B {list(b.shape)}, the base needs "
                f"[rank, {projs[0].d_in}] and [{sizes}, rank]",
                "give an adapter of this base",
            )
        if rank != (wanted := by_name(cfg.ranks, module, cfg.rank)):
            raise ArtifactError(
                f"{path / CONFIG}: {module!r} has rank {rank}, the config says {wanted}",
                "take an intact copy",
            )
        for proj, part in zip(projs, made.there(b), strict=True):
            tensors[f"{proj.site}.a"], tensors[f"{proj.site}.b"] = a.float().clone(), part.float().clone()
            ranks[proj.site], alphas[proj.site] = rank, float(by_name(cfg.alphas, module, cfg.alpha))
        if cfg.dora:
            m = parts["magnitude_vector"]
            if m.numel() != sizes:
                raise ArtifactError(
                    f"{path / WEIGHTS}: {module!r} has {m.numel()} magnitudes, the base needs {sizes}",
                    "give an adapter of this base",
                )
            for proj, part in zip(projs, made.there(m.reshape(-1, 1)), strict=True):
                tensors[f"{proj.site}.magnitude"] = part.flatten().float().clone()
    return LowRank(
        cfg.rank,
        cfg.alpha,
        worded(list(ranks), list(model.sites())),
        tensors,
        exceptions(ranks, cfg.rank),
        exceptions(alphas, cfg.alpha),
        cfg.rslora,
        cfg.dora,
    )


def save_peft(path: Path, low: LowRank, model: BaseModel, family: Family, *, base: str = "") -> None:
    """Write the adapter into an existing folder. base: what the adapter's base is called there.

    Raises ConfigError for tensors that PEFT's LoRA has no place for (rows of tokens, say).
    """
    odd = sorted(k for k in low.tensors if not k.endswith((".a", ".b", ".magnitude")))
    if odd:
        raise ConfigError(f"PEFT's LoRA has no place for {odd[0]!r}", "export the merged base instead")
    sites = {k.removesuffix(".a") for k in low.tensors if k.endswith(".a")}
    out: dict[str, Tensor] = {}
    ranks, alphas = {}, {}
    adapted, others = [], []
    for module, made in modules(model, family):
        here = [p.site for p, _ in made.parts]
        if not sites & set(here):
            others.append(module)
            continue
        adapted.append(module)
        a, b, alpha = _joined(made, low)
        sites -= set(here)
        out[f"base_model.model.{module}.lora_A.weight"] = a.contiguous()
        out[f"base_model.model.{module}.lora_B.weight"] = b.contiguous()
        if low.dora:
            out[f"base_model.model.{module}.lora_magnitude_vector"] = _lengths(made, low).contiguous()
        if a.shape[0] != low.rank:
            ranks[module] = a.shape[0]
        if alpha != low.alpha:
            alphas[module] = alpha
    if sites := {
        s for s in sites if bool(low.tensors[f"{s}.b"].any())
    }:  # what was never learnt changes nothing
        raise ConfigError(
            f"the {family.model_types[0]} layout has no place for a delta at {sorted(sites)[0]!r}",
            "export the merged base instead",
        )
    words = sorted({m.rsplit(".", 1)[-1] for m in adapted})
    # Heads, poolers and towers of other models have matrices of the same last word, which are no projections here.
    plain = decodes(model.cfg) and not any(m.rsplit(".", 1)[-1] in words for m in others)
    tree = {
        "peft_type": "LORA",
        "task_type": task(model.cfg),
        "base_model_name_or_path": base,
        "r": low.rank,
        "lora_alpha": low.alpha,
        "target_modules": words if plain else sorted(adapted),
        "fan_in_fan_out": any(made.turned for m, made in modules(model, family) if m in adapted),
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "use_rslora": low.rslora,
        "use_dora": low.dora,
        "lora_dropout": 0.0,
        "bias": "none",
        "init_lora_weights": True,
        "inference_mode": True,
    }
    (path / CONFIG).write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    save_tensors(path / WEIGHTS, out)


def _modules_of(tensors: Mapping[str, Tensor], where: str, dora: bool) -> dict[str, dict[str, Tensor]]:
    """A, B and for DoRA magnitude_vector of each module."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, x in tensors.items():
        match = _KEY.fullmatch(key)
        half = match and (match[2] or match[3])
        if not match or not x.is_floating_point() or x.ndim != (1 if match[3] else 2):
            raise ArtifactError(
                f"{where}: {key!r} {list(x.shape)} is no matrix of a LoRA on a linear layer",
                "give an adapter that is LoRA alone",
            )
        found.setdefault(match[1], {})[str(half)] = x
    for module, parts in found.items():
        if not {"A", "B"} <= parts.keys():
            raise ArtifactError(f"{where}: {module!r} has only one of A and B", "take an intact copy")
        if dora != ("magnitude_vector" in parts):
            raise ArtifactError(
                f"{where}: {module!r} has {'no' if dora else 'a'} magnitude, the config says use_dora: {dora}",
                "take an intact copy",
            )
    if not found:
        raise ArtifactError(f"{where} holds no tensors", "take an intact copy")
    return found


def _joined(made: Module, low: LowRank) -> tuple[Tensor, Tensor, float]:
    """A, B and alpha of one module: where our projections in it share an A it is kept, else each has its part of a larger rank. What the
    scaling of one differs from the first's goes into its B."""
    have = [p.site for p, _ in made.parts if f"{p.site}.a" in low.tensors]
    tops = [low.tensors[f"{site}.a"] for site in have]
    shared = len(have) == len(made.parts) and all(torch.equal(a, tops[0]) for a in tops)
    rank = tops[0].shape[0] if shared else sum(a.shape[0] for a in tops)
    first = low.scaling_at(have[0])
    bs, at = [], 0
    for proj, _ in made.parts:
        b = tops[0].new_zeros(proj.d_out, rank)
        if proj.site in have:
            part, own = low.tensors[f"{proj.site}.b"], low.scaling_at(proj.site)
            b[:, at : at + part.shape[1]] = part if own == first else part * (own / first)
            at += 0 if shared else part.shape[1]
        bs.append(b)
    same = rank == tops[0].shape[0]
    alpha = low.alpha_at(have[0]) if same else first * (math.sqrt(rank) if low.rslora else rank)
    return (tops[0] if shared else torch.cat(tops)), made.back(bs), alpha


def _lengths(made: Module, low: LowRank) -> Tensor:
    """The magnitudes of one module; a projection in it that has none keeps the lengths of its rows."""
    ms = []
    for proj, _ in made.parts:
        m = low.tensors.get(f"{proj.site}.magnitude")
        ms.append(torch.linalg.vector_norm(proj.matrix_OI(torch.float32), dim=1) if m is None else m)
    return made.back([m.detach()[:, None] for m in ms]).flatten()
