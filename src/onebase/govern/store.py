"""The store: a folder of named bases, adapters, datasets and runs, with an SQLite index that can be rebuilt from the folders."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from onebase.artifact.disk import disk_errors
from onebase.artifact.files import MANIFEST, home, read_manifest, sha256_bytes
from onebase.artifact.record import RECORD, Record
from onebase.errors import ArtifactError, UserError

FOLDERS = {"base": "bases", "adapter": "adapters", "dataset": "datasets", "run": "runs", "checkpoint": "runs"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LAYOUT = 2  # incremented when the table changes: an index with another layout is rebuilt
_DISK_CODES = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
}
_DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)
"""Errors from reading a damaged index; SQLite's own message may contain bytes that are not text."""
_TABLE = """CREATE TABLE artifact (name TEXT PRIMARY KEY, kind TEXT NOT NULL, path TEXT NOT NULL,
    fingerprint TEXT NOT NULL, created TEXT NOT NULL, parents TEXT NOT NULL, stamp TEXT NOT NULL)"""


@dataclass(frozen=True)
class StoreEntry:
    """One artifact: its name in the store ("" outside it), kind, folder, fingerprint ("" = unknown), creation time
    (ISO 8601, UTC) and parents ({"kind", "fingerprint", "name"} each)."""

    name: str
    kind: str
    path: Path
    fingerprint: str
    created: str
    parents: tuple[dict[str, Any], ...]


