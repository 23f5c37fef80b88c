"""Rules that convert a foreign checkpoint's tensors to ours and back. Each rule has an inverse.

A rule maps some of their tensors to some of ours by steps. A step works on a list of tensors and can be inverted. Steps only
rearrange values, so import after export is bitwise equal. Every foreign key belongs to exactly one rule, and exactly one rule produces
each tensor of ours: `plan` checks it by names and shapes before any data is read.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from onebase.errors import ArtifactError


class Step(Protocol):
    """A reversible rearrangement of tensors."""

    def there(self, xs: list[Tensor]) -> list[Tensor]:
        """Theirs to ours."""

    def back(self, xs: list[Tensor]) -> list[Tensor]:
        """Ours to theirs."""


@dataclass(frozen=True)
class Split:
    """One tensor of theirs is several of ours, of lengths `sizes`, concatenated along `dim`."""

    sizes: tuple[int, ...]
    dim: int = 0

    def there(self, xs: list[Tensor]) -> list[Tensor]:
        (x,) = xs
        return list(torch.split(x, list(self.sizes), self.dim))

    def back(self, xs: list[Tensor]) -> list[Tensor]:
        return [torch.cat(xs, self.dim)]


@dataclass(frozen=True)
class Transpose:
    """Their matrices are transposed (GPT-2); vectors stay."""

    def there(self, xs: list[Tensor]) -> list[Tensor]:
        return [x.T if x.ndim == 2 else x for x in xs]

    back = there


@dataclass(frozen=True)
class Rotary:
    """Their rotary embedding pairs adjacent features of a head, ours pairs its halves: rows [heads * H, ...] are reordered."""

    heads: int

    def there(self, xs: list[Tensor]) -> list[Tensor]:
        return [x.view(self.heads, -1, 2, *x.shape[1:]).transpose(1, 2).reshape(x.shape) for x in xs]

    def back(self, xs: list[Tensor]) -> list[Tensor]:
        return [x.view(self.heads, 2, -1, *x.shape[1:]).transpose(1, 2).reshape(x.shape) for x in xs]


@dataclass(frozen=True)
class Reshape:
    """The same values in another shape (a patch convolution is a matrix)."""

    theirs: tuple[int, ...]
    ours: tuple[int, ...]

    def there(self, xs: list[Tensor]) -> list[Tensor]:
        return [x.reshape(self.ours) for x in xs]

    def back(self, xs: list[Tensor]) -> list[Tensor]:
        return [x.reshape(self.theirs) for x in xs]


@dataclass(frozen=True)
class Lead:
    """Their tensors have `dims` leading dimensions of size 1."""

    dims: int = 1

    def there(self, xs: list[Tensor]) -> list[Tensor]:
        return [x.reshape(x.shape[self.dims :]) for x in xs]

    def back(self, xs: list[Tensor]) -> list[Tensor]:
        return [x[(None,) * self.dims] for x in xs]


@dataclass(frozen=True)
class Rule:
    """Converts `theirs` to `ours` by `steps`, in order; without steps a tensor is only renamed."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    steps: tuple[Step, ...] = ()

    def there(self, xs: list[Tensor]) -> list[Tensor]:
        """Their tensors, in the order of `theirs`, as ours."""
        for step in self.steps:
            xs = step.there(xs)
        return xs

    def back(self, xs: list[Tensor]) -> list[Tensor]:
        """Our tensors as theirs."""
        for step in reversed(self.steps):
            xs = step.back(xs)
        return xs


def rename(theirs: str, ours: str, *steps: Step) -> Rule:
    """One tensor of theirs is one of ours."""
    return Rule((theirs,), (ours,), steps)


def split(theirs: str, ours: Sequence[str], sizes: Sequence[int], dim: int = 0, *before: Step) -> Rule:
    """One tensor of theirs is several of ours."""
    return Rule((theirs,), tuple(ours), (*before, Split(tuple(sizes), dim)))


@dataclass(frozen=True)
class Tie:
    """A second name of a tensor of ours. It may be missing; if it is there it must be equal. Export leaves it out."""

    theirs: str
    ours: str


