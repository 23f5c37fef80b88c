"""The manifest of an artifact folder (names, sizes and hashes of its files), and verification against it."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Self

from onebase.artifact.disk import cache_dir, recover, sha256_bytes, sha256_file
from onebase.errors import ArtifactError

MANIFEST = "manifest.json"
SCHEMA = 1
BEFORE = "before"
"""Key in a file's entry while the file is being replaced (`artifact.appending`): the old entry, valid until the new file exists."""
GIVE = {
    ("base", "adapter"): "give the base that it was trained on, and --adapter {folder}",
    ("base", ""): "give a base: its folder, a .gguf file, a name in the store (onebase list) or hf:org/name",
    ("adapter", "base"): "a base is the first argument; here give a folder written by onebase adapt",
    ("adapter", ""): "give a folder written by onebase adapt",
}
"""The remedy for a folder of the wrong kind, by the expected kind and its own ("": any other)."""


def read_manifest(folder: str | Path, kind: str | None = None) -> dict[str, Any]:
    """The manifest of an artifact, verified by its own hash; files are not read.

    Raises ArtifactError when there is none, it is damaged, of an unknown schema, or of another kind than `kind`.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not folder.exists():
        with contextlib.suppress(OSError):
            recover(folder)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        why = f"{folder} has no {MANIFEST}" if folder.is_dir() else f"there is no folder {folder}"
        near = _inside(folder)
        raise ArtifactError(
            f"{why}: not an artifact, or an incomplete one",
            f"it contains artifacts: give {' or '.join(near)}"
            if near
            else GIVE.get((kind or "", ""), "check the path"),
        ) from None
    except NotADirectoryError:
        raise ArtifactError(
            f"{folder} is a file, {'an artifact' if kind is None else _a(kind)} is a folder",
            GIVE.get((kind or "", ""), "give a folder that onebase wrote"),
        ) from None
    except OSError as e:
        raise ArtifactError(
            f"{path} cannot be read: {e.strerror}", "check the path and its permissions"
        ) from None
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError):
        raise _damaged(path, "was changed (not valid JSON)") from None
    if isinstance(manifest, dict) and manifest.get("schema") not in (SCHEMA, None):
        raise ArtifactError(
            f"{path} has schema {manifest['schema']}, this version reads {SCHEMA}", "update onebase"
        )
    if not isinstance(manifest, dict) or manifest_bytes(manifest) != raw or not _well_formed(manifest):
        raise _damaged(path, "was changed (its own hash does not match)")
    if kind is not None and manifest["kind"] != kind:
        found = manifest["kind"]
        raise ArtifactError(
            f"{folder} is of kind {found!r}, not {_a(kind)}",
            (GIVE.get((kind, found)) or GIVE.get((kind, ""), f"give the folder of a {kind}")).format(
                folder=folder
            ),
        )
    return manifest


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _inside(folder: Path) -> list[str]:
    """The first artifacts and runs in a folder that is no artifact itself."""
    with contextlib.suppress(OSError):
        runs = ("", "base")
        return [str(p) for p in sorted(folder.iterdir()) if any((p / r / MANIFEST).is_file() for r in runs)][
            :3
        ]
    return []


def verify(folder: str | Path) -> None:
    """Hash every file of an artifact. Raises ArtifactError naming the file that is changed, truncated, missing or extra."""
    _check(Path(folder), lambda path, *_: sha256_file(path))


def check_fast(folder: str | Path) -> None:
    """Like `verify`, but a file whose path, size and times match an earlier check is not read again."""
    with _HashCache() as cache:
        _check(Path(folder), cache.sha256)


@contextlib.contextmanager
def cached_hashes() -> Iterator[Callable[[Path, os.stat_result], str]]:
    """A function that hashes files by (path, its `stat` result): a file whose path, size and times match an earlier call is not read again."""
    with _HashCache() as cache:
        yield cache.sha256


def _check(folder: Path, hasher: Callable[[Path, os.stat_result, str], str]) -> None:
    manifest = read_manifest(folder)
    try:
        _compare(folder, manifest, hasher)
    except ArtifactError:
        # Facts may have been added to the record after the manifest was read: then the manifest has changed too.
        if (current := read_manifest(folder)) == manifest:
            raise
        _compare(folder, current, hasher)


def _compare(
    folder: Path, manifest: dict[str, Any], hasher: Callable[[Path, os.stat_result, str], str]
) -> None:
    paths = dict(walk(folder))
    paths.pop(MANIFEST)
    for name in sorted(manifest["files"].keys() - paths.keys()):
        raise _damaged(folder / name, "is missing")
    for name in sorted(paths.keys() - manifest["files"].keys()):
        raise ArtifactError(
            f"{folder / name} is extra: the manifest does not list it", "move it out of the folder"
        )
    for name, now in manifest["files"].items():
        path = paths[name]
        try:
            info = path.stat()
            entry = now
            if BEFORE in now and info.st_size == now[BEFORE]["bytes"]:
                old = now[BEFORE]["sha256"]
                entry = now[BEFORE] if hasher(path, info, old) == old else now
            if info.st_size < entry["bytes"]:
                raise _damaged(path, f"is truncated: {info.st_size} of {entry['bytes']} bytes")
            if info.st_size > entry["bytes"] or hasher(path, info, entry["sha256"]) != entry["sha256"]:
                raise _damaged(path, "was changed after it was written")
        except OSError as e:
            raise ArtifactError(
                f"{path} cannot be read: {e.strerror}", "check the disk and permissions"
            ) from None


def _damaged(path: Path, what: str) -> ArtifactError:
    return ArtifactError(f"{path} {what}", "use an intact copy of the folder, or create it again")


def good_name(name: Any) -> bool:
    """Whether `name` is valid in a manifest."""
    # Canonical relative POSIX names only: 'a//b', './a', '/a', '../a' and 'a\\b' are all refused.
    return (
        isinstance(name, str)
        and name not in ("", ".", MANIFEST)
        and (
            str(PurePosixPath(name)) == name
            and not name.startswith("/")
            and ".." not in name.split("/")
            and "\\" not in name
            and "\0" not in name
            and ":" not in name.split("/")[0]
        )
    )


def _well_formed(manifest: dict[str, Any]) -> bool:
    files = manifest.get("files")
    return (
        isinstance(manifest.get("kind"), str)
        and isinstance(manifest.get("facts"), dict)
        and isinstance(files, dict)
        and all(
            good_name(name) and _entry(e) and (BEFORE not in e or _entry(e[BEFORE]))
            for name, e in files.items()
        )
    )


def _entry(value: Any) -> bool:
    return (
        isinstance(value, dict) and isinstance(value.get("sha256"), str) and type(value.get("bytes")) is int
    )


def manifest_bytes(manifest: dict[str, Any]) -> bytes:
    """The canonical bytes of a manifest, with the hash of its content; readers compare all bytes."""
    body = {k: v for k, v in manifest.items() if k != "self"}
    body["self"] = sha256_bytes(json.dumps(body, sort_keys=True).encode())
    return (json.dumps(body, sort_keys=True, indent=1) + "\n").encode()


def walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name, path) of every file, sorted. Refuses links and special files, whose content a hash cannot guarantee."""
    for root, folders, files in os.walk(folder):
        folders.sort()
        for entry in sorted(folders + files):
            path = Path(root, entry)
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                continue
            if not stat.S_ISREG(mode):
                what = "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file"
                raise ArtifactError(
                    f"{path} is {what}; an artifact has regular files only", "replace it by a copy"
                )
            yield path.relative_to(folder).as_posix(), path


