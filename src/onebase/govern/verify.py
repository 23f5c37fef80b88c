"""Verify artifacts: reread every byte, recompute the fingerprint, and compare record and manifest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from onebase.artifact.files import MANIFEST, read_json, read_manifest, verify
from onebase.artifact.raw import files_digest, of_digest
from onebase.artifact.record import RECORD, Record
from onebase.base.config import BaseConfig
from onebase.config import from_file
from onebase.config_plain import without_defaults
from onebase.errors import ArtifactError
from onebase.readable import duration, size

Recompute = Callable[[Path], str]


@dataclass(frozen=True)
class Report:
    """The checks of one artifact; a report exists only if all of them passed. seconds: wall-clock time."""

    path: Path
    kind: str
    files: int
    bytes: int
    fingerprint: str
    checks: tuple[str, ...]
    seconds: float

    def line(self) -> str:
        """The report as one line of text."""
        files, fingerprint = f"{self.files} files, {size(self.bytes)}", self.fingerprint or "no fingerprint"
        return f"ok  {self.path}  {self.kind}  {fingerprint}  {files}, {duration(self.seconds)}: {'; '.join(self.checks)}"


def base_fingerprint(folder: Path) -> str:
    """The fingerprint of a base folder from its bytes: base.json's "config" and the tensors of model*.safetensors."""
    config = read_json(folder / "base.json", "config")["config"]
    tensors = files_digest(sorted(folder.glob("model*.safetensors")))
    return of_digest(tensors, without_defaults(from_file(BaseConfig, config, str(folder / "base.json"))))


RECOMPUTE: Mapping[str, Recompute] = {"base": base_fingerprint}


def verify_artifact(folder: str | Path, recompute: Mapping[str, Recompute] | None = None) -> Report:
    """Check one artifact completely. recompute: per kind, the function that computes the fingerprint of a folder (default: a base's).

    Raises ArtifactError naming the file or hash that does not match.
    """
    folder, start = Path(folder), time.perf_counter()
    manifest = read_manifest(folder)
    verify(folder)
    checks = ["every byte reread"]
    facts, files = manifest["facts"], manifest["files"]
    record = Record.load(folder / RECORD) if RECORD in files else None
    if record is not None:
        if record.kind != manifest["kind"]:
            raise _differ(folder, "kind", record.kind, manifest["kind"])
        for name, value in record.hashes.items():
            stated = facts.get(name, files[name]["sha256"] if name in files else value)
            if value != stated:
                raise _differ(folder, name, value, str(stated))
        checks.append("record agrees with the manifest")
    stated = str(facts.get("fingerprint") or (record.hashes.get("fingerprint") if record else None) or "")
    compute = (RECOMPUTE if recompute is None else recompute).get(manifest["kind"])
    if compute is not None:
        computed = compute(folder)
        if computed != stated:
            raise ArtifactError(
                f"{folder}: the fingerprint computed from its files is {computed}, its manifest states {stated or 'none'}",
                "do not use it: weights or config differ from those that were recorded",
            )
        checks.append("fingerprint recomputed")
    size = sum(entry["bytes"] for entry in files.values())
    return Report(
        folder, manifest["kind"], len(files), size, stated, tuple(checks), time.perf_counter() - start
    )


def verify_tree(folder: str | Path, recompute: Mapping[str, Recompute] | None = None) -> list[Report]:
    """Check an artifact, or every artifact below a folder (a run with its checkpoints and adapters). Raises ArtifactError."""
    folder = Path(folder)
    if (folder / MANIFEST).is_file() or not folder.is_dir():
        return [verify_artifact(folder, recompute)]
    # Folders with a leading dot are left over from a killed writer, not artifacts.
    folders = sorted(
        p.parent
        for p in folder.rglob(MANIFEST)
        if not any(n.startswith(".") for n in p.relative_to(folder).parts)
    )
    if not folders:
        raise ArtifactError(
            f"there is no artifact in {folder}", "give a base, adapter, dataset or run folder"
        )
    return [verify_artifact(path, recompute) for path in folders]


def _differ(folder: Path, name: str, record: str, manifest: str) -> ArtifactError:
    return ArtifactError(
        f"{folder / RECORD} has {name} {record}, but {MANIFEST} has {manifest}",
        "do not use it: the two were not written together",
    )
