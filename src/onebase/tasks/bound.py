"""A base in memory with the adapters attached to it: what reads, writes, learns and is judged. `Base` is the public face of it."""

from collections.abc import Sequence
from typing import Self

from onebase.adapt.folder import AdapterParts, own_head
from onebase.adapt.stacking import stacked
from onebase.base.folder import LoadedBase
from onebase.tasks.generation import Writes
from onebase.tasks.understanding import Reads


class Bound(Writes, Reads):
    """A base, perhaps with an adapter (or several, stacked) on it."""

    @classmethod
    def opened(cls, loaded: LoadedBase) -> Self:
        """A base as it was published: with its own head on it, where it has one."""
        parts = own_head(loaded)
        return cls(loaded) if parts is None else cls(loaded, stacked(loaded, [parts], "own"), own=True)

    @property
    def plain(self) -> Self:
        """This base without any adapter."""
        return type(self)(self._loaded)

    def with_parts(self, parts: Sequence[AdapterParts], name: str = "adapter") -> Self:
        """This base with these adapters in the place of those that it has. Raises UserError for adapters that do not stack, ArtifactError for
        an adapter of another base."""
        return type(self)(self._loaded, stacked(self._loaded, parts, name))
