"""Binds a run folder to one recipe and its source files: checks what a later call may change and what not."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from onebase import config as configs
from onebase.artifact.files import MANIFEST, REMEDY, read_json, understood, write_atomic
from onebase.artifact.manifest import cached_hashes
from onebase.config_fields import to_new_names
from onebase.config_plain import to_dict
from onebase.data.sources import files_of
from onebase.errors import ArtifactError, ConfigError
from onebase.pretraining.recipe import Recipe
from onebase.train.checkpoint import list_checkpoints
from onebase.train.config import FREE
from onebase.train.parallel import Parallel
from onebase.trees import differences


def claim(out: Path, recipe: Recipe, par: Parallel) -> None:
    """Store the recipe in the run folder, and refuse a second recipe in the same folder.

    Before the first checkpoint only the values that the prepared data and the tokenizer depend on are fixed: a run that was refused (for example
    for its memory) continues in the same folder with another setting.
    """
    path = out / "recipe.json"
    mine = to_dict(recipe)
    begun = bool(list_checkpoints(out / "checkpoints")) or (out / "base" / MANIFEST).is_file()
    made = begun or (out / "data" / MANIFEST).is_file() or (out / "tokenizer.json").is_file()
    if made and path.is_file():
        theirs = _recipe_of(path, begun)
        wanted = _decides(mine, begun)
        if differ := [
            f"'{key}' is {json.dumps(now)}, there {json.dumps(then)}"
            for key, then, now in differences(theirs, wanted)
        ]:
            more = f", and {len(differ) - 3} more" if len(differ) > 3 else ""
            raise ArtifactError(
                f"{out} contains a run of another recipe: {', '.join(differ[:3])}{more}",
                "give another --out, or the same recipe",
            )
    par.barrier()  # every rank has read before one writes
    if par.main and not begun:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise ArtifactError(f"{out} cannot be written: {e.strerror}", "give another --out") from None
        write_atomic(path, json.dumps(mine, indent=1).encode())
    par.barrier()


def _recipe_of(path: Path, begun: bool) -> dict[str, Any]:
    """The fixed values of the recipe in a run folder. Raises ArtifactError if that file was damaged."""
    remedy = f"give another --out; or, if your recipe is the one of this folder, remove {path.name} and run it again"
    tree = _tree(path, remedy)
    with suppress(
        ConfigError
    ):  # an earlier version did not write the keys that are new; a value that is not valid is shown as it is
        tree = to_dict(configs.from_dict(Recipe, tree, str(path)))
    with understood(path, remedy):
        return _decides(tree, begun)


def kept_recipe(out: Path) -> Recipe:
    """The recipe of a run folder. Raises UserError."""
    return configs.from_dict(Recipe, _tree(out / "recipe.json", REMEDY), str(out / "recipe.json"))


def _tree(path: Path, remedy: str) -> dict[str, Any]:
    tree = read_json(path, remedy=remedy)
    with understood(path, remedy):
        if tree["objective"]["kind"] == "next_token":  # old recipes had the keys of infill too
            tree["objective"] = {"kind": "next_token"}
        return to_new_names(Recipe, tree)


def _decides(recipe: dict[str, Any], begun: bool) -> dict[str, Any]:
    """The values of a recipe that are fixed for a run folder."""
    train = {k: v for k, v in recipe["train"].items() if k not in FREE}
    if begun:
        return {k: v for k, v in recipe.items() if k != "log"} | {"train": train}
    kept = {"data": recipe["data"], "tokenizer": recipe["tokenizer"]}
    return kept | {"model.vocab_size": recipe["model"]["vocab_size"], "train.seed": train["seed"]}


KEPT = "sources.json"


def keep_sources(out: Path, recipe: Recipe) -> None:
    """Store the hash of every source file of the recipe, when the data is prepared from them."""
    write_atomic(out / KEPT, json.dumps(_hashes(recipe), indent=1, sort_keys=True).encode())


def check_sources(out: Path, recipe: Recipe) -> None:
    """Raises ArtifactError for a source file that has changed or was added since the data of this run was prepared. A deleted file is accepted: its
    data is already prepared. Old run folders without hashes are not checked."""
    if not (out / KEPT).exists():
        return
    kept = read_json(out / KEPT)
    for source in recipe.data.sources:
        path = Path(source.path)
        if source.name not in kept or not (path.is_file() or any(p.is_file() for p in path.rglob("*"))):
            continue
        now, then = _hashes(recipe, source.name)[source.name], kept[source.name]
        if not isinstance(then, dict):
            raise ArtifactError(
                f"{out / KEPT} was changed after it was written: {source.name!r} is not a mapping", REMEDY
            )
        for name, digest in now.items():
            if digest != then.get(name):
                what = "has changed since" if name in then else "did not exist when"
                raise ArtifactError(
                    f"{Path(source.path) / name if Path(source.path).is_dir() else source.path} (source {source.name!r}) {what} the data of {out} was prepared",
                    "restore it, or give another --out: the data is then prepared again",
                )


def _hashes(recipe: Recipe, only: str | None = None) -> dict[str, dict[str, str]]:
    """Hashes by source and file (relative to the source's path)."""
    out = {}
    with cached_hashes() as hashed:
        for source in recipe.data.sources:
            if only in (None, source.name):
                out[source.name] = {n: hashed(p, p.stat()) for n, p in files_of(source)}
    return out
