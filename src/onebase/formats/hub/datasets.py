"""Datasets by their name on the Hugging Face Hub, `hf:org/name[@revision][:[config/]split]`: the files of one split, fetched into the Hub's
own cache. Only files of rows are read; a dataset's code never is.
"""

import fnmatch
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onebase.artifact.disk import write_atomic
from onebase.errors import ArtifactError, DataError
from onebase.formats.card import README, front_matter
from onebase.formats.hub import models
from onebase.formats.hub.names import PREFIX, HubName
from onebase.formats.hub.names import parse as parse_model

log = logging.getLogger(__name__)

ENDINGS = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
"""What rows can be read from, the first wins where a split is there in several."""
SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
}
NAMES = "onebase-files-"
"""Beginning of the file in the cache that keeps which files a commit has: a split is whole if all of its files are there."""
_PART = re.compile(r"-(?P<no>\d{5})-of-(?P<count>\d{5})$")
_NOT_ROWS = frozenset({"dataset_infos.json", "dataset_dict.json", "state.json", "dataset_info.json"})

Splits = dict[str, list[str]]
"""Files by split, in order."""


def fetch(ref: str | Path) -> tuple[list[Path], dict[str, Any]]:
    """The files of a split, in order, and where they are from (repo, revision, files; config, split and licence where they are said). Where the Hub cannot be reached, what was fetched last serves, with a warning, if it is whole.

    Raises UserError for what is not there or not allowed, DataError for a split that is not there or has to be named.
    """
    name, config, split = parse(str(ref))
    models.library()
    try:
        commit, names = models.listed(name)
        folder = models.get(name, commit, [README]) if README in names else None
    except models.Unreachable as e:
        had = _cached(name)
        folder, names = had or (Path(), [])
        files = _chosen(name, names, folder, config, split) if had else []
        if not files or not all((folder / n).is_file() for n in files):
            raise models.Unreachable(f"{name} is not whole in the cache, and {e.cause}", e.remedy) from None
        log.warning("%s; commit %s, which is in the cache, is taken", e.cause, folder.name)
        return [folder / n for n in files], _source(name, folder, files, config, split)
    files = _chosen(name, names, folder, config, split)
    folder = models.get(name, commit, files)
    models.note(name, files[-1])
    write_atomic(folder.parent.parent / f"{NAMES}{commit}.json", json.dumps(names).encode())
    return [folder / n for n in files], _source(name, folder, files, config, split)


def _source(
    name: HubName, folder: Path, files: Sequence[str], config: str | None, split: str | None
) -> dict[str, Any]:
    """Where rows are from; of the licence what the README says."""
    licence = front_matter(folder).get("license")
    said = {"config": config, "split": split, "licence": licence if isinstance(licence, str) else None}
    there = {k: v for k, v in said.items() if v is not None}
    return {"repo": name.repo, "revision": folder.name, "files": list(files), **there}


def parse(ref: str) -> tuple[HubName, str | None, str | None]:
    """(repo and revision, config, split). Raises UserError."""
    head, _, tail = ref.removeprefix(PREFIX).partition(":")
    name = parse_model(PREFIX + head)
    config, slash, split = tail.rpartition("/")
    if name.file or (slash and not config) or (":" in ref[len(PREFIX) :] and not split):
        raise DataError(f"{ref!r} is no name of a dataset", "write hf:org/name or hf:org/name:split")
    return replace(name, kind="dataset"), config or None, split or None


def splits_of(names: Sequence[str]) -> Splits:
    """Files by split as their names say it: `data/train-00000-of-00002.parquet`, `train.jsonl`, `test/a.csv`. What names none is `train`."""
    found: dict[str, dict[str, list[str]]] = {}
    plain: dict[str, list[str]] = {}
    for name in sorted(names):
        path = Path(name)
        if path.suffix.lower() not in ENDINGS or path.name in _NOT_ROWS or name.startswith("."):
            continue
        # The file's own name speaks before its folders do.
        words = [
            w for part in reversed(path.with_suffix("").parts) for w in re.split(r"[^a-z]+", part.lower())
        ]
        split = next((SPLITS[w] for w in words if w in SPLITS), None)
        into = plain if split is None else found.setdefault(split, {})
        into.setdefault(path.suffix.lower(), []).append(name)
    found = found or ({"train": plain} if plain else {})
    return {split: next(by[e] for e in ENDINGS if e in by) for split, by in found.items()}