class _HashCache:
    """Hashes by (path, size, times) in SQLite; when it cannot be opened or written, files are read instead."""

    def __init__(self) -> None:
        self.db: sqlite3.Connection | None = None
        try:
            cache_dir().mkdir(parents=True, exist_ok=True)
            self.db = sqlite3.connect(cache_dir() / "hashes.sqlite", timeout=5)
            self.db.execute("CREATE TABLE IF NOT EXISTS hash (path TEXT PRIMARY KEY, key TEXT, sha256 TEXT)")
        except (OSError, sqlite3.Error):
            self.close()

    def sha256(self, path: Path, info: os.stat_result, wanted: str | None = None) -> str:
        """The hash of a file. A cached hash is used if it is the `wanted` one, or none is wanted; otherwise the file is read, because the
        cache may be damaged."""
        # ctime too: a tool that restores the mtime (rsync, cp -p) cannot restore the ctime.
        name, key = str(path.resolve()), f"{info.st_size} {info.st_mtime_ns} {info.st_ctime_ns}"
        # A second change within one tick of the file system's clock would leave the same times.
        settled = time.time() - info.st_mtime > 0.1
        try:
            if self.db is not None and settled:
                row = self.db.execute(
                    "SELECT sha256 FROM hash WHERE path = ? AND key = ?", (name, key)
                ).fetchone()
                if row is not None and wanted in (None, row[0]):
                    return str(row[0])
            digest = sha256_file(path)
            if self.db is not None and settled:
                with self.db:
                    self.db.execute("INSERT OR REPLACE INTO hash VALUES (?, ?, ?)", (name, key, digest))
            return digest
        except sqlite3.Error:
            return sha256_file(path)

    def close(self) -> None:
        if self.db is not None:
            self.db.close()
            self.db = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
