"""LoRA adapters of PEFT in and out: adapter_config.json and adapter_model.safetensors, by the rules of a family.

Source: peft `tuners/lora/config.py` and `tuners/lora/layer.py`, read for names and meaning. A delta is scaling * B A with A [rank, in] and
B [out, rank] there and here. Where their module holds several of our projections (a fused q, k, v), A serves each of them and B is cut as
the weight's rows are.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onebase.artifact.tensors import load_tensors, save_tensors
from onebase.base.model import BaseModel
from onebase.errors import ArtifactError, ConfigError
from onebase.interop.family import Family
from onebase.interop.folder import read_json
from onebase.interop.reader import Reader
from onebase.interop.rules import Rule, Step, Transpose
from onebase.model.proj import Proj

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
MAX_RANK = 65536
_NAME = re.compile(r"\^?[\w.]+\$?")
_KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
# Said elsewhere (which modules, by the tensors), of training alone, or of no weight without a switch that is refused.
_IDLE = (
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "target_modules",
    "task_type",
)


@dataclass(frozen=True)
class LowRank:
    """What a LoRA is, without the base: `sites` as `LoraConfig` has them, `tensors` by `site.a` [R, in] and `site.b` [out, R]."""

    rank: int
    alpha: float
    sites: tuple[str, ...]
    tensors: dict[str, Tensor]


def is_peft(path: Path) -> bool:
    """Is this a folder that PEFT saved an adapter in?"""
    return path.is_dir() and (path / CONFIG).is_file()


def load_peft(path: Path, model: BaseModel, family: Family) -> LowRank:
    """Read an adapter for `model`, whose tensors `family` names. Different ranks are filled up with zeros to the largest.

    Raises ArtifactError for what is missing or does not fit, ConfigError for what LoRA here cannot express.
    """
    r = Reader(read_json(path / CONFIG), str(path / CONFIG))
    scaling = _scalings(r)
    if not (path / WEIGHTS).is_file() and (path / PICKLE).is_file():
        raise ArtifactError(
            f"{path} has its weights as a pickle ({PICKLE}), which can run any code when opened",
            "ask for safetensors, or convert in a place where nothing can be harmed",
        )
    found = _pairs(load_tensors(path / WEIGHTS), str(path / WEIGHTS))
    modules = {m.removeprefix(family.prefix): made for m, made in _modules(model, family)}
    ours: dict[str, tuple[Tensor, Tensor, float]] = {}
    for module, (a, b) in found.items():
        made = modules.get(module.removeprefix(family.prefix))
        if made is None:
            raise ArtifactError(
                f"{path / WEIGHTS}: {module!r} is adapted, which is no projection of this base's trunk",
                "give an adapter of this base that adapts its attention and feed-forward alone",
            )
        rank, projs = a.shape[0], [p for p, _ in made.parts]
        sizes = sum(p.d_out for p in projs)
        if a.shape != (rank, projs[0].d_in) or b.shape != (sizes, rank) or not 0 < rank <= MAX_RANK:
            raise ArtifactError(
                f"{path / WEIGHTS}: {module!r} has A {list(a.shape)} and B {list(b.shape)}, the base needs "
                f"[rank, {projs[0].d_in}] and [{sizes}, rank]",
                "give an adapter of this base",
            )
        factor = scaling(module, rank, f"{path / CONFIG}")
        for proj, part in zip(projs, made.there(b), strict=True):
            ours[proj.site] = a, part, factor
    return _evened(ours, model)


def save_peft(
    path: Path, low: LowRank, model: BaseModel, family: Family, *, base: str = "", causal: bool = True
) -> None:
    """Write the adapter into an existing folder. base: what the adapter's base is called there.

    Raises ConfigError for tensors that PEFT's LoRA has no place for (rows of tokens, say).
    """
    odd = sorted(k for k in low.tensors if not k.endswith((".a", ".b")))
    if odd:
        raise ConfigError(f"PEFT's LoRA has no place for {odd[0]!r}", "export the merged base instead")
    sites = {k[:-2] for k in low.tensors}
    out: dict[str, Tensor] = {}
    ranks, alphas = {}, {}
    adapted, others = [], []
    for module, made in _modules(model, family):
        here = [p.site for p, _ in made.parts]
        if not sites & set(here):
            others.append(module)
            continue
        adapted.append(module)
        a, b = _joined(made, low)
        sites -= set(here)
        out[f"base_model.model.{module}.lora_A.weight"] = a.contiguous()
        out[f"base_model.model.{module}.lora_B.weight"] = b.contiguous()
        if a.shape[0] != low.rank:  # the scaling, alpha / rank, stays
            ranks[module] = a.shape[0]
            alphas[module] = low.alpha * a.shape[0] / low.rank
    if sites:
        raise ConfigError(
            f"the {family.model_types[0]} layout has no place for a delta at {sorted(sites)[0]!r}",
            "export the merged base instead",
        )
    words = sorted({m.rsplit(".", 1)[-1] for m in adapted})
    plain = not any(m.rsplit(".", 1)[-1] in words for m in others)
    tree = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if causal else "FEATURE_EXTRACTION",
        "base_model_name_or_path": base,
        "r": low.rank,
        "lora_alpha": low.alpha,
        "target_modules": words if plain else sorted(adapted),
        "fan_in_fan_out": any(made.turned for m, made in _modules(model, family) if m in adapted),
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "lora_dropout": 0.0,
        "bias": "none",
        "init_lora_weights": True,
        "inference_mode": True,
    }
    (path / CONFIG).write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    save_tensors(path / WEIGHTS, out)


@dataclass(frozen=True)
class _Module:
    """One module of theirs: our projections in it, in order, and how a weight's rows are rearranged."""

    parts: tuple[tuple[Proj, str], ...]
    steps: tuple[Step, ...]
    turned: bool

    def there(self, b: Tensor) -> list[Tensor]:
        xs = [b]
        for step in self.steps:
            xs = step.there(xs)
        return xs

    def back(self, bs: list[Tensor]) -> Tensor:
        for step in reversed(self.steps):
            bs = step.back(bs)
        (b,) = bs
        return b


