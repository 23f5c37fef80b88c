"""Reads what a published model or dataset states about itself: the front matter of its README, the training data listed by
sentence-transformers, and `general.*` of a GGUF file. The record marks these facts as claims of the source.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from onebase.artifact.record import Origin, Record
from onebase.errors import UserError

log = logging.getLogger(__name__)

README, TRAINED_ON = "README.md", "data_config.json"
LONGEST, MOST = 500, 200
"""Maximum characters of a text, and entries of a list, that a record takes from a source."""
SIZE = 8_000_000
"""Larger files, in bytes, are not read as cards."""
PLAIN_NAMES = re.compile(
    r"(model|models|base|checkpoint|ckpt|weights|export|exported|output|out|final|best|latest|hf|gguf|main|data|tmp|snapshot)([-_. ]?\d+)?|[0-9a-f]{7,64}",
    re.IGNORECASE,
)
"""Generic names of folders and files, which do not identify the model."""
_KEYS = {
    "license": "licence",
    "license_name": "licence_name",
    "license_link": "licence_link",
    "datasets": "data.datasets",
    "base_model": "made_from",
    "language": "language",
    "tags": "tags",
}
"""Keys of the front matter that a record takes, and their fields in it."""
_GENERAL = {
    "license": "licence",
    "license.name": "licence_name",
    "license.link": "licence_link",
    "author": "author",
    "organization": "organisation",
    "languages": "language",
    "tags": "tags",
    "datasets": "data.datasets",
}
_SOURCES = ("source.url", "source.repo_url", "source.huggingface.repository", "url", "repo_url")
"""Keys of the source in a GGUF file; the first that is there counts."""


def front_matter(folder: Path | None) -> Mapping[str, Any]:
    """The YAML at the start of a README; {} if there is none or it cannot be read."""
    import yaml

    from onebase.yamls import loader

    path = None if folder is None else folder / README
    if path is None or not path.is_file() or path.stat().st_size > SIZE:
        return {}
    match = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|$)", path.read_text("utf-8", "replace"), re.DOTALL)
    try:
        tree = yaml.load(match[1], Loader=loader()) if match else {}  # our loader is a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError, UserError) as e:
        first = (str(e).strip().splitlines() or [""])[0][:200]
        log.warning("%s: front matter cannot be read: %s", README, first or type(e).__name__)
        return {}
    return tree if isinstance(tree, dict) else {}


def note_card(record: Record, folder: Path) -> None:
    """Record what a folder states about its model or adapter. If it does not state the data, they are recorded as unknown."""
    front = front_matter(folder)
    for key, field in _KEYS.items():
        if (value := _text(front.get(key))) is not None:
            record.add(field, value, f"{Origin.SOURCE}: {README}, {key}")
    if (data := _trained_on(folder / TRAINED_ON)) is not None:
        record.add("data.trained_on", data, f"{Origin.SOURCE}: {TRAINED_ON}, files and lines by folder")
    _note_unknown(record, "the source does not say what the weights learnt from")


def note_general(record: Record, metadata: Mapping[str, Any]) -> None:
    """Record what the metadata of a GGUF file state about its model."""
    general = {k.removeprefix("general."): v for k, v in metadata.items() if k.startswith("general.")}
    for key, field in _GENERAL.items():
        if (value := _text(general.get(key))) is not None:
            record.add(field, value, f"{Origin.SOURCE}: general.{key}")
    for key in [k for k in _SOURCES if _text(general.get(k)) is not None][:1]:
        record.add("source", _text(general[key]), f"{Origin.SOURCE}: general.{key}")
    for part, field in (("base_model", "made_from"), ("dataset", "data.datasets")):
        if names := _numbered(general, part):
            record.add(field, names, f"{Origin.SOURCE}: general.{part}.*")
    _note_unknown(record, "the file does not say what the weights learnt from")


def called(folder_name: str, *own_names: Callable[[], object]) -> tuple[str, str]:
    """A model's name and the origin of the name: the folder or file name, or if that is generic ("model"), its first usable own name."""
    if PLAIN_NAMES.fullmatch(folder_name):
        for own_name in own_names:
            name = own_name()
            if isinstance(name, str):
                last = name.strip().rstrip("/").rsplit("/", 1)[-1][:LONGEST]
                if last.isprintable() and last and not PLAIN_NAMES.fullmatch(last):
                    return last, f"{Origin.SOURCE}: what it calls itself"
    return folder_name, f"{Origin.SOURCE}: its name"


def title(folder: Path) -> str | None:
    """The heading of a README if it is a name (one word)."""
    path = folder / README
    if not path.is_file() or path.stat().st_size > SIZE:
        return None
    match = re.search(r"^#\s+(\S+)\s*$", path.read_text("utf-8", "replace"), re.MULTILINE)
    return match[1].strip("*`_") if match else None


def _text(value: Any) -> str | list[str] | None:
    """A text or a list of texts, truncated for a record; None for other values."""
    if isinstance(value, str):
        return value.strip()[:LONGEST] or None
    if isinstance(value, list):
        return [x.strip()[:LONGEST] for x in value[:MOST] if isinstance(x, str) and x.strip()] or None
    return None


def _numbered(general: Mapping[str, Any], part: str) -> list[str]:
    """The names of `general.base_model.0.name` and so on, each with its organisation."""
    out = []
    for i in range(MOST):
        if (name := _text(general.get(f"{part}.{i}.name"))) is None:
            break
        owner = _text(general.get(f"{part}.{i}.organization"))
        out.append(f"{owner}/{name}" if owner else str(name))
    return out


def _trained_on(path: Path) -> dict[str, dict[str, int]] | None:
    """Files and lines of training data by their first folder (or file), from the list of sentence-transformers; None if there is none."""
    if not path.is_file() or path.stat().st_size > SIZE:
        return None
    try:
        tree = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        log.warning("%s cannot be read as JSON and is not recorded", path)
        return None
    out: dict[str, dict[str, int]] = {}
    for entry in tree if isinstance(tree, list) else []:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            continue
        group, lines = (
            out.setdefault(name.split("/")[0][:LONGEST], {"files": 0, "lines": 0}),
            entry.get("lines"),
        )
        group["files"] += 1
        group["lines"] += lines if isinstance(lines, int) else 0
    return out or None


def _note_unknown(record: Record, why: str) -> None:
    if not any(e.field.startswith("data.") for e in record.events):
        record.add("data", None, f"{Origin.UNKNOWN}: {why}")
