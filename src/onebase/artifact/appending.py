"""Adds facts (such as scores) to the record of an existing artifact. All other files and the fingerprint stay the same."""

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
"""Seconds to wait for another process that is adding to the same record."""


def add_facts(folder: str | Path, add: Callable[[Record], None]) -> None:
    """Call `add` to add events to the record of the artifact in `folder`, and write it.

    A process killed at any instant leaves a complete artifact, with the old record or the new one: first the manifest lists both, then the
    record is replaced, then the manifest lists only the new one. Raises ArtifactError for a folder that is no artifact or cannot be
    written; it is then unchanged.
    """
    folder = Path(os.path.realpath(folder))
    for path in (folder, folder / RECORD, folder / MANIFEST):
        if path.exists() and not os.access(path, os.W_OK):
            raise ArtifactError(f"{path} cannot be written", "change its permissions")
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
    """Replace a file of an artifact. The temporary file is beside the folder: one left by a killed writer is then no part of the artifact,
    and the next writer of the folder removes it."""
    draft = path.parent.with_name(f".{path.parent.name}.tmp-{secrets.token_hex(4)}")
    with disk_errors(path):
        try:
            write(draft, content)
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        fsync(path.parent)


def _lock(folder: Path) -> int | None:
    """A lock on the folder, held until closed; None where the system has no locks. Raises ArtifactError after WAIT seconds."""
    if importlib.util.find_spec("fcntl") is None:
        return None
    end = time.monotonic() + WAIT
    with disk_errors(folder):
        if not folder.is_dir():
            read_manifest(folder)  # raises the error
        while (lock := try_lock(folder)) is None:
            if time.monotonic() > end:
                raise ArtifactError(f"another process is writing {folder}", "try again when it has ended")
            time.sleep(0.05)
    return lock
