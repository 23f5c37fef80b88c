"""`onebase.load`, `onebase.import_base` and `onebase.pretrain`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from onebase.api.base import Base
from onebase.base.folder import save_base
from onebase.opening.find import find_base
from onebase.opening.names import open_base, open_to_keep
from onebase.pretraining.recipe import Recipe, read_recipe
from onebase.pretraining.report import Tell
from onebase.pretraining.run import run_recipe
from onebase.train.callbacks import Callback
from onebase.train.signals import Stopped

__all__ = ["Recipe", "import_base", "load", "pretrain", "run_recipe"]


def load(ref: str | Path, *, device: str = "cpu", dtype: str = "fp32") -> Base:
    """Open a base. `ref` is an existing path (a base folder, a run folder that contains `base/`, or an open model: docs/bases.md), else a
    name in the store, else `hf:org/name[@revision]` or `hf:org/name/file.gguf` on the Hugging Face Hub.

    If the model was published with a head (classification, tagging, score), it is attached; an adapter replaces it.
    device: cpu, cuda, mps or auto. dtype: of activations; fp32, bf16 or auto. Raises UserError listing the accepted values.
    """
    return Base.opened(open_base(ref, device=device, dtype=dtype))


def import_base(
    src: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    licence: str | None = None,
    source: str | None = None,
    log: Tell | None = None,
) -> Base:
    """Convert an open model to a base folder: the same weights, and a record with the origin, the hash of every file, and the licence and data
    that the source states. licence, source: your own statements; where the source states otherwise, the record contains both and `log` reports
    it. Raises UserError for a model that cannot be read."""
    loaded = open_to_keep(find_base(src), {"licence": licence, "source": source}, log or (lambda _: None))
    save_base(Path(out), loaded, overwrite=overwrite)
    return load(out)


def pretrain(
    recipe: Recipe | Mapping[str, object] | str | Path,
    *,
    out: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    log: Tell | None = None,
    extend: Mapping[str, float] | None = None,
    overwrite: bool = False,
    **overrides: object,
) -> Base:
    """Pretrain a base from a recipe (a file, its keys as a dict, or a `Recipe`) in the folder `out` (default: `runs/<name>`).

    Overrides are recipe keys with `__` for the dot: `train__steps=100`. The same call resumes an interrupted run. extend: continue a finished
    run by minutes, steps, tokens or epochs, for example `{"minutes": 60}` (docs/training.md); the previous base is kept as `base-step_N/`,
    or replaced with `overwrite`. Raises UserError; `Stopped` when a signal stopped the run (a checkpoint is saved).
    """
    recipe = read_recipe(recipe, dict(overrides))
    folder = out or Path("runs") / recipe.name
    finished = run_recipe(recipe, folder, callbacks=callbacks, log=log, extend=extend, overwrite=overwrite)
    if finished.base is None:
        raise Stopped(f"stopped and saved in {finished.out}", "run the same command to resume")
    return Base.opened(finished.base)