def read_entry(folder: str | Path, name: str = "") -> StoreEntry:
    """The index entry of an artifact, read from its manifest and record. Raises ArtifactError."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    record = Record.load(folder) if (folder / RECORD).is_file() else Record(manifest["kind"])
    fingerprint = manifest["facts"].get("fingerprint") or record.hashes.get("fingerprint") or ""
    written = datetime.fromtimestamp((folder / MANIFEST).stat().st_mtime, UTC).isoformat(timespec="seconds")
    created = record.events[0].time if record.events else written
    return StoreEntry(
        name, manifest["kind"], folder.resolve(), str(fingerprint), created, tuple(record.parents)
    )


class Store:
    """Names for artifacts. `<root>/<kind>s/<name>` is a folder (copied) or a link to one (registered).

    The folders are authoritative and `index.sqlite` is a cache: entries of changed folders are reread when listed, `reindex()`
    rebuilds all, and the file can be deleted.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = Path(root) if root is not None else home() / "store"
        self.index = self.root / "index.sqlite"

    def add(self, path: str | Path, name: str, copy: bool = False) -> StoreEntry:
        """Register the artifact at `path` under `name`, as a link or, with `copy`, as a copy.

        Adding the same folder under the same name again refreshes its entry. Raises UserError for an invalid or used name,
        ArtifactError for a folder that is not an artifact or a store that is not writable.
        """
        if not _NAME.fullmatch(name):
            raise UserError(
                f"'{name}' cannot be a store name",
                "use letters, digits, '.', '_' and '-', starting with a letter or digit",
            )
        entry = read_entry(path, name)
        if entry.kind not in FOLDERS:
            raise ArtifactError(
                f"{path} is of kind '{entry.kind}'", f"kinds in the store: {', '.join(FOLDERS)}"
            )
        place = self.root / FOLDERS[entry.kind] / name
        existing = self._places().get(name)
        if existing is not None and (existing != place or copy or existing.resolve() != entry.path):
            raise UserError(
                f"the store already has '{name}' ({existing.resolve()})",
                "choose another name or remove that one first",
            )
        with disk_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            if existing is None and copy:
                _copy(entry.path, place)
            elif existing is None:
                place.symlink_to(entry.path, target_is_directory=True)
        with self._db() as db:
            self._refresh(db)
        return read_entry(place, name)

    def resolve(self, ref: str | Path) -> Path:
        """The folder of `ref`: an existing path, else a name in the store.

        Raises UserError with similar names, or with the missing folder of a registered name.
        """
        if Path(ref).exists():
            return Path(ref)
        places = self._places()
        place = places.get(str(ref))
        if place is None:
            near = difflib.get_close_matches(str(ref), places, 3, 0.5)
            hint = (
                f"did you mean {' or '.join(near)}?"
                if near
                else f"names in the store: {_some(sorted(places))}"
            )
            raise UserError(f"'{ref}' is neither a path nor a name in the store ({self.root})", hint)
        if not place.exists():
            raise UserError(
                f"'{ref}' is registered at {os.readlink(place)}, which does not exist",
                "remove the name and add it again",
            )
        return place.resolve()

    def list(self, kind: str | None = None) -> tuple[StoreEntry, ...]:
        """All entries, or those of one kind, sorted by name, without names whose artifact is missing or damaged."""
        if not self.root.is_dir():
            return ()
        with self._db() as db:
            self._refresh(db)
            rows = db.execute("SELECT * FROM artifact ORDER BY name").fetchall()
        entries = (
            StoreEntry(n, k, Path(path), f, c, tuple(json.loads(up))) for n, k, path, f, c, up, _ in rows
        )
        return tuple(e for e in entries if kind in (None, e.kind))

    def unreadable(self) -> tuple[str, ...]:
        """A line for each name that `list` omits because its artifact is missing or damaged."""
        if not self.root.is_dir():
            return ()
        with self._db() as db:
            return self._refresh(db)

    def remove(self, name: str) -> None:
        """Remove a name. A linked artifact is not touched; a copy made by the store is deleted."""
        place = self._places().get(name)
        if place is None:
            self.resolve(name)  # raises with similar names
            raise UserError(
                f"'{name}' is a path, not a name in the store", "delete the folder yourself if you mean it"
            )
        with disk_errors(place):
            if place.is_symlink():
                place.unlink()
            else:
                # Renamed first, so that a half-deleted folder has no name in the store.
                gone = place.with_name(f".{name}.gone-{secrets.token_hex(4)}")
                os.rename(place, gone)
                shutil.rmtree(gone)
        with self._db() as db:
            self._refresh(db)

    def reindex(self) -> tuple[str, ...]:
        """Rebuild the index from the folders; returns a line for each name whose folder cannot be read."""
        with self._db() as db:
            db.execute("DELETE FROM artifact")
            return self._refresh(db)

    def _refresh(self, db: sqlite3.Connection) -> tuple[str, ...]:
        """Update the rows from the folders; only changed folders are read."""
        problems = []
        rows = {row[0]: row for row in db.execute("SELECT * FROM artifact").fetchall()}
        places = self._places()
        for name, place in sorted(places.items()):
            try:
                info = (place / MANIFEST).stat()
                stamp = f"{place.resolve()} {info.st_size} {info.st_mtime_ns} {info.st_ino}"
                if name not in rows or rows[name][-1] != _stamped(stamp, rows[name][:-1]):
                    e = read_entry(place, name)
                    row = (name, e.kind, str(e.path), e.fingerprint, e.created, json.dumps(e.parents))
                    put = "INSERT OR REPLACE INTO artifact VALUES (?, ?, ?, ?, ?, ?, ?)"
                    db.execute(put, (*row, _stamped(stamp, row)))
            except (ArtifactError, OSError) as error:
                problems.append(f"{name}: {error.cause if isinstance(error, ArtifactError) else error}")
                db.execute("DELETE FROM artifact WHERE name = ?", (name,))
        for name in rows.keys() - places.keys():
            db.execute("DELETE FROM artifact WHERE name = ?", (name,))
        return tuple(problems)

    def _places(self) -> dict[str, Path]:
        places = {}
        for folder in dict.fromkeys(FOLDERS.values()):
            if (self.root / folder).is_dir():
                places.update({p.name: p for p in (self.root / folder).iterdir() if _NAME.fullmatch(p.name)})
        return places

    @contextlib.contextmanager
    def _db(self) -> Iterator[sqlite3.Connection]:
        """A transaction. A damaged index is deleted, since it can be rebuilt from the folders."""
        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        try:
            db = self._open()
        except _DAMAGE as e:
            if _is_disk_problem(e):
                raise self._unusable(e) from e
            self._delete_index()
            db = self._open()
        try:
            with db:
                yield db
        except _DAMAGE as e:
            if _is_disk_problem(e):
                raise self._unusable(e) from e
            self._delete_index()
            raise ArtifactError(
                f"the store's index {self.index} was damaged ({e}) and has been deleted",
                "run the command again: the index is rebuilt from the folders",
            ) from None
        finally:
            db.close()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.index, timeout=30)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            if (problem := db.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(problem)
            if db.execute("PRAGMA user_version").fetchone()[0] != _LAYOUT:
                with db:
                    db.execute("BEGIN IMMEDIATE")  # one of several processes creates the table
                    if db.execute("PRAGMA user_version").fetchone()[0] != _LAYOUT:
                        db.execute("DROP TABLE IF EXISTS artifact")
                        db.execute(_TABLE)
                        db.execute(f"PRAGMA user_version = {_LAYOUT}")
        except BaseException:
            db.close()
            raise
        return db

    def _delete_index(self) -> None:
        with disk_errors(self.index):
            for path in self.root.glob("index.sqlite*"):
                path.unlink(missing_ok=True)

    def _unusable(self, error: Exception) -> ArtifactError:
        return ArtifactError(
            f"the store's index {self.index} cannot be used: {error}",
            "free some space, or set ONEBASE_HOME to a writable folder",
        )


def _is_disk_problem(error: Exception) -> bool:
    """Whether the index is locked or the disk has the problem; the content of the index is then intact."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    return code in _DISK_CODES


def _stamped(stamp: str, row: tuple[Any, ...]) -> str:
    """The stamp of a folder with a hash of its row, so that a damaged row is read again."""
    return f"{stamp} {sha256_bytes(repr(row).encode('utf-8', 'backslashreplace'))[:16]}"


def _copy(source: Path, place: Path) -> None:
    temp = place.with_name(f".{place.name}.tmp-{secrets.token_hex(4)}")
    try:
        shutil.copytree(source, temp)
        os.rename(temp, place)
    except BaseException:
        shutil.rmtree(temp, ignore_errors=True)
        raise


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (" ..." if len(names) > 8 else "") if names else "none yet"
