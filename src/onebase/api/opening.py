"""What a name means, and the base that is there in memory."""

from pathlib import Path

from onebase.api.exchange import open_foreign
from onebase.artifact.files import MANIFEST
from onebase.base.folder import LoadedBase, load_base
from onebase.errors import UserError
from onebase.govern.store import Store
from onebase.interop import hub
from onebase.model.device import compute_dtype, pick_device


def open_base(ref: str | Path, *, device: str = "cpu", dtype: str = "fp32") -> LoadedBase:
    """`onebase.load`, without the face."""
    path, where = find_base(ref), pick_device(device)
    found = open_foreign(path)
    if found is None:
        return load_base(path, device=where, dtype=lambda d: compute_dtype(dtype, d))
    found.model.to(where)
    found.model.compute_dtype = compute_dtype(dtype, where)
    return found


def find_base(ref: str | Path) -> Path:
    """The base folder that `ref` means."""
    path = find_artifact(ref)
    inner = path / "base"
    return inner if not (path / MANIFEST).is_file() and (inner / MANIFEST).is_file() else path


def find_artifact(ref: str | Path) -> Path:
    """The folder that `ref` means: an existing path, then a name in the store, then `hf:org/name` (a name on the Hugging Face Hub, which is
    fetched). Raises UserError with names that are near."""
    if hub.is_name(ref):
        return hub.fetch(ref)
    try:
        return Store().resolve(str(ref))
    except UserError as e:
        if hub.looks_like_one(ref):
            raise UserError(e.cause, f"{e.remedy}; on the Hugging Face Hub it would be hf:{ref}") from None
        raise
