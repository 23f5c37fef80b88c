"""Resolves names to paths and checks that a base or an adapter is there. It reads only names, manifests and first bytes, without torch, so
errors are reported at once."""

import contextlib
import difflib
from collections.abc import Sequence
from pathlib import Path

from onebase.artifact.manifest import GIVE, MANIFEST, read_manifest
from onebase.artifact.record import RECORD, Record
from onebase.errors import ArtifactError, UserError
from onebase.formats.hf.unsupported import what_it_is
from onebase.formats.hub.models import fetch
from onebase.formats.hub.names import hub_name, is_name
from onebase.formats.recognise import format_of, is_peft
from onebase.govern.store import Store


def find_base(ref: str | Path) -> Path:
    """The base folder that `ref` refers to."""
    path = find_artifact(ref)
    inner = path / "base"
    return inner if not (path / MANIFEST).is_file() and (inner / MANIFEST).is_file() else path


def find_artifact(ref: str | Path) -> Path:
    """The folder that `ref` refers to: an existing path, a name in the store, or `hf:org/name` (fetched from the Hugging Face Hub).
    Raises UserError that suggests similar names."""
    if is_name(ref):
        return fetch(ref)
    try:
        return Store().resolve(str(ref))
    except UserError as e:
        if (hub := hub_name(ref)) is not None:
            raise UserError(
                e.cause, f"for the model on the Hugging Face Hub write {hub}; {e.remedy}"
            ) from None
        if near := _near_paths(Path(ref)):
            raise UserError(e.cause, f"did you mean {near}? {e.remedy}") from None
        raise


def _near_paths(path: Path) -> str:
    """The sibling folder or model file with the most similar name; "" if there is none."""
    with contextlib.suppress(OSError):
        names = [p.name for p in path.parent.iterdir() if p.is_dir() or p.suffix == ".gguf"]
        near = difflib.get_close_matches(path.name, names, 1, 0.6)
        return str(path.with_name(near[0])) if near else ""
    return ""


def refuse_foreign(path: Path) -> None:
    """Raises UserError for a model in another format: it has no record, but an import would give it one."""
    if (name := format_of(path)) is not None:
        raise UserError(
            f"{path} is {name}, it has no record", f"import it as a base: onebase import {path} --out DIR"
        )


def expect_base(ref: str | Path) -> None:
    """Raises UserError, as opening would, unless `ref` is a base of ours or in a supported format. Names on the Hub are not checked."""
    if is_name(ref) or format_of(path := find_base(ref)) is not None:
        return
    if not (path / MANIFEST).is_file() and (odd := what_it_is(path)) is not None:
        raise odd
    try:
        read_manifest(path, "base")
    except ArtifactError as e:
        raise ArtifactError(e.cause, _with_base(path, e.remedy)) from None


def expect_adapter(ref: str | Path) -> None:
    """Raises UserError, as reading would, unless `ref` is an adapter of ours or of PEFT. Names on the Hub are not checked."""
    if is_name(ref) or is_peft(path := find_artifact(ref)):
        return
    if (name := format_of(path)) is not None:
        raise ArtifactError(f"{path} is {name}, not an adapter", GIVE["adapter", "base"])
    read_manifest(find_base(path), "adapter")


def _with_base(path: Path, remedy: str) -> str:
    """The remedy. If `path` is an adapter, it includes the base that the adapter was made for, by the name in its record."""
    with contextlib.suppress(UserError, OSError):
        if read_manifest(path)["kind"] == "adapter":
            parents = [p for p in Record.load(path / RECORD).parents if p["kind"] == "base"]
            named = [
                f"{p['name'] if p['name'] != 'base' else 'a base'} ({p['fingerprint'][:16]}...)"
                for p in parents[:1]
            ]
            return f"{remedy}; it was made for {named[0]}" if named else remedy
    return remedy


def named_adapters(texts: Sequence[str]) -> dict[str, list[Path]]:
    """`NAME=DIR` pairs, each name once; `NAME=DIR+DIR` is a stack. Raises UserError."""
    out: dict[str, list[Path]] = {}
    for text in texts:
        name, sign, folder = text.partition("=")
        if not sign or not name or not folder:
            raise UserError(
                f"--adapter {text!r} is not NAME=DIR",
                f"give the model name to serve it as: --adapter {Path(text).name or 'chat'}={text}"
                if text and not sign
                else "write for example --adapter chat=runs/chat",
            )
        if name in out:
            raise UserError(f"two adapters are named {name!r}", "give each --adapter its own name")
        # A folder may have a + in its name.
        out[name] = [find_artifact(f) for f in ([folder] if Path(folder).exists() else folder.split("+"))]
    return out
