"""Tensors of a foreign checkpoint put in place in a model, by a plan: memory-mapped, in parallel, each read once."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from onebase.base.config import BaseConfig
from onebase.base.model import BaseModel
from onebase.errors import ArtifactError
from onebase.formats.family import Family
from onebase.formats.rules import Ignore, Plan, Rule, Rules, Shape, Tie, complete, plan


class Source(Protocol):
    """Tensors somewhere on disk. Reading is safe from several threads. fresh: what is read is in memory of its own, not of the file."""

    where: str
    fresh: bool

    def shapes(self) -> Mapping[str, Shape]:
        """Every tensor by name, from headers alone."""

    def read(self, name: str) -> Tensor:
        """One tensor, whole; a view of mapped memory where it can be."""

    def parts(self, name: str) -> Iterator[Tensor]:
        """The same tensor in order, some of its first axis at a time: for what is looked at and not kept."""


def own_shapes(model: BaseModel) -> dict[str, Shape]:
    """The model's parameters by name."""
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def place(cfg: BaseConfig, family: Family, source: Source, *, dtype: torch.dtype | None = None) -> BaseModel:
    """A frozen model of `cfg` on the CPU with the checkpoint's weights. Raises ArtifactError, before reading, for what does not fit.

    Weights keep their stored number format (or take `dtype`): a model in bf16 needs two bytes a weight here too.
    """
    theirs = source.shapes()
    rules = spelled(family.rules(cfg), family, theirs)
    complete(rules, theirs, source.where)  # before a model is made, which takes long where a config says so
    with torch.device("meta"):
        model = BaseModel(cfg)
    found = plan(rules, theirs, own_shapes(model), source.where)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        made = dict(
            pair for part in pool.map(lambda r: _moved(r, source, dtype), found.rules) for pair in part
        )
    model.load_state_dict(made, strict=True, assign=True)
    _look(found, source, made)
    return model.requires_grad_(False).eval()


def spelled(rules: Rules, family: Family, theirs: Mapping[str, Shape]) -> Rules:
    """The rules by the names that this checkpoint uses: as its saver spells them, or of a trunk saved alone."""
    found = [(begin, ours) for begin, ours in family.spellings if any(n.startswith(begin) for n in theirs)]
    for begin, ours in found:  # of a model with several parts each may begin in a way of its own
        rules = _renamed(rules, ours, begin)
    return rules if found else shortened(rules, family.prefix, theirs)


def shortened(rules: Rules, prefix: str, theirs: Mapping[str, Shape]) -> Rules:
    """The rules for a checkpoint whose trunk was saved alone, without `prefix` before its names."""
    if not prefix or any(name.startswith(prefix) for name in theirs):
        return rules
    return _renamed(rules, prefix, "")


def _renamed(rules: Rules, before: str, after: str) -> Rules:
    """The rules with `after` where their names began with `before`."""

    def named(name: str) -> str:
        return after + name.removeprefix(before) if name.startswith(before) else name

    out: list[Rule | Tie | Ignore] = []
    for r in rules:
        if isinstance(r, Rule):
            out.append(Rule(tuple(named(n) for n in r.theirs), r.ours, r.steps))
        else:
            out.append(Tie(named(r.theirs), r.ours) if isinstance(r, Tie) else r)
    return out


def passed_over(rules: Rules, listed: Iterable[str], unlisted: Iterable[str], where: str) -> list[str]:
    """Notices of names in which an index and its shards differ, where the model needs none of them: second names of a tensor, and what is left
    out anyway. Raises ArtifactError for another: its weights are lost, or are of no one."""
    notices = []
    ties = {t.theirs for t in rules if isinstance(t, Tie)}
    for what, names in (("is in no shard", listed), ("is not in the index", unlisted)):
        for name in sorted(names):
            if name not in ties and not any(
                isinstance(i, Ignore) and re.fullmatch(i.pattern, name) for i in rules
            ):
                raise ArtifactError(f"{where}: tensor {name!r} {what}", "take an intact copy of the folder")
            notices.append(f"tensor {name!r} {what}; nothing needs it")
    return notices


def _moved(rule: Rule, source: Source, dtype: torch.dtype | None) -> list[tuple[str, Tensor]]:
    xs = rule.there([_weight(source, name) for name in rule.theirs])
    return [(name, _own(x, dtype, source.fresh)) for name, x in zip(rule.ours, xs, strict=True)]


def _own(x: Tensor, dtype: torch.dtype | None, fresh: bool) -> Tensor:
    """`x` alone in its memory: a view would keep the whole file mapped, or the other parts of one tensor."""
    alone = fresh and x.is_contiguous() and x.untyped_storage().nbytes() == x.nbytes
    return x.to(dtype or x.dtype, memory_format=torch.contiguous_format, copy=not alone)


def _weight(source: Source, name: str) -> Tensor:
    """A tensor of floating-point numbers. Those of one byte become bf16, which holds them all: few kernels read them."""
    x = source.read(name)
    if not x.is_floating_point():
        raise ArtifactError(
            f"{source.where}: tensor {name!r} holds {str(x.dtype).removeprefix('torch.')}, which are no weights",
            "give the checkpoint from before it was quantised",
        )
    return x if x.element_size() > 1 else x.to(torch.bfloat16)


def _look(found: Plan, source: Source, made: Mapping[str, Tensor]) -> None:
    for tie in found.ties:
        if not _equal(source.parts(tie.theirs), made[tie.ours]):
            raise ArtifactError(
                f"{source.where}: the config ties {tie.theirs!r} to another tensor, but the two differ",
                "set tie_word_embeddings to false in its config.json if they are meant to differ",
            )
    for name, ignore in found.ignored:
        if ignore.check is not None and not ignore.check(source.read(name)):
            raise ArtifactError(
                f"{source.where}: tensor {name!r} was to be left out ({ignore.why}), but it says something else",
                "this checkpoint is not what its config.json says",
            )


def _equal(parts: Iterable[Tensor], whole: Tensor) -> bool:
    """Do the parts, in order, hold the numbers of `whole` once they are in its number format?"""
    at = 0
    for part in parts:
        here = whole[at : at + len(part)]
        if part.shape != here.shape or not torch.equal(part.to(whole.dtype), here):
            return False
        at += len(part)
    return at == len(whole)


def given_back(model: BaseModel, rules: Rules) -> dict[str, Tensor]:
    """The model's weights under their names: the rules run backwards. Ties are left out, as their savers do."""
    own = {name: p.detach() for name, p in model.named_parameters()}
    out: dict[str, Tensor] = {}
    for rule in rules:
        if isinstance(rule, Rule):
            xs = rule.back([own[name] for name in rule.ours])
            out |= {name: x.contiguous() for name, x in zip(rule.theirs, xs, strict=True)}
    return out
