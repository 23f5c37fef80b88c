"""What a name means, and whether a base or an adapter is there: by paths, names, manifests and first bytes alone, without torch, so that what is
wrong with them is said at once."""

from collections.abc import Sequence
from pathlib import Path

from onebase.artifact.manifest import MANIFEST, read_manifest
from onebase.errors import UserError
from onebase.formats.hf.unsupported import what_it_is
from onebase.formats.hub import models
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
    if models.is_name(ref):
        return models.fetch(ref)
    try:
        return Store().resolve(str(ref))
    except UserError as e:
        if models.looks_like_one(ref):
            raise UserError(e.cause, f"{e.remedy}; on the Hugging Face Hub it would be hf:{ref}") from None
        raise


def refuse_foreign(path: Path) -> None:
    """Raises UserError for what has no record because it is no artifact of ours, but could have one."""
    if (name := format_of(path)) is not None:
        raise UserError(
            f"{path} is {name}, it has no record", f"make a base of it: onebase import {path} --out DIR"
        )


def expect_base(ref: str | Path) -> None:
    """Raises UserError unless `ref` is a base of ours or in a format that is opened, as opening it would. What must be fetched first is not asked."""
    if models.is_name(ref) or format_of(path := find_base(ref)) is not None:
        return
    if not (path / MANIFEST).is_file() and (odd := what_it_is(path)) is not None:
        raise odd
    read_manifest(path, "base")


def expect_adapter(ref: str | Path) -> None:
    """Raises UserError unless `ref` is an adapter of ours or of PEFT, as reading it would. What must be fetched first is not asked."""
    if not models.is_name(ref) and not is_peft(path := find_artifact(ref)):
        read_manifest(path, "adapter")


def named_adapters(texts: Sequence[str]) -> dict[str, list[Path]]:
    """`NAME=DIR` pairs, each name once; `NAME=DIR+DIR` is a stack. Raises UserError."""
    out: dict[str, list[Path]] = {}
    for text in texts:
        name, sign, folder = text.partition("=")
        if not sign or not name or not folder:
            raise UserError(
                f"--adapter {text!r} is not NAME=DIR", "write for example --adapter chat=runs/chat"
            )
        if name in out:
            raise UserError(f"two adapters are called {name!r}", "give each --adapter a name of its own")
        # A folder may have a + in its name.
        out[name] = [find_artifact(f) for f in ([folder] if Path(folder).exists() else folder.split("+"))]
    return out
