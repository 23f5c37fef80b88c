"""The record of an artifact: its hashes, its parents by fingerprint, and dated facts, each with where it comes from."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from onebase.artifact.files import plain, write_atomic
from onebase.errors import ArtifactError, ConfigError

RECORD = "record.json"
SCHEMA = 1
Path_ = tuple[str, ...]


class Origin(StrEnum):
    """How a fact is known. Every origin of a record is one of these, and perhaps more words after it ("counted before step 1")."""

    DEFAULT = "default"  # nobody said anything else
    USER = "stated by the user"
    RECIPE = "stated in the recipe"
    SOURCE = "read from the source"  # which file or key follows
    SYSTEM = "read from the system"
    PACKAGES = "read from the packages"
    PARENT = "taken from a parent"
    COUNTED = "counted"
    MEASURED = "measured"
    COMPUTED = "computed"  # follows from other facts
    HASHED = "hashed"
    CHOSEN = "chosen"  # by a rule or by trials, which follow
    DRAWN = "drawn"  # by a seed
    UNKNOWN = "not known"

    @classmethod
    def of(cls, text: str) -> Origin | None:
        """The origin that a text begins with; None for any other text."""
        found = next((o for o in cls if text.startswith(o)), None)
        rest = "" if found is None else text[len(found) :]
        return None if rest[:1].isalnum() else found


def by_given(given: Mapping[str, Any], origin: str = Origin.USER) -> Callable[[Path_], str]:
    """The origin of each value of a config, by its path: `origin` for what stands in `given`, a tree, the default for the rest."""

    def of(path: Path_) -> str:
        here: Any = given
        for i, part in enumerate(path):
            if isinstance(here, list) and part.isdigit() and int(part) < len(here):
                here = here[int(part)]
            elif isinstance(here, Mapping) and part in here:
                here = here[part]
            else:
                # The name of one of several configs stands for the config; any other value is given whole.
                named = isinstance(here, str) and part == "kind"
                whole = not isinstance(here, (Mapping, list, str))
                return origin if i and (named or whole) else Origin.DEFAULT
        return origin

    return of


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
        """Note a fact now. `origin` says how it is known: "measured", "counted from the config", "stated by the user". Raises ConfigError for one
        that is none of `Origin`."""
        assert field, "a fact needs a field"
        if Origin.of(origin) is None:
            raise ConfigError(
                f"a record knows no origin {origin!r} (of {field!r})",
                f"begin it with one of: {', '.join(Origin)}",
            )
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.events.append(Event(time, field, plain(value), origin))

    def add_tree(self, field: str, tree: Any, origin: Callable[[Path_], str]) -> None:
        """Note a config, whose values may have different origins: as one fact where all have the same, else part by part ("config.options.rank").
        origin: that of a value by its path in the tree. `get` puts the parts together."""
        for path, value, from_ in _parts(plain(tree), (), origin):
            self.add(".".join((field, *path)), value, from_)

    def add_parent(self, kind: str, fingerprint: str, name: str = "", **more: Any) -> None:
        """Note what this artifact was made from."""
        self.parents.append({"kind": kind, "fingerprint": fingerprint, "name": name, **plain(more)})

    def inherit(self, parent: Record, name: str) -> None:
        """Note what a parent's record says that holds of what is made of it too: the licence."""
        if (licence := parent.get("licence")) is not None:
            self.add("licence", licence, f"{Origin.PARENT}: {name or parent.kind}")

    def event(self, field: str) -> Event | None:
        """The latest event of a field."""
        return next((e for e in reversed(self.events) if e.field == field), None)

    def get(self, field: str, default: Any = None) -> Any:
        """The latest value of a field; of a config that was noted part by part (`add_tree`) all of it."""
        if (found := self.event(field)) is not None:
            return found.value
        tree = _Parts()
        for e in self.events:
            if e.field.startswith(f"{field}."):
                tree.put(e.field[len(field) + 1 :].split("."), e.value)
        return tree.joined() if tree else default

    def to_dict(self) -> dict[str, Any]:
        """JSON data, schema first."""
        return {"schema": SCHEMA, **asdict(self)}

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically. Raises ArtifactError on disk trouble."""
        write_atomic(path, self.as_bytes())

    def as_bytes(self) -> bytes:
        """The record as the bytes of its file."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        # Half a surrogate pair (from an undecodable file name) has no UTF-8; its escape is JSON as well.
        return text.encode("utf-8", "backslashreplace")

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


def _parts(value: Any, path: Path_, origin: Callable[[Path_], str]) -> Iterator[tuple[Path_, Any, str]]:
    """A tree in as few parts as have one origin each."""
    inner: dict[str, Any] = {}
    if isinstance(value, dict):
        inner = value
    elif isinstance(value, list) and all(isinstance(x, dict) for x in value):
        inner = {str(i): x for i, x in enumerate(value)}
    found = [part for k, v in inner.items() for part in _parts(v, (*path, k), origin)]
    if len({from_ for _, _, from_ in found}) <= 1:
        yield path, value, found[0][2] if found else origin(path)
    else:
        yield from found


class _Parts(dict[str, Any]):
    """What `_parts` took apart, by the names of the parts."""

    def put(self, path: list[str], value: Any) -> None:
        """Add the part at `path`; a later one takes the place of an earlier."""
        name, *rest = path
        if not rest:
            self[name] = value
            return
        inner = self.get(name)
        if not isinstance(inner, _Parts):
            self[name] = inner = _Parts(inner if isinstance(inner, dict) else {})
        inner.put(rest, value)

    def joined(self) -> Any:
        """The tree; parts that are numbered from 0 on were a list."""
        inner = {k: v.joined() if isinstance(v, _Parts) else v for k, v in self.items()}
        return list(inner.values()) if list(inner) == [str(i) for i in range(len(inner))] else inner


def state(record: Record, field: str, value: str | None, log: Callable[[str], object]) -> None:
    """Note what the user states of a field, if anything. Where the source says otherwise both stay in the record, and it is said; the user's counts."""
    if value is None:
        return
    before = record.get(field)
    if isinstance(before, str) and before.strip().casefold() != value.strip().casefold():
        log(f"{field}: the source says {before!r}, you state {value!r}; the record keeps both, yours counts")
    record.add(field, value, Origin.USER)


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
