"""Results of adapting: an adapter in memory, and a plan of a run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onebase.artifact.record import Record
from onebase.methods.folder import AdapterParts, load_adapter, save_adapter


@dataclass(frozen=True)
class Plan:
    """An estimate of a run before it starts: `facts` for programs, `text` for people."""

    facts: dict[str, Any]
    text: str


@dataclass
class Adapter:
    """The result of `Base.adapt`: an adapter in memory. `save` writes only the adapter, never the base."""

    parts: AdapterParts = field(repr=False)

    @property
    def method(self) -> str:
        return self.parts.config.method

    @property
    def task(self) -> str:
        return self.parts.config.task

    @property
    def fingerprint(self) -> str:
        """Content hash of the adapter's tensors and config."""
        return self.parts.fingerprint

    @property
    def record(self) -> Record:
        return self.parts.record

    @property
    def bytes(self) -> int:
        """Size of the adapter's tensors."""
        return sum(t.numel() * t.element_size() for t in self.parts.tensors.values())

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the adapter folder."""
        save_adapter(Path(path), self.parts, overwrite=overwrite)
        return Path(path)

    @staticmethod
    def load(path: str | Path) -> "Adapter":
        """Read an adapter folder. Raises ArtifactError."""
        return Adapter(load_adapter(Path(path)))
