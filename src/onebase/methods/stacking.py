"""Several adapters on one base at a time: what each adds is added up, the last one says what the stack is for, and who holds none comes off."""

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
    """An adapter under a name on a base, for as long as this object lives: who uses the adapter has it (`Attached.lease`, `AdapterRouting.leases`)."""

    def __init__(self, base: LoadedBase, name: str) -> None:
        self._finish = weakref.finalize(self, detach, base, name)
        self._finish.atexit = False
        base.leases[name] = self

    @property
    def alive(self) -> bool:
        return self._finish.alive

    def end(self) -> None:
        """Take the adapter off now."""
        self._finish()


def lease_of(base: LoadedBase, name: str) -> Lease | None:
    """That of an adapter which is on the base; several may hold it."""
    found = base.leases.get(name)
    return found if isinstance(found, Lease) and found.alive else None


def keep_only(base: LoadedBase, names: set[str]) -> None:
    """Take all other adapters off."""
    for name in {n for holder in holders(base.model) for n in holder} - names:
        detach(base, name)


def stacked(base: LoadedBase, parts: Sequence[AdapterParts], name: str) -> Attached:
    """Adapters on a base as one, in the order given; task, head and prompt are the last one's. Raises UserError for what does not stack,
    ArtifactError for an adapter of another base.

    At each projection an adapter sees what the base says, never what another added, so the order of deltas does not matter. A `full` one replaces the
    weights that the others then add to. An adapter comes off the base again when nothing has what this gave, or its `routing`; after an error
    nothing is left on it.
    """
    _check(parts)
    # A name of its own for each set of tensors: several adapters may sit on one base at a time.
    names = [f"{name}-{p.fingerprint[4:16]}" for p in parts]
    # Replaced weights make a copy of the base with what is on it by then: they come last.
    order = sorted(range(len(parts)), key=lambda i: METHODS[parts[i].config.method].replaces)
    found: dict[int, Attached] = {}
    made: list[Lease] = []
    try:
        for i in order:
            held = lease_of(base, names[i])  # perhaps another has it on already: they share it
            found[i] = attach(base, parts[i], names[i])
            if found[i].base is base:
                if held is None:
                    made.append(held := Lease(base, names[i]))
                found[i] = replace(found[i], lease=held)
        under = found[order[-1]].base
        if under is not base:
            keep_only(under, set(names))
    except BaseException:
        _end(made)
        raise
    if under is not base:  # the copy has them
        _end(made)
        found = {i: replace(a, lease=None) for i, a in found.items()}
    groups = [found[i].routing for i in range(len(parts))]
    held_all = tuple(a.lease for a in found.values() if a.lease is not None)
    routing = AdapterRouting(tuple(g for a in groups if a is not None for g in a.groups), held_all)
    every = [replace(found[i], base=under) for i in range(len(parts))]
    return replace(every[-1], routing=routing if routing.groups else None, below=tuple(every[:-1]))


def _end(leases: Sequence[Lease]) -> None:
    for lease in leases:
        lease.end()


def refuse_unmergeable(on: Attached | None) -> None:
    """Raises UserError where an adapter, or a stack, has nothing to go into the weights, or something that cannot."""
    methods = [] if on is None else [METHODS[a.method] for a in on.stack]
    able = " or ".join(name for name, m in METHODS.items() if not isinstance(m.merge, str))
    whys = [(m, m.merge) for m in methods if isinstance(m.merge, str)]
    for method, why in whys:
        if method.acts:
            raise UserError(
                f"an adapter of method {method.name} does not merge: {why}",
                f"use it beside the base (with_adapter, onebase serve), or make a {able} one",
            )
    if len(whys) == len(methods):
        what = f": {whys[-1][1]}" if whys else ""
        raise UserError(f"there is no adapter with weights to merge{what}", f"merge a {able} adapter")


def alone(attached: Attached, what: str) -> None:
    """Raises UserError for a stack, where only one adapter can be meant."""
    if attached.below:
        raise UserError(
            f"{what} takes one adapter, {1 + len(attached.below)} are stacked",
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