@dataclass(frozen=True)
class Ignore:
    """Keys that add nothing to the config (a regular expression on the whole key), for the reason `why`.

    check: must be true for the tensor before it is dropped.
    """

    pattern: str
    why: str
    check: Callable[[Tensor], bool] | None = field(default=None, compare=False)


Rules = Sequence[Rule | Tie | Ignore]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorPlan:
    """Rules matched to a checkpoint: tensors to load, to compare, and to check and ignore."""

    rules: tuple[Rule, ...]
    ties: tuple[Tie, ...]
    ignored: tuple[tuple[str, Ignore], ...]


def plan(rules: Rules, theirs: Mapping[str, Shape], ours: Mapping[str, Shape], where: str) -> TensorPlan:
    """Match rules with the keys of a checkpoint and the parameters of a model, by name and shape alone.

    Raises ArtifactError with a key that no rule uses, a key that is missing, or a shape that does not match.
    """
    moves = complete(rules, theirs, where)
    produced = _once((name for r in moves for name in r.ours), "produce")
    assert produced == ours.keys(), (
        f"rules and model differ: {sorted(produced ^ ours.keys())[:5]}"
    )  # our bug, not the file's
    used = {name for r in moves for name in r.theirs}
    ties = [t for t in rules if isinstance(t, Tie) and t.theirs in theirs]
    left = theirs.keys() - used - {t.theirs for t in ties}
    ignored = []
    for name in sorted(left):
        rule = next((i for i in rules if isinstance(i, Ignore) and re.fullmatch(i.pattern, name)), None)
        if rule is None:
            raise ArtifactError(
                f"{where}: no rule reads tensor {name!r} {list(theirs[name])}"
                + _nearest(name, used - theirs.keys()),
                "the family does not support this part of the checkpoint: it would be lost",
            )
        ignored.append((name, rule))
    for r in moves:
        for name, wanted in zip(r.theirs, their_shapes(r, ours), strict=True):
            if theirs[name] != wanted:
                raise ArtifactError(
                    f"{where}: tensor {name!r} has shape {list(theirs[name])}, its config says {list(wanted)}",
                    "the checkpoint and its config do not belong together",
                )
    return TensorPlan(tuple(moves), tuple(ties), tuple(ignored))


def complete(rules: Rules, theirs: Mapping[str, Shape], where: str) -> list[Rule]:
    """The rules that load tensors, with the names in this checkpoint. Raises ArtifactError with a name that is missing."""
    # Of two tied tensors some savers keep the one that we leave out.
    twins = {t.ours: t.theirs for t in rules if isinstance(t, Tie) and t.theirs in theirs}
    moves = [
        Rule((twins[r.ours[0]],), r.ours)
        if len(r.theirs) == 1 and not r.steps and r.theirs[0] not in theirs and r.ours[0] in twins
        else r
        for r in rules
        if isinstance(r, Rule)
    ]
    used = _once((name for r in moves for name in r.theirs), "read")
    for name in sorted(used - theirs.keys()):
        raise ArtifactError(
            f"{where}: tensor {name!r} is missing, which its config requires"
            + _nearest(name, theirs.keys() - used),
            "the checkpoint is incomplete, or its config belongs to another model",
        )
    return moves


def their_shapes(rule: Rule, ours: Mapping[str, Shape]) -> list[Shape]:
    """The shapes of `rule.theirs` that give ours: the inverse rule on tensors without data."""
    xs = rule.back([torch.empty(ours[name], device="meta") for name in rule.ours])
    return [tuple(x.shape) for x in xs]


def _once(names: Iterable[str], what: str) -> set[str]:
    seen: set[str] = set()
    for name in names:
        assert name not in seen, f"two rules {what} {name}"
        seen.add(name)
    return seen


def _nearest(name: str, others: Iterable[str]) -> str:
    import difflib
    from itertools import islice

    # Only a few short names: a file can have so many that comparing them all would take too long.
    short = sorted(islice((x for x in others if len(x) <= 200), 1000))
    near = difflib.get_close_matches(name, short, 1, 0.8)
    return f" (the nearest is {near[0]!r})" if near else ""
