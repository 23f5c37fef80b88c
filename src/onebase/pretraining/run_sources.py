"""A run folder's data is made once of the files that its recipe names: later calls are held to what these said, not to where they lie."""

import json
from pathlib import Path

from onebase.artifact.files import write_atomic
from onebase.artifact.manifest import cached_hashes
from onebase.artifact.reading import REMEDY, read_json
from onebase.data.sources import files_of
from onebase.errors import ArtifactError
from onebase.pretraining.recipe import Recipe

KEPT = "sources.json"


def keep_sources(out: Path, recipe: Recipe) -> None:
    """Write down the hash of every file of the recipe's sources, when the data is made of them."""
    write_atomic(out / KEPT, json.dumps(_hashes(recipe), indent=1, sort_keys=True).encode())


def check_sources(out: Path, recipe: Recipe) -> None:
    """Raises ArtifactError for a file that says something else than when the data of this run was made, or that was not there. One that is
    gone is not missed: the data is made. A folder of before this was kept says nothing."""
    if not (out / KEPT).exists():
        return
    kept = read_json(out / KEPT)
    for source in recipe.data.sources:
        if source.name not in kept or not Path(source.path).exists():
            continue
        now, then = _hashes(recipe, source.name)[source.name], kept[source.name]
        if not isinstance(then, dict):
            raise ArtifactError(
                f"{out / KEPT} is changed since it was written: {source.name!r} is no map", REMEDY
            )
        for name, found in now.items():
            if found != then.get(name):
                what = "has changed since" if name in then else "was not there when"
                raise ArtifactError(
                    f"{Path(source.path) / name if Path(source.path).is_dir() else source.path} (source {source.name!r}) {what} the data of {out} was made",
                    "put it back as it was, or give another --out: the data is then made anew",
                )


def _hashes(recipe: Recipe, only: str | None = None) -> dict[str, dict[str, str]]:
    """By source and file, relative to the source's path."""
    out = {}
    with cached_hashes() as hashed:
        for source in recipe.data.sources:
            if only in (None, source.name):
                out[source.name] = {n: hashed(p, p.stat()) for n, p in files_of(source)}
    return out
