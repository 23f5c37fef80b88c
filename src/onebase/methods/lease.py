"""Who holds an adapter that is on a base. When nobody does any more, it comes off."""

import weakref

from onebase.base.folder import LoadedBase
from onebase.methods.folder import detach
from onebase.methods.parts import holders


class Lease:
    """An adapter under a name on a base, for as long as this object lives: who uses the adapter has it (`Attached.lease`, `Active.held`)."""

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
