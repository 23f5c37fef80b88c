"""Loads the tensors of a foreign checkpoint into a model by a plan: memory-mapped, in parallel, each read once."""

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
from onebase.formats.rules import Ignore, Rule, Rules, Shape, TensorPlan, Tie, complete, plan


class WeightSource(Protocol):
    """Tensors on disk. Reading is thread-safe. fresh: tensors are read into newly allocated memory, not mapped from the file."""

    where: str
    fresh: bool

    def shapes(self) -> Mapping[str, Shape]:
        """Every tensor by name, from headers alone."""

    def read(self, name: str) -> Tensor:
        """One whole tensor; a view of mapped memory if possible."""

    def parts(self, name: str) -> Iterator[Tensor]:
        """The same tensor in slices along its first axis, in order: for checks that do not keep it."""


def own_shapes(model: BaseModel) -> dict[str, Shape]:
    """The model's parameters by name."""
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def load_weights(
    cfg: BaseConfig, family: Family, source: WeightSource, *, dtype: torch.dtype | None = None
) -> BaseModel:
    """A frozen model of `cfg` on the CPU with the checkpoint's weights. Raises ArtifactError, before reading, for tensors that do not match.

    Weights keep their stored dtype (or are converted to `dtype`): a bf16 model needs two bytes a weight here too.
    """
    theirs = source.shapes()
    rules = with_prefixes(family.rules(cfg), family, theirs)
    complete(rules, theirs, source.where)  # before the model is built, which takes long for a large config
    with torch.device("meta"):
        model = BaseModel(cfg)
    matched = plan(rules, theirs, own_shapes(model), source.where)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        tensors = dict(
            pair for part in pool.map(lambda r: _moved(r, source, dtype), matched.rules) for pair in part
        )
    model.load_state_dict(tensors, strict=True, assign=True)
    _check(matched, source, tensors)
    return model.requires_grad_(False).eval()


def with_prefixes(rules: Rules, family: Family, theirs: Mapping[str, Shape]) -> Rules:
    """The rules with the names in this checkpoint: with its saver's prefixes, or those of a trunk saved without its head."""
    prefixes = [
        (begin, ours)
        for begin, ours in family.checkpoint_prefixes
        if any(n.startswith(begin) for n in theirs)
    ]
    for begin, ours in prefixes:  # each part of a model may have its own
        rules = _renamed(rules, ours, begin)
    return rules if prefixes else shortened(rules, family.prefix, theirs)


def shortened(rules: Rules, prefix: str, theirs: Mapping[str, Shape]) -> Rules:
    """The rules for a checkpoint of a trunk saved without its head, whose names lack `prefix`."""
    if not prefix or any(name.startswith(prefix) for name in theirs):
        return rules
    return _renamed(rules, prefix, "")


def _renamed(rules: Rules, before: str, after: str) -> Rules:
    """The rules with the prefix `before` of their names replaced by `after`."""

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
    """Notices of names in which an index and its shards differ, if the model does not need them: second names of a tensor, and ignored ones.
    Raises ArtifactError for other names: their weights are missing or belong to nothing."""
    notices = []
    ties = {t.theirs for t in rules if isinstance(t, Tie)}
    for what, names in (("is in no shard", listed), ("is not in the index", unlisted)):
        for name in sorted(names):
            if name not in ties and not any(
                isinstance(i, Ignore) and re.fullmatch(i.pattern, name) for i in rules
            ):
                raise ArtifactError(f"{where}: tensor {name!r} {what}", "take an intact copy of the folder")
            notices.append(f"tensor {name!r} {what}; the model does not need it")
    return notices


def _moved(rule: Rule, source: WeightSource, dtype: torch.dtype | None) -> list[tuple[str, Tensor]]:
    xs = rule.there([_weight(source, name) for name in rule.theirs])
    return [(name, _own(x, dtype, source.fresh)) for name, x in zip(rule.ours, xs, strict=True)]


def _own(x: Tensor, dtype: torch.dtype | None, fresh: bool) -> Tensor:
    """`x` with its own storage: a view would keep the whole file mapped, or the other parts of a tensor."""
    owned = fresh and x.is_contiguous() and x.untyped_storage().nbytes() == x.nbytes
    return x.to(dtype or x.dtype, memory_format=torch.contiguous_format, copy=not owned)


def _weight(source: WeightSource, name: str) -> Tensor:
    """A floating-point tensor. One-byte floats become bf16, which represents them exactly: few kernels support them."""
    x = source.read(name)
    if not x.is_floating_point():
        raise ArtifactError(
            f"{source.where}: tensor {name!r} has dtype {str(x.dtype).removeprefix('torch.')}, weights must be floating-point",
            "give the checkpoint from before it was quantized",
        )
    return x if x.element_size() > 1 else x.to(torch.bfloat16)


def _check(matched: TensorPlan, source: WeightSource, tensors: Mapping[str, Tensor]) -> None:
    for tie in matched.ties:
        if not _equal(source.parts(tie.theirs), tensors[tie.ours]):
            raise ArtifactError(
                f"{source.where}: the config ties {tie.theirs!r} to another tensor, but the two differ",
                "set tie_word_embeddings to false in its config.json if they are meant to differ",
            )
    for name, ignore in matched.ignored:
        if ignore.check is not None and not ignore.check(source.read(name)):
            raise ArtifactError(
                f"{source.where}: tensor {name!r} should be ignored ({ignore.why}), but it has other values",
                "the checkpoint does not match its config.json",
            )


def _equal(parts: Iterable[Tensor], whole: Tensor) -> bool:
    """Are the parts, concatenated and converted to its dtype, equal to `whole`?"""
    at = 0
    for part in parts:
        here = whole[at : at + len(part)]
        if part.shape != here.shape or not torch.equal(part.to(whole.dtype), here):
            return False
        at += len(part)
    return at == len(whole)


def given_back(model: BaseModel, rules: Rules) -> dict[str, Tensor]:
    """The model's weights under foreign names, by the inverse rules. Ties are left out, as other savers do."""
    own = {name: p.detach() for name, p in model.named_parameters()}
    out: dict[str, Tensor] = {}
    for rule in rules:
        if isinstance(rule, Rule):
            xs = rule.back([own[name] for name in rule.ours])
            out |= {name: x.contiguous() for name, x in zip(rule.theirs, xs, strict=True)}
    return out
