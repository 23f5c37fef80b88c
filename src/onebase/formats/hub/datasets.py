"""Fetches datasets by their name on the Hugging Face Hub, `hf:org/name[@revision][:[config/]split]`: the files of one split, into the Hub's
own cache. Only data files are read; a dataset's code is never run.
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
"""File types with rows. If a split has several, the first one wins."""
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
"""Name prefix of the cached list of a commit's files: a split is complete if all of its files are there."""
_PART = re.compile(r"-(?P<no>\d{5})-of-(?P<count>\d{5})$")
_NOT_ROWS = frozenset({"dataset_infos.json", "dataset_dict.json", "state.json", "dataset_info.json"})

Splits = dict[str, list[str]]
"""Files by split, in order."""


def fetch(ref: str | Path) -> tuple[list[Path], dict[str, Any]]:
    """The files of a split, in order, and their source (repo, revision, files; config, split and licence if stated).

    If the Hub cannot be reached, the last complete copy in the cache is used, with a warning. Raises UserError for names that are missing or
    not allowed, DataError for a split that is missing or must be named.
    """
    name, config, split = parse(str(ref))
    models.library()
    try:
        commit, names = models.listed(name)
        folder = models.get(name, commit, [README]) if README in names else None
    except models.Unreachable as e:
        cached = _cached(name)
        folder, names = cached or (Path(), [])
        files = _chosen(name, names, folder, config, split) if cached else []
        if not files or not all((folder / n).is_file() for n in files):
            raise models.Unreachable(
                f"{name} is not complete in the cache, and {e.cause}", e.remedy
            ) from None
        log.warning("%s; using commit %s from the cache", e.cause, folder.name)
        return [folder / n for n in files], _source(name, folder, files, config, split)
    files = _chosen(name, names, folder, config, split)
    folder = models.get(name, commit, files)
    models.note(name, files[-1])
    write_atomic(folder.parent.parent / f"{NAMES}{commit}.json", json.dumps(names).encode())
    return [folder / n for n in files], _source(name, folder, files, config, split)


def _source(
    name: HubName, folder: Path, files: Sequence[str], config: str | None, split: str | None
) -> dict[str, Any]:
    """The source of the rows, with the licence from the README."""
    licence = front_matter(folder).get("license")
    stated = {"config": config, "split": split, "licence": licence if isinstance(licence, str) else None}
    known = {k: v for k, v in stated.items() if v is not None}
    return {"repo": name.repo, "revision": folder.name, "files": list(files), **known}


def parse(ref: str) -> tuple[HubName, str | None, str | None]:
    """(repo and revision, config, split). Raises UserError."""
    head, _, tail = ref.removeprefix(PREFIX).partition(":")
    name = parse_model(PREFIX + head)
    config, slash, split = tail.rpartition("/")
    if name.file or (slash and not config) or (":" in ref[len(PREFIX) :] and not split):
        raise DataError(f"{ref!r} is not a dataset name", "write hf:org/name or hf:org/name:split")
    return replace(name, kind="dataset"), config or None, split or None


def splits_of(names: Sequence[str]) -> Splits:
    """Files by the split in their names: `data/train-00000-of-00002.parquet`, `train.jsonl`, `test/a.csv`. Without any split: `train`."""
    found: dict[str, dict[str, list[str]]] = {}
    plain: dict[str, list[str]] = {}
    for name in sorted(names):
        path = Path(name)
        if path.suffix.lower() not in ENDINGS or path.name in _NOT_ROWS or name.startswith("."):
            continue
        # The file's own name counts before its folders.
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
    """Files by split from the front matter of the README; {} if it has none. Raises DataError for a config that must be named."""
    listed = front.get("configs")
    configs = listed if isinstance(listed, list) else []
    stated = [c for c in configs if isinstance(c, dict) and isinstance(c.get("data_files"), (str, list))]
    by_name = {str(c.get("config_name", "default")): c for c in stated}
    if config is not None and config not in by_name:
        raise DataError(
            f"{name} has no config {config!r}",
            f"it has: {', '.join(by_name) or 'none in its README'}",
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
    """Does a file match a glob? `**` crosses folders, `*` does not."""
    deep = re.split(r"(\*\*/?)", pattern)
    regex = "".join(
        "(?:.*/)?" if part == "**/" else ".*" if part == "**" else _shallow(part) for part in deep
    )
    return re.fullmatch(regex, name) is not None


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
    """The files of the requested split. Raises DataError."""
    splits = stated_splits(name, front_matter(folder), names, config) or splits_of(names)
    splits = {k: v for k, v in splits.items() if v}
    if not splits:
        scripts = [n for n in names if n.endswith(".py")]
        raise DataError(
            f"{name} has no files with rows"
            + (f", only a script ({scripts[0]}), which is not run" if scripts else ""),
            f"accepted file types: {', '.join(ENDINGS)}",
        )
    if split is None and len(splits) > 1:
        raise DataError(
            f"{name} has the splits {', '.join(splits)}", f"name one: hf:{name.repo}:{next(iter(splits))}"
        )
    chosen = split or next(iter(splits))
    if chosen not in splits:
        raise DataError(f"{name} has no split {chosen!r}", f"it has: {', '.join(splits)}")
    files = splits[chosen]
    odd = next((n for n in files if not n.lower().endswith(ENDINGS)), None)
    if odd is not None:
        raise DataError(
            f"{name}: the split {chosen} is in {odd}", f"accepted file types: {', '.join(ENDINGS)}"
        )
    _check_parts(name, files)
    return files


def _check_parts(name: HubName, files: Sequence[str]) -> None:
    """Raise ArtifactError if some parts of a file are missing."""
    for file in files:
        part = _PART.search(Path(file).stem)
        if part is None:
            continue
        count = int(part["count"])
        alike = [f for f in files if f.endswith(f"-of-{part['count']}{Path(file).suffix}")]
        if len(alike) < count:
            raise ArtifactError(
                f"{name}: only {len(alike)} of {count} parts are there ({file})",
                "run it again with network access",
            )


def _cached(name: HubName) -> tuple[Path, list[str]] | None:
    """The folder of the cached commit of this name, and the names of all files of the repo (fetched or not)."""
    folder = models.cached(name)
    listed = folder.parent.parent / f"{NAMES}{folder.name}.json" if folder else None
    if folder is None or listed is None or not listed.is_file():
        return None
    return folder, [str(n) for n in json.loads(listed.read_text())]