def _modules(model: BaseModel, family: Family) -> Iterator[tuple[str, _Module]]:
    """Their modules that hold projections of a trunk, by name."""
    projs = {f"{name}.weight": m for name, m in model.named_modules() if isinstance(m, Proj)}
    for rule in family.rules(model.cfg):
        if isinstance(rule, Rule) and len(rule.theirs) == 1 and all(n in projs for n in rule.ours):
            # B's rows are the weight's rows however the weight itself lies in their file.
            steps = tuple(s for s in rule.steps if not isinstance(s, Transpose))
            parts = tuple((projs[n], n) for n in rule.ours)
            yield rule.theirs[0].removesuffix(".weight"), _Module(parts, steps, len(steps) < len(rule.steps))


def _pairs(tensors: Mapping[str, Tensor], where: str) -> dict[str, tuple[Tensor, Tensor]]:
    halves: dict[str, dict[str, Tensor]] = {}
    for key, x in tensors.items():
        match = _KEY.fullmatch(key)
        if match is None or x.ndim != 2 or not x.is_floating_point():
            raise ArtifactError(
                f"{where}: {key!r} {list(x.shape)} is no matrix of a LoRA on a linear layer",
                "give an adapter that is LoRA alone",
            )
        halves.setdefault(match[1], {})[match[2]] = x
    for module, pair in halves.items():
        if pair.keys() != {"A", "B"}:
            raise ArtifactError(f"{where}: {module!r} has only one of A and B", "take an intact copy")
    if not halves:
        raise ArtifactError(f"{where} holds no tensors", "take an intact copy")
    return {m: (pair["A"], pair["B"]) for m, pair in halves.items()}