def stated_splits(
    name: HubName, front: Mapping[str, Any], names: Sequence[str], config: str | None
) -> Splits:
    """Files by split as the front matter of the README says it; {} where it says nothing. Raises DataError for a config that must be named."""
    listed = front.get("configs")
    configs = listed if isinstance(listed, list) else []
    stated = [c for c in configs if isinstance(c, dict) and isinstance(c.get("data_files"), (str, list))]
    by_name = {str(c.get("config_name", "default")): c for c in stated}
    if config is not None and config not in by_name:
        raise DataError(
            f"{name} has no config {config!r}",
            f"it has: {', '.join(by_name) or 'none that its README states'}",
        )
    if not by_name:
        return {}
    chosen = config or next((n for n, c in by_name.items() if c.get("default") is True), None)
    chosen = chosen or (
        "default" if "default" in by_name else next(iter(by_name)) if len(by_name) == 1 else None
    )
    if chosen is None:
        raise DataError(
            f"{name} has the configs {', '.join(by_name)}",
            f"name one and its split: hf:{name.repo}:{next(iter(by_name))}/train",
        )
    files, root = by_name[chosen]["data_files"], str(by_name[chosen].get("data_dir") or "").strip("/")
    out: Splits = {}
    for each in files if isinstance(files, list) else [files]:
        split, globs = (
            (each.get("split", "train"), each.get("path")) if isinstance(each, dict) else ("train", each)
        )
        for glob in globs if isinstance(globs, list) else [globs]:
            pattern = f"{root}/{glob}" if root else str(glob)
            hits = [n for n in sorted(names) if _fits(n, pattern) and n not in out.get(str(split), [])]
            out.setdefault(str(split), []).extend(hits)
    return out


def _fits(name: str, pattern: str) -> bool:
    """Does a file fit a glob? `**` crosses folders, `*` does not."""
    deep = re.split(r"(\*\*/?)", pattern)
    made = "".join("(?:.*/)?" if part == "**/" else ".*" if part == "**" else _shallow(part) for part in deep)
    return re.fullmatch(made, name) is not None


def _shallow(part: str) -> str:
    return (
        fnmatch.translate(part)
        .removeprefix("(?s:")
        .removesuffix(r")\Z")
        .removesuffix(r")\z")
        .replace(".*", "[^/]*")
    )


def _chosen(
    name: HubName, names: Sequence[str], folder: Path | None, config: str | None, split: str | None
) -> list[str]:
    """The files of the split that is meant. Raises DataError."""
    found = stated_splits(name, front_matter(folder), names, config) or splits_of(names)
    found = {k: v for k, v in found.items() if v}
    if not found:
        scripts = [n for n in names if n.endswith(".py")]
        raise DataError(
            f"{name} has no files of rows"
            + (f", but a program ({scripts[0]}), which is not run" if scripts else ""),
            f"files that are read end in {', '.join(ENDINGS)}",
        )
    if split is None and len(found) > 1:
        raise DataError(
            f"{name} has the splits {', '.join(found)}", f"name one: hf:{name.repo}:{next(iter(found))}"
        )
    chosen = split or next(iter(found))
    if chosen not in found:
        raise DataError(f"{name} has no split {chosen!r}", f"it has: {', '.join(found)}")
    files = found[chosen]
    odd = next((n for n in files if not n.lower().endswith(ENDINGS)), None)
    if odd is not None:
        raise DataError(
            f"{name}: the split {chosen} is in {odd}", f"files that are read end in {', '.join(ENDINGS)}"
        )
    _check_parts(name, files)
    return files


def _check_parts(name: HubName, files: Sequence[str]) -> None:
    """Raise ArtifactError where a file is one of many and others are missing."""
    for file in files:
        part = _PART.search(Path(file).stem)
        if part is None:
            continue
        count = int(part["count"])
        alike = [f for f in files if f.endswith(f"-of-{part['count']}{Path(file).suffix}")]
        if len(alike) < count:
            raise ArtifactError(
                f"{name}: {len(alike)} of {count} parts are there ({file})",
                "run it again with the network there",
            )


def _cached(name: HubName) -> tuple[Path, list[str]] | None:
    """The folder of the commit that the cache holds under this name, and the names of all files of the repo (fetched or not)."""
    folder = models.cached(name)
    listed = folder.parent.parent / f"{NAMES}{folder.name}.json" if folder else None
    if folder is None or listed is None or not listed.is_file():
        return None
    return folder, [str(n) for n in json.loads(listed.read_text())]
