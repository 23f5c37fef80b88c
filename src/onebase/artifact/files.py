"""Artifact folders: written completely or not at all, and verified byte for byte.

A folder is filled under a temporary name beside its target, hashed, completed by `manifest.json` and renamed. A process
killed at any instant leaves either the old state or the new one. Its unfinished folder is named `.<name>.tmp-*` (or, while
replacing, `.<name>.old-*`); the next writer of that target removes or restores it. A file that was changed since it was
written raises an error that names it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import shutil
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from onebase.artifact.disk import (
    cache_dir,
    disk_errors,
    fsync,
    home,
    recover,
    remove_if_abandoned,
    sha256_bytes,
    sha256_file,
    siblings,
    try_lock,
    user_error,
    write,
    write_atomic,
)
from onebase.artifact.manifest import (
    MANIFEST,
    SCHEMA,
    check_fast,
    good_name,
    manifest_bytes,
    read_manifest,
    verify,
    walk,
)
from onebase.config_plain import canonical_json
from onebase.errors import ArtifactError, UserError

__all__ = [
    "MANIFEST",
    "ArtifactWriter",
    "cache_dir",
    "canonical_json",
    "check_fast",
    "home",
    "plain",
    "read_manifest",
    "sha256_bytes",
    "sha256_file",
    "verify",
    "write_atomic",
]


def plain(value: Any) -> Any:
    """`value` as strict JSON data: tuples become lists, paths text, numpy scalars numbers, and nan or inf text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in (sorted(value, key=str) if isinstance(value, (set, frozenset)) else value)]
    if hasattr(value, "tolist"):  # numpy and torch values
        return plain(value.tolist())
    return str(value)


class ArtifactWriter:
    """Write an artifact folder so that it appears only when complete.

        with ArtifactWriter("runs/base", kind="base", facts={"fingerprint": "ob1-..."}) as w:
            w.path("base.json").write_text(...)

    `w.path(name)` is a path in a temporary sibling folder (sub-folders are created); `w.facts` may be filled until the end.
    When the body raises, the temporary folder is removed and the target is unchanged. With `overwrite`, an artifact at the
    target is replaced; any other folder is never replaced.
    Raises ArtifactError when the target exists, cannot be written, or the disk is full.
    """

    def __init__(
        self, final: str | Path, kind: str, facts: Mapping[str, Any] | None = None, overwrite: bool = False
    ) -> None:
        # Of a symbolic link the target folder is replaced, so that the link stays valid.
        self.final = Path(os.path.realpath(final))
        self.kind = kind
        self.facts: dict[str, Any] = dict(facts or {})
        self.overwrite = overwrite
        self.dir = self.final.with_name(f".{self.final.name}.tmp-{secrets.token_hex(4)}")
        self._lock: int | None = None
        self._last = self.final

    def path(self, name: str) -> Path:
        """Where to write the file `name` (relative, `/` between folders)."""
        if not good_name(name):
            raise ArtifactError(
                f"'{name}' is not a valid file name in an artifact", "use a relative name without '..'"
            )
        path = self._last = self.dir / name
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def __enter__(self) -> Self:
        with disk_errors(self.final):
            self.final.parent.mkdir(parents=True, exist_ok=True)
            recover(self.final)
            self._check_target()
            for stale in siblings(self.final, "tmp"):
                remove_if_abandoned(stale)
            self.dir.mkdir()
            # Locked while this process runs: no other writer treats this folder as stale.
            self._lock = try_lock(self.dir)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                with disk_errors(self.final):
                    self._commit()
        except BaseException:
            shutil.rmtree(self.dir, ignore_errors=True)
            raise
        finally:
            if error is not None:
                shutil.rmtree(self.dir, ignore_errors=True)
            if self._lock is not None:
                os.close(self._lock)
        if isinstance(error, Exception) and (mapped := user_error(error, self._last, only_full=True)):
            raise mapped from error

    def _check_target(self) -> None:
        if not self.final.exists() or (self.final.is_dir() and not any(self.final.iterdir())):
            return
        if not self.overwrite:
            raise ArtifactError(f"{self.final} already exists", "choose another path, or set overwrite")
        if not (self.final / MANIFEST).is_file():
            raise ArtifactError(
                f"{self.final} is not an artifact of onebase, so it is not overwritten", "choose another path"
            )

    def _commit(self) -> None:
        files: dict[str, dict[str, Any]] = {}
        for name, path in walk(self.dir):
            if name == MANIFEST:
                raise ArtifactError(
                    f"'{MANIFEST}' is written by the artifact writer itself", "use another name"
                )
            fsync(path)
            files[name] = {"sha256": sha256_file(path), "bytes": path.stat().st_size}
        for folder, _, _ in os.walk(self.dir, topdown=False):
            fsync(Path(folder))
        manifest = {"schema": SCHEMA, "kind": self.kind, "files": files, "facts": plain(self.facts)}
        write(self.dir / MANIFEST, manifest_bytes(manifest))
        fsync(self.dir)
        self._check_target()
        old: Path | None = None
        if self.final.exists() and any(self.final.iterdir()):
            old = self.final.with_name(f".{self.final.name}.old-{secrets.token_hex(4)}")
            os.rename(self.final, old)
        try:
            os.rename(self.dir, self.final)
        except BaseException:
            if old is not None:
                os.rename(old, self.final)
            raise
        fsync(self.final.parent)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)  # the next writer removes the rest


REMEDY = "use an intact copy of the folder, or create it again"
_UNFIT = (ValueError, KeyError, TypeError, IndexError, AttributeError, EOFError, OverflowError, RecursionError, RuntimeError, MemoryError, SyntaxError, tokenize.TokenError)  # fmt: skip
"""Exceptions of Python, numpy (which parses headers with Python's tokenizer) and torch for invalid content. Not OSError: that is a disk
error."""


def read_json(path: Path, *keys: str, remedy: str = REMEDY) -> dict[str, Any]:
    """The object in a JSON file that onebase wrote. Raises ArtifactError where it cannot be read, is no JSON object, or lacks one of `keys`."""
    try:
        tree = json.loads(path.read_bytes())
    except OSError as e:
        raise ArtifactError(f"{path} cannot be read: {e.strerror or e}", remedy) from None
    except (ValueError, RecursionError) as e:  # UnicodeDecodeError is a ValueError
        raise ArtifactError(
            f"{path} was changed after it was written: not valid JSON ({e})", remedy
        ) from None
    if not isinstance(tree, dict):
        raise ArtifactError(f"{path} was changed after it was written: no JSON object", remedy)
    for key in keys:
        if key not in tree:
            raise ArtifactError(f"{path} was changed after it was written: it has no '{key}'", remedy)
    return tree


@contextlib.contextmanager
def understood(path: Path, remedy: str = REMEDY) -> Iterator[None]:
    """Wrap the parsing of `path`: invalid content becomes an ArtifactError that names the file."""
    try:
        yield
    except UserError:
        raise
    except _UNFIT as e:
        what = f"{type(e).__name__}: {e}" if str(e) else type(e).__name__
        raise ArtifactError(
            f"{path} does not have the content that onebase writes there ({what})", remedy
        ) from None
