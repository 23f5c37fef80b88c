"""`onebase.load` and `onebase.pretrain`."""

from collections.abc import Sequence
from pathlib import Path

from onebase.api.base import Base
from onebase.api.exchange import FORMATS_IN, open_foreign
from onebase.api.pretraining import Tell, run_recipe
from onebase.api.recipe import Recipe
from onebase.artifact.files import MANIFEST
from onebase.base.folder import load_base, save_base
from onebase.errors import UserError
from onebase.govern.store import Store
from onebase.interop import hub
from onebase.model.device import compute_dtype, pick_device
from onebase.train.listen import Listener
from onebase.train.signals import Stopped


def load(ref: str | Path, *, device: str = "cpu", dtype: str = "fp32") -> Base:
    """Open a base: an existing path (a base folder, a run folder that holds `base/`, or an open model: docs/bases.md), then a name
    in the store, then `hf:org/name[@revision]` or `hf:org/name/file.gguf` on the Hugging Face Hub.

    device: cpu, cuda, mps or auto; dtype of activations: fp32, bf16 or auto. Raises UserError naming what is known.
    """
    path, where = find_base(ref), pick_device(device)
    found = open_foreign(path)
    if found is None:
        return Base(load_base(path, device=where, dtype=lambda d: compute_dtype(dtype, d)))
    found.model.to(where)
    found.model.compute_dtype = compute_dtype(dtype, where)
    return Base(found)


def import_base(src: str | Path, out: str | Path, *, overwrite: bool = False) -> Base:
    """Take an open model into a base folder of ours: the same weights, and a record that says where from, with the hash of every
    file. Raises UserError for what cannot be read."""
    path = find_artifact(src)
    found = open_foreign(path, hashes=True)
    if found is None:
        raise UserError(f"{path} is no model in a format that is known", f"accepted: {', '.join(FORMATS_IN)}")
    save_base(Path(out), found, overwrite=overwrite)
    return load(out)


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


def pretrain(
    recipe: Recipe | str | Path,
    *,
    out: str | Path | None = None,
    listeners: Sequence[Listener] = (),
    tell: Tell | None = None,
    **overrides: object,
) -> Base:
    """Pretrain a base from a recipe (a file or a `Recipe`) in the folder `out` (`runs/<name>` when not given).

    Overrides are recipe keys with `__` for the dot: `train__steps=100`. The same call goes on where an interrupted one stopped.
    Raises UserError; `Stopped` when a signal asked the run to end (it is saved).
    """
    from onebase.api.recipe import read_recipe

    recipe = read_recipe(recipe, dict(overrides))
    finished = run_recipe(recipe, out or Path("runs") / recipe.name, listeners=listeners, tell=tell)
    if finished.base is None:
        raise Stopped(f"stopped and saved in {finished.out}", "run the same command to go on")
    return Base(finished.base)
