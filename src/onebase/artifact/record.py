"""The record of an artifact: its hashes, its parents by fingerprint, and dated facts, each with its origin."""

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
    """How a fact is known. Every origin in a record starts with one of these; more words may follow ("counted before step 1")."""

    DEFAULT = "default"  # not set by anyone
    USER = "stated by the user"
    RECIPE = "stated in the recipe"
    SOURCE = "read from the source"  # the file or key follows
    SYSTEM = "read from the system"
    PACKAGES = "read from the packages"
    PARENT = "taken from a parent"
    COUNTED = "counted"
    MEASURED = "measured"
    COMPUTED = "computed"  # from other facts
    HASHED = "hashed"
    CHOSEN = "chosen"  # by a rule or by trials; those follow
    DRAWN = "drawn"  # by a seed
    UNKNOWN = "not known"

    @classmethod
    def of(cls, text: str) -> Origin | None:
        """The origin that a text starts with; None for any other text."""
        origin = next((o for o in cls if text.startswith(o)), None)
        rest = "" if origin is None else text[len(origin) :]
        return None if rest[:1].isalnum() else origin


def by_given(given: Mapping[str, Any], origin: str = Origin.USER) -> Callable[[Path_], str]:
    """The origin of each config value by its path: `origin` for values in the tree `given`, the default for the rest."""

    def of(path: Path_) -> str:
        here: Any = given
        for i, part in enumerate(path):
            if isinstance(here, list) and part.isdigit() and int(part) < len(here):
                here = here[int(part)]
            elif isinstance(here, Mapping) and part in here:
                here = here[part]
            else:
                # A plain name of a config stands for its `kind`; any other value was given as a whole.
                named = isinstance(here, str) and part == "kind"
                whole = not isinstance(here, (Mapping, list, str))
                return origin if i and (named or whole) else Origin.DEFAULT
        return origin

    return of


@dataclass(frozen=True)
class Event:
    """One fact: time of recording (ISO 8601, UTC), field, value (JSON data; None = unknown), origin."""

    time: str
    field: str
    value: Any
    origin: str


