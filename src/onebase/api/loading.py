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
    """Open a base: an existing path (a base folder, a run folder that holds `base/`, or an open model: docs/bases.md), then a name
    in the store, then `hf:org/name[@revision]` or `hf:org/name/file.gguf` on the Hugging Face Hub.

    A model with a head (of a class, of tags, of a score) answers by it at once; adapters take its place.
    device: cpu, cuda, mps or auto; dtype of activations: fp32, bf16 or auto. Raises UserError naming what is known.
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
    """Take an open model into a base folder of ours: the same weights, and a record that says where from, with the hash of every
    file, and what the source says of licence and data. licence, source: what you state of them; where the source says otherwise the record keeps both,
    and `log` hears of it. Raises UserError for what cannot be read."""
    found = open_to_keep(find_base(src), {"licence": licence, "source": source}, log or (lambda _: None))
    save_base(Path(out), found, overwrite=overwrite)
    return load(out)


def pretrain(
    recipe: Recipe | str | Path,
    *,
    out: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    log: Tell | None = None,
    extend: Mapping[str, float] | None = None,
    overwrite: bool = False,
    **overrides: object,
) -> Base:
    """Pretrain a base from a recipe (a file or a `Recipe`) in the folder `out` (`runs/<name>` when not given).

    Overrides are recipe keys with `__` for the dot: `train__steps=100`. The same call goes on where an interrupted one stopped.
    extend: go on from a finished run, by one of `{"minutes": 60}`, steps, tokens, epochs (docs/training.md); the base of before is kept as
    `base-step_N/`, but with `overwrite`. Raises UserError; `Stopped` when a signal asked the run to end (it is saved).
    """
    recipe = read_recipe(recipe, dict(overrides))
    where = out or Path("runs") / recipe.name
    finished = run_recipe(recipe, where, callbacks=callbacks, log=log, extend=extend, overwrite=overwrite)
    if finished.base is None:
        raise Stopped(f"stopped and saved in {finished.out}", "run the same command to go on")
    return Base(finished.base)
