"""Stacks adapters on one base: their deltas add up, the last one defines the task, and leases remove adapters that are no longer used."""

import weakref
from collections.abc import Sequence
from dataclasses import replace

from onebase.base.folder import LoadedBase
from onebase.errors import UserError
from onebase.methods.folder import AdapterParts, Attached, attach, detach
from onebase.methods.parts import holders
from onebase.methods.table import METHODS
from onebase.model.proj import AdapterRouting


class Lease:
    """Keeps an adapter on a base while this object lives; users of the adapter hold it (`Attached.lease`, `AdapterRouting.leases`)."""

    def __init__(self, base: LoadedBase, name: str) -> None:
        self._finish = weakref.finalize(self, detach, base, name)
        self._finish.atexit = False
        base.leases[name] = self

    @property
    def alive(self) -> bool:
        return self._finish.alive

    def end(self) -> None:
        """Remove the adapter now."""
        self._finish()


def lease_of(base: LoadedBase, name: str) -> Lease | None:
    """The lease of an adapter on the base, which several users may share; None without one."""
    lease = base.leases.get(name)
    return lease if isinstance(lease, Lease) and lease.alive else None


def keep_only(base: LoadedBase, names: set[str]) -> None:
    """Remove all other adapters."""
    for name in {n for holder in holders(base.model) for n in holder} - names:
        detach(base, name)


def stacked(base: LoadedBase, parts: Sequence[AdapterParts], name: str) -> Attached:
    """Adapters on a base as one, in the given order; task, head and prompt are the last one's. Raises UserError for adapters that do not
    stack, ArtifactError for an adapter of another base.

    At each projection an adapter reads the base's input, never another's output, so the order of deltas does not matter. Method full replaces
    the weights to which the others add. An adapter is removed from the base when neither the result nor its `routing` is used any more;
    after an error nothing is left on the base.
    """
    _check(parts)
    # A name of its own for each set of tensors: a base may have several adapters at a time.
    names = [f"{name}-{p.fingerprint[4:16]}" for p in parts]
    # Replaced weights copy the base with the adapters that it has by then, so they come last.
    order = sorted(range(len(parts)), key=lambda i: METHODS[parts[i].config.method].replaces)
    found: dict[int, Attached] = {}
    new: list[Lease] = []
    try:
        for i in order:
            lease = lease_of(base, names[i])  # shared, if another user has attached the adapter already
            found[i] = attach(base, parts[i], names[i])
            if found[i].base is base:
                if lease is None:
                    new.append(lease := Lease(base, names[i]))
                found[i] = replace(found[i], lease=lease)
        under = found[order[-1]].base
        if under is not base:
            keep_only(under, set(names))
    except BaseException:
        _end(new)
        raise
    if under is not base:  # the copy has the adapters
        _end(new)
        found = {i: replace(a, lease=None) for i, a in found.items()}
    groups = [found[i].routing for i in range(len(parts))]
    leases = tuple(a.lease for a in found.values() if a.lease is not None)
    routing = AdapterRouting(tuple(g for a in groups if a is not None for g in a.groups), leases)
    every = [replace(found[i], base=under) for i in range(len(parts))]
    return replace(every[-1], routing=routing if routing.groups else None, below=tuple(every[:-1]))


def _end(leases: Sequence[Lease]) -> None:
    for lease in leases:
        lease.end()


def refuse_unmergeable(on: Attached | None) -> None:
    """Raises UserError where an adapter, or a stack, has no weights to merge, or weights that cannot be merged."""
    methods = [] if on is None else [METHODS[a.method] for a in on.stack]
    able = " or ".join(name for name, m in METHODS.items() if not isinstance(m.merge, str))
    whys = [(m, m.merge) for m in methods if isinstance(m.merge, str)]
    for method, why in whys:
        if method.acts:
            raise UserError(
                f"an adapter of method {method.name} cannot be merged: {why}",
                f"use it with the base (with_adapter, onebase serve), or train one by {able}",
            )
    if len(whys) == len(methods):
        what = f": {whys[-1][1]}" if whys else ""
        raise UserError(f"no adapter has weights to merge{what}", f"merge a {able} adapter")


def alone(attached: Attached, what: str) -> None:
    """Raises UserError for a stack, where one adapter is required."""
    if attached.below:
        raise UserError(
            f"{what} needs one adapter, {1 + len(attached.below)} are stacked",
            "give one of them, or merge them",
        )


def _check(parts: Sequence[AdapterParts]) -> None:
    if not parts:
        raise UserError("no adapter was given", "give one, or several to stack them")
    prints = [p.fingerprint for p in parts]
    if len(set(prints)) < len(prints):
        raise UserError(
            "an adapter is in the stack twice", "give each once (onebase combine gives it a weight)"
        )
    stack = [METHODS[p.config.method] for p in parts]
    for place, (method, part) in enumerate(zip(stack, parts, strict=True)):
        if method.alone is not None and stack.count(method) > 1:
            raise UserError(
                f"two adapters of method {method.name} cannot both {method.alone}",
                "stack one of them at most",
            )
        method.stacks(stack, place, bool(part.tensors))