def _scalings(r: Reader) -> Any:
    """What multiplies B A at a module, by the config; refuses all that is more than LoRA."""
    r.must("peft_type", "LORA", None, "it is another method")
    r.must("bias", "none", "none", "biases are learnt too")
    if r.data.get("init_lora_weights", True) not in (True, False, "gaussian", "eva", "orthogonal"):
        raise r.refuse(
            "init_lora_weights", "true, false, gaussian, eva, orthogonal: others change the base's weights"
        )
    rank, alpha, rs = r.size("r", most=MAX_RANK), r.get("lora_alpha", float), r.get("use_rslora", bool, False)
    ranks, alphas = _named(r, "rank_pattern"), _named(r, "alpha_pattern")
    for key in (*_IDLE, "init_lora_weights"):
        r.has(key)
    odd = next((k for k in r.unread if r.data[k] not in (None, False, [], {}, "")), None)
    if odd is not None:
        raise ConfigError(
            f"{r.where}: '{odd}' is {r.data[odd]!r}: nothing here reads it",
            "give an adapter that is LoRA alone",
        )

    def scaling(module: str, found: int, where: str) -> float:
        wanted = _by_name(ranks, module, rank)
        if found != wanted:
            raise ArtifactError(
                f"{where}: {module!r} has rank {found}, the config says {wanted}", "take an intact copy"
            )
        top = _by_name(alphas, module, alpha)
        return float(top) / (math.sqrt(found) if rs else found)

    return scaling


def _named(r: Reader, key: str) -> dict[str, float]:
    """`rank_pattern` or `alpha_pattern`: ends of names. PEFT takes regular expressions too, which may be made to run for ever."""
    table = {}
    for name, value in r.get(key, dict, {}).items():
        plain = name.replace("\\.", ".")
        if not _NAME.fullmatch(plain):
            raise ConfigError(
                f"{r.where}: '{key}' has the pattern {name!r}", "names of modules are accepted, or their ends"
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
            raise ConfigError(f"{r.where}: '{key}' has {value!r} at {name!r}", "it is a number above 0")
        table[plain.removesuffix("$")] = value
    return table


def _by_name(table: Mapping[str, float], module: str, default: float) -> float:
    """The first entry that `module` ends with, or, where the entry begins with ^, is."""
    for name, value in table.items():
        if module == name.removeprefix("^") or module.endswith("." + name):
            return value
    return default


def _evened(ours: Mapping[str, tuple[Tensor, Tensor, float]], model: BaseModel) -> LowRank:
    """One rank and one scaling for all: filled up with zeros, and what a site's scaling differs put into its B."""
    rank = max(a.shape[0] for a, _, _ in ours.values())
    scaling = next(f for a, _, f in ours.values() if a.shape[0] == rank)
    tensors: dict[str, Tensor] = {}
    for site, (a, b, factor) in ours.items():
        more = rank - a.shape[0]
        a, b = a.float(), b.float()
        tensors[f"{site}.a"] = torch.nn.functional.pad(a, (0, 0, 0, more)) if more else a.clone()
        b = b if factor == scaling else b * (factor / scaling)
        tensors[f"{site}.b"] = torch.nn.functional.pad(b, (0, more)) if more else b.clone()
    return LowRank(rank, scaling * rank, _words(list(ours), list(model.sites())), tensors)


def _words(chosen: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The shortest way to name the chosen sites: none for all, last words where they mean no others, else whole names."""
    if set(chosen) == set(known):
        return ()
    words = sorted({s.rsplit(".", 1)[-1] for s in chosen})
    meant = {s for s in known if s.rsplit(".", 1)[-1] in words}
    return tuple(words) if meant == set(chosen) else tuple(sorted(chosen))


def _joined(made: _Module, low: LowRank) -> tuple[Tensor, Tensor]:
    """A and B of one module: where our projections in it share an A it is kept, else each has its part of a larger rank."""
    have = [(p, p.site) for p, _ in made.parts if f"{p.site}.a" in low.tensors]
    tops = [low.tensors[f"{site}.a"] for _, site in have]
    shared = len(have) == len(made.parts) and all(torch.equal(a, tops[0]) for a in tops)
    rank = low.rank if shared else low.rank * len(have)
    bs, at = [], 0
    for proj, _ in made.parts:
        b = tops[0].new_zeros(proj.d_out, rank)
        if f"{proj.site}.b" in low.tensors:
            b[:, at : at + low.rank] = low.tensors[f"{proj.site}.b"]
            at += 0 if shared else low.rank
        bs.append(b)
    return (tops[0] if shared else torch.cat(tops)), made.back(bs)
