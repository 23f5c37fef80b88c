"""The record of an artifact: its hashes, its parents by fingerprint, and dated facts, each with where it comes from."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from onebase.artifact.files import plain, write_atomic
from onebase.errors import ArtifactError

RECORD = "record.json"
SCHEMA = 1


@dataclass(frozen=True)
class Event:
    """One fact: when it was noted (ISO 8601, UTC), which field, its value (JSON data; None = unknown), its origin."""

    time: str
    field: str
    value: Any
    origin: str


@dataclass
class Record:
    """The facts of one artifact. Events are only ever added: a later event of a field supersedes, the earlier stays.

    `hashes` names contents ("fingerprint", "tokenizer", "template", ...); `parents` holds
    {"kind", "fingerprint", "name"} each (further keys, such as what an adapter relied on, may follow).
    """

    kind: str
    hashes: dict[str, str] = field(default_factory=dict)
    parents: list[dict[str, Any]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def add(self, field: str, value: Any, origin: str) -> None:
        """Note a fact now. `origin` says how it is known: "measured", "counted from the config", "stated by the user"."""
        assert field and origin, "a fact needs a field and an origin"
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.events.append(Event(time, field, plain(value), origin))

    def add_parent(self, kind: str, fingerprint: str, name: str = "", **more: Any) -> None:
        """Note what this artifact was made from."""
        self.parents.append({"kind": kind, "fingerprint": fingerprint, "name": name, **plain(more)})

    def event(self, field: str) -> Event | None:
        """The latest event of a field."""
        return next((e for e in reversed(self.events) if e.field == field), None)

    def get(self, field: str, default: Any = None) -> Any:
        """The latest value of a field."""
        found = self.event(field)
        return default if found is None else found.value

    def to_dict(self) -> dict[str, Any]:
        """JSON data, schema first."""
        return {"schema": SCHEMA, **asdict(self)}

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically. Raises ArtifactError on disk trouble."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        # Half a surrogate pair (from an undecodable file name) has no UTF-8; its escape is JSON as well.
        write_atomic(path, text.encode("utf-8", "backslashreplace"))

    @classmethod
    def load(cls, path: str | Path) -> Record:
        """Read `record.json` (or the one in a folder). Raises ArtifactError when absent, damaged or of another schema."""
        path = Path(path)
        path = path / RECORD if path.is_dir() else path
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as e:
            raise ArtifactError(
                f"{path} cannot be read: {e.strerror}", "give the folder of an artifact"
            ) from None
        except (ValueError, RecursionError):
            raise ArtifactError(f"{path} is not valid JSON", "take an intact copy of the folder") from None
        schema = data.get("schema") if isinstance(data, dict) else None
        if schema != SCHEMA:
            raise ArtifactError(
                f"{path} has record schema {schema}, this version reads {SCHEMA}", "update onebase"
            )
        try:
            return cls._from(data)
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise ArtifactError(f"{path} is not a record: {e}", "take an intact copy of the folder") from None

    @classmethod
    def _from(cls, data: Mapping[str, Any]) -> Record:
        hashes, parents, events = data["hashes"], data["parents"], data["events"]
        if not isinstance(data["kind"], str) or not isinstance(hashes, dict):
            raise TypeError("kind is text and hashes is a map")
        if not all(isinstance(k, str) and isinstance(v, str) for k, v in hashes.items()):
            raise ValueError("hashes are text")
        for parent in parents:
            if not all(isinstance(parent[k], str) for k in ("kind", "fingerprint", "name")):
                raise ValueError("a parent has kind, fingerprint and name")
        made = [Event(**e) for e in events]
        if not all(isinstance(t, str) for e in made for t in (e.time, e.field, e.origin)):
            raise ValueError("an event has time, field, value and origin")
        return cls(data["kind"], dict(hashes), list(parents), made)


def machine_facts() -> dict[str, Any]:
    """What this computer is, without what identifies it (no host name, user or address). Unknown values are None."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    accelerators = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        accelerators.append("Apple MPS")
    return {
        "cpu": _cpu(),
        "cores": cores,
        "memory_bytes": _memory(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "accelerators": accelerators,
    }


def version_facts() -> dict[str, str]:
    """Versions of onebase and of the libraries that shape its results; those not installed are left out."""
    names = ("onebase", "torch", "numpy", "tokenizers", "safetensors", "pyarrow", "pydantic", "scikit-learn")
    return {name: found for name in names if (found := _version(name)) is not None}


@functools.cache
def _version(name: str) -> str | None:
    """Read once: a process does not change what it has imported, and each look parses the package's whole metadata."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or None


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
