"""A base in memory with the adapters attached to it: what reads, writes, learns and is judged. `Base` is the public face of it."""

from collections.abc import Sequence
from typing import Self

from onebase.adapt.folder import AdapterParts
from onebase.adapt.stacking import stacked
from onebase.tasks.generation import Writes
from onebase.tasks.understanding import Reads


class Bound(Writes, Reads):
    """A base, perhaps with an adapter (or several, stacked) on it."""

    @property
    def plain(self) -> Self:
        """This base without any adapter."""
        return type(self)(self._loaded)

    def with_parts(self, parts: Sequence[AdapterParts], name: str = "adapter") -> Self:
        """This base with these adapters in the place of those that it has. Raises UserError for adapters that do not stack, ArtifactError for
        an adapter of another base."""
        return type(self)(self._loaded, stacked(self._loaded, parts, name))