@dataclass
class Record:
    """The facts of one artifact. Events are only added: a later event of a field supersedes the earlier one, which stays.

    `hashes` identifies contents ("fingerprint", "tokenizer", "template", ...); each of `parents` has
    {"kind", "fingerprint", "name"} (and further keys, such as the hashes that an adapter depends on).
    """

    kind: str
    hashes: dict[str, str] = field(default_factory=dict)
    parents: list[dict[str, Any]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def add(self, field: str, value: Any, origin: str) -> None:
        """Record a fact now. `origin`: how it is known ("measured", "counted from the config", "stated by the user"). Raises ConfigError
        for an origin that does not start with one of `Origin`."""
        assert field, "a fact needs a field"
        if Origin.of(origin) is None:
            raise ConfigError(
                f"unknown origin {origin!r} of the fact {field!r}",
                f"start it with one of: {', '.join(Origin)}",
            )
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.events.append(Event(time, field, plain(value), origin))

    def add_tree(self, field: str, tree: Any, origin: Callable[[Path_], str]) -> None:
        """Record a config whose values may have different origins: as one fact if all are the same, else by part ("config.options.rank").
        origin: returns the origin of a value by its path. `get` joins the parts."""
        for path, value, from_ in _parts(plain(tree), (), origin):
            self.add(".".join((field, *path)), value, from_)

    def add_parent(self, kind: str, fingerprint: str, name: str = "", **more: Any) -> None:
        """Record an artifact that this one was derived from."""
        self.parents.append({"kind": kind, "fingerprint": fingerprint, "name": name, **plain(more)})

    def inherit(self, parent: Record, name: str) -> None:
        """Copy the facts of a parent that apply to derived artifacts too: the licence."""
        if (licence := parent.get("licence")) is not None:
            self.add("licence", licence, f"{Origin.PARENT}: {name or parent.kind}")

    def event(self, field: str) -> Event | None:
        """The latest event of a field."""
        return next((e for e in reversed(self.events) if e.field == field), None)

    def get(self, field: str, default: Any = None) -> Any:
        """The latest value of a field; for a config recorded by part (`add_tree`), all of it."""
        if (event := self.event(field)) is not None:
            return event.value
        tree = _Parts()
        for e in self.events:
            if e.field.startswith(f"{field}."):
                tree.put(e.field[len(field) + 1 :].split("."), e.value)
        return tree.joined() if tree else default

    def to_dict(self) -> dict[str, Any]:
        """JSON data, schema first."""
        return {"schema": SCHEMA, **asdict(self)}

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically. Raises ArtifactError on disk errors."""
        write_atomic(path, self.as_bytes())

    def as_bytes(self) -> bytes:
        """The bytes of the record's file."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        # A lone surrogate (from an undecodable file name) has no UTF-8; its escape is valid JSON too.
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
            raise ArtifactError(f"{path} is not valid JSON", "use an intact copy of the folder") from None
        schema = data.get("schema") if isinstance(data, dict) else None
        if schema != SCHEMA:
            raise ArtifactError(
                f"{path} has record schema {schema}, this version reads {SCHEMA}", "update onebase"
            )
        try:
            return cls._from(data)
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise ArtifactError(f"{path} is not a record: {e}", "use an intact copy of the folder") from None

    @classmethod
    def _from(cls, data: Mapping[str, Any]) -> Record:
        hashes, parents, events = data["hashes"], data["parents"], data["events"]
        if not isinstance(data["kind"], str) or not isinstance(hashes, dict):
            raise TypeError("kind must be text and hashes a map")
        if not all(isinstance(k, str) and isinstance(v, str) for k, v in hashes.items()):
            raise ValueError("hashes must be text")
        for parent in parents:
            if not all(isinstance(parent[k], str) for k in ("kind", "fingerprint", "name")):
                raise ValueError("a parent needs kind, fingerprint and name")
        parsed = [Event(**e) for e in events]
        if not all(isinstance(t, str) for e in parsed for t in (e.time, e.field, e.origin)):
            raise ValueError("an event needs time, field, value and origin")
        return cls(data["kind"], dict(hashes), list(parents), parsed)


def _parts(value: Any, path: Path_, origin: Callable[[Path_], str]) -> Iterator[tuple[Path_, Any, str]]:
    """A tree in the fewest parts with a single origin each."""
    inner: dict[str, Any] = {}
    if isinstance(value, dict):
        inner = value
    elif isinstance(value, list) and all(isinstance(x, dict) for x in value):
        inner = {str(i): x for i, x in enumerate(value)}
    parts = [part for k, v in inner.items() for part in _parts(v, (*path, k), origin)]
    if len({from_ for _, _, from_ in parts}) <= 1:
        yield path, value, parts[0][2] if parts else origin(path)
    else:
        yield from parts


class _Parts(dict[str, Any]):
    """Joins the parts of `_parts` by their names."""

    def put(self, path: list[str], value: Any) -> None:
        """Add the part at `path`; a later one replaces an earlier one."""
        name, *rest = path
        if not rest:
            self[name] = value
            return
        inner = self.get(name)
        if not isinstance(inner, _Parts):
            self[name] = inner = _Parts(inner if isinstance(inner, dict) else {})
        inner.put(rest, value)

    def joined(self) -> Any:
        """The tree; parts numbered from 0 on become a list."""
        inner = {k: v.joined() if isinstance(v, _Parts) else v for k, v in self.items()}
        return list(inner.values()) if list(inner) == [str(i) for i in range(len(inner))] else inner


def state(record: Record, field: str, value: str | None, log: Callable[[str], object]) -> None:
    """Record the user's value of a field, if any. If the source has another value, both stay in the record, a line is logged, and the user's
    value is used."""
    if value is None:
        return
    before = record.get(field)
    if isinstance(before, str) and before.strip().casefold() != value.strip().casefold():
        log(f"{field}: the source has {before!r}, you gave {value!r}; the record keeps both and uses yours")
    record.add(field, value, Origin.USER)


def machine_facts() -> dict[str, Any]:
    """Facts about this machine that do not identify it (no host name, user or address). Unknown values are None."""
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
    """Versions of onebase and of the libraries that affect its results; those not installed are left out."""
    names = ("onebase", "torch", "numpy", "tokenizers", "safetensors", "pyarrow", "pydantic", "scikit-learn")
    return {name: version for name in names if (version := _version(name)) is not None}


@functools.cache
def _version(name: str) -> str | None:
    """Cached: versions do not change in a process, and each lookup parses the package's whole metadata."""
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
