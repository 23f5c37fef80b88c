"""A base in memory with the adapters attached to it, which all inner code takes as argument. `Base` is the public face around it."""

from collections.abc import Sequence
from typing import Self

from onebase.artifact.record import Record
from onebase.base.config import BaseConfig
from onebase.base.folder import LoadedBase
from onebase.methods.folder import AdapterParts, Attached, own_head
from onebase.methods.stacking import stacked
from onebase.modality.text.tokenizer import Tokenizer
from onebase.model.proj import AdapterRouting


class Bound:
    """A base, optionally with an adapter (or a stack of several) on it."""

    @classmethod
    def opened(cls, loaded: LoadedBase) -> Self:
        """A base as it was published, with its own head if it has one."""
        parts = own_head(loaded)
        return cls(loaded) if parts is None else cls(loaded, stacked(loaded, [parts], "own"), own=True)

    def __init__(self, loaded: LoadedBase, attached: Attached | None = None, *, own: bool = False) -> None:
        """own: the attached adapter is the head that the base was published with."""
        self._loaded = loaded
        self._attached = attached
        self.own = own

    def __repr__(self) -> str:
        with_ = f", adapter={self._attached.name!r}" if self._attached else ""
        return f"Base({self.name!r}, {self.fingerprint[:16]}...{with_})"

    @property
    def loaded(self) -> LoadedBase:
        """The parts: module, codec, record. For extensions; most users need only the methods of `Base`."""
        return self._attached.base if self._attached else self._loaded

    @property
    def name(self) -> str:
        """The base's name: stated in its recipe, or its folder."""
        return self._loaded.name or "base"

    @property
    def fingerprint(self) -> str:
        """Content hash of the base's weights and config."""
        return self._loaded.fingerprint

    @property
    def record(self) -> Record:
        """The facts of this base."""
        return self._loaded.record

    @property
    def config(self) -> BaseConfig:
        return self._loaded.model.cfg

    @property
    def tokenizer(self) -> Tokenizer:
        """`encode(text) -> list[int]`, `decode(ids) -> str`."""
        return self._loaded.codec.tokenizer

    @property
    def attached(self) -> Attached | None:
        """The adapter on the base, or None. For extensions."""
        return self._attached

    @property
    def routing(self) -> AdapterRouting | None:
        """The routing of its adapter in a forward. For extensions."""
        return self._attached.routing if self._attached else None

    @property
    def plain(self) -> Self:
        """This base without any adapter."""
        return type(self)(self._loaded)

    def with_parts(self, parts: Sequence[AdapterParts], name: str = "adapter") -> Self:
        """This base with these adapters instead of its present ones. Raises UserError for adapters that do not stack, ArtifactError for an
        adapter of another base."""
        return type(self)(self._loaded, stacked(self._loaded, parts, name))
