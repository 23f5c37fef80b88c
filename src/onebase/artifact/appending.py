"""Facts that are added to the record of an artifact that is there already: scores, say. All else in the folder stays, and so does the fingerprint."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from onebase.artifact.disk import disk_errors, fsync, sha256_bytes, try_lock, write
from onebase.artifact.files import MANIFEST
from onebase.artifact.manifest import BEFORE, manifest_bytes, read_manifest
from onebase.artifact.record import RECORD, Record
from onebase.errors import ArtifactError

WAIT = 10.0
"""Seconds to wait for another process that adds to the same record."""


def add_facts(folder: str | Path, add: Callable[[Record], None]) -> None:
    """Let `add` add events to the record of the artifact in `folder`, and write it.

    A process killed at any instant leaves an artifact that is whole, with the old record or the new one: the manifest first takes both, then the record
    is replaced, then the manifest takes the new one alone. Raises ArtifactError for a folder that is none or cannot be written; it is then as it was.
    """
    folder = Path(os.path.realpath(folder))
    for path in (folder, folder / RECORD, folder / MANIFEST):
        if path.exists() and not os.access(path, os.W_OK):
            raise ArtifactError(f"{path} cannot be written", "make it writable")
    lock = _lock(folder)
    try:
        manifest = read_manifest(folder)
        entry = manifest["files"].get(RECORD)
        if entry is None:
            raise ArtifactError(f"{folder} has no record", "give an artifact that onebase made")
        record = Record.load(folder)
        had = len(record.events)
        add(record)
        if len(record.events) == had:
            return
        raw = record.as_bytes()
        was = {k: entry[k] for k in ("sha256", "bytes")}
        now = {"sha256": sha256_bytes(raw), "bytes": len(raw)}
        for name, content in (
            (MANIFEST, _with(manifest, now | {BEFORE: was})),
            (RECORD, raw),
            (MANIFEST, _with(manifest, now)),
        ):
            _replace(folder / name, content)
    finally:
        if lock is not None:
            os.close(lock)


def _with(manifest: dict[str, object], entry: dict[str, object]) -> bytes:
    changed = json.loads(json.dumps(manifest))
    changed["files"][RECORD] = entry
    return manifest_bytes(changed)


def _replace(path: Path, content: bytes) -> None:
    """Put another file in the place of one in an artifact. Its draft stands beside the folder: what a killed writer leaves is then no part of it, and
    the next writer of the folder clears it."""
    draft = path.parent.with_name(f".{path.parent.name}.tmp-{secrets.token_hex(4)}")
    with disk_errors(path):
        try:
            write(draft, content)
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        fsync(path.parent)


def _lock(folder: Path) -> int | None:
    """The folder, held until it is closed; None where there are no locks. Raises ArtifactError where another process has it for long."""
    if importlib.util.find_spec("fcntl") is None:
        return None
    end = time.monotonic() + WAIT
    with disk_errors(folder):
        if not folder.is_dir():
            read_manifest(folder)  # says what is wrong
        while (found := try_lock(folder)) is None:
            if time.monotonic() > end:
                raise ArtifactError(f"another process writes {folder}", "try again when it has ended")
            time.sleep(0.05)
    return found
