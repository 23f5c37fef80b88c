"""What a name means, and whether a base or an adapter is there: by paths, names, manifests and first bytes alone, without torch, so that what is
wrong with them is said at once."""

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
    """The base folder that `ref` means."""
    path = find_artifact(ref)
    inner = path / "base"
    return inner if not (path / MANIFEST).is_file() and (inner / MANIFEST).is_file() else path


def find_artifact(ref: str | Path) -> Path:
    """The folder that `ref` means: an existing path, then a name in the store, then `hf:org/name` (a name on the Hugging Face Hub, which is
    fetched). Raises UserError with names that are near."""
    if is_name(ref):
        return fetch(ref)
    try:
        return Store().resolve(str(ref))
    except UserError as e:
        if (hub := hub_name(ref)) is not None:
            raise UserError(
                e.cause, f"for the model of the Hugging Face Hub write {hub}; {e.remedy}"
            ) from None
        if near := _near_paths(Path(ref)):
            raise UserError(e.cause, f"did you mean {near}? {e.remedy}") from None
        raise


def _near_paths(path: Path) -> str:
    """The folder beside, or the file of a model, whose name is nearest; "" where none is near."""
    with contextlib.suppress(OSError):
        there = [p.name for p in path.parent.iterdir() if p.is_dir() or p.suffix == ".gguf"]
        near = difflib.get_close_matches(path.name, there, 1, 0.6)
        return str(path.with_name(near[0])) if near else ""
    return ""


def refuse_foreign(path: Path) -> None:
    """Raises UserError for what has no record because it is no artifact of ours, but could have one."""
    if (name := format_of(path)) is not None:
        raise UserError(
            f"{path} is {name}, it has no record", f"make a base of it: onebase import {path} --out DIR"
        )


def expect_base(ref: str | Path) -> None:
    """Raises UserError unless `ref` is a base of ours or in a format that is opened, as opening it would. What must be fetched first is not asked."""
    if is_name(ref) or format_of(path := find_base(ref)) is not None:
        return
    if not (path / MANIFEST).is_file() and (odd := what_it_is(path)) is not None:
        raise odd
    try:
        read_manifest(path, "base")
    except ArtifactError as e:
        raise ArtifactError(e.cause, _with_base(path, e.remedy)) from None


def expect_adapter(ref: str | Path) -> None:
    """Raises UserError unless `ref` is an adapter of ours or of PEFT, as reading it would. What must be fetched first is not asked."""
    if is_name(ref) or is_peft(path := find_artifact(ref)):
        return
    if (name := format_of(path)) is not None:
        raise ArtifactError(f"{path} is {name}, not an adapter", GIVE["adapter", "base"])
    read_manifest(find_base(path), "adapter")


def _with_base(path: Path, remedy: str) -> str:
    """The remedy, with the base that an adapter was made for where `path` is one: by the name in its record."""
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
                f"name the model that it is served as: --adapter {Path(text).name or 'chat'}={text}"
                if text and not sign
                else "write for example --adapter chat=runs/chat",
            )
        if name in out:
            raise UserError(f"two adapters are called {name!r}", "give each --adapter a name of its own")
        # A folder may have a + in its name.
        out[name] = [find_artifact(f) for f in ([folder] if Path(folder).exists() else folder.split("+"))]
    return out
