"""What a published model or data set says of itself: the front matter of its README, the training data that sentence-transformers notes, and
`general.*` of a GGUF file. It is what the source claims, and enters the record as such.
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
"""Characters of a text, and entries of a list, that a record takes from a source."""
SIZE = 8_000_000
"""Bytes of a file beyond which it is no card."""
PLAIN_NAMES = re.compile(
    r"(model|models|base|checkpoint|ckpt|weights|export|exported|output|out|final|best|latest|hf|gguf|main|data|tmp|snapshot)([-_. ]?\d+)?|[0-9a-f]{7,64}",
    re.IGNORECASE,
)
"""Names of folders and files that say nothing of what is inside."""
_KEYS = {
    "license": "licence",
    "license_name": "licence_name",
    "license_link": "licence_link",
    "datasets": "data.datasets",
    "base_model": "made_from",
    "language": "language",
    "tags": "tags",
}
"""Keys of a front matter that a record keeps, and the fields there."""
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
"""Where a GGUF file says it is from, the first that is there."""


def front_matter(folder: Path | None) -> Mapping[str, Any]:
    """The YAML that a README begins with; {} where there is none that can be read."""
    import yaml

    from onebase.yamls import loader

    path = None if folder is None else folder / README
    if path is None or not path.is_file() or path.stat().st_size > SIZE:
        return {}
    found = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|$)", path.read_text("utf-8", "replace"), re.DOTALL)
    try:
        read = yaml.load(found[1], Loader=loader()) if found else {}  # our loader is a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError, UserError) as e:
        first = (str(e).strip().splitlines() or [""])[0][:200]
        log.warning("%s: its front matter cannot be read: %s", README, first or type(e).__name__)
        return {}
    return read if isinstance(read, dict) else {}


def note_card(record: Record, folder: Path) -> None:
    """Note what a folder says of its model (or adapter). Where it says nothing of the data, that is noted as not known."""
    front = front_matter(folder)
    for key, field in _KEYS.items():
        if (value := _said(front.get(key))) is not None:
            record.add(field, value, f"{Origin.SOURCE}: {README}, {key}")
    if (found := _trained_on(folder / TRAINED_ON)) is not None:
        record.add("data.trained_on", found, f"{Origin.SOURCE}: {TRAINED_ON}, files and lines by folder")
    _note_unknown(record, "the source does not say what the weights learnt from")


def note_general(record: Record, metadata: Mapping[str, Any]) -> None:
    """Note what the metadata of a GGUF file say of its model."""
    said = {k.removeprefix("general."): v for k, v in metadata.items() if k.startswith("general.")}
    for key, field in _GENERAL.items():
        if (value := _said(said.get(key))) is not None:
            record.add(field, value, f"{Origin.SOURCE}: general.{key}")
    for key in [k for k in _SOURCES if _said(said.get(k)) is not None][:1]:
        record.add("source", _said(said[key]), f"{Origin.SOURCE}: general.{key}")
    for part, field in (("base_model", "made_from"), ("dataset", "data.datasets")):
        if names := _numbered(said, part):
            record.add(field, names, f"{Origin.SOURCE}: general.{part}.*")
    _note_unknown(record, "the file does not say what the weights learnt from")


def called(folder_name: str, *said: Callable[[], object]) -> tuple[str, str]:
    """What a model is called, and the origin of that: by its folder or file, or where that says nothing ("model") by the first name that it gives
    itself."""
    if PLAIN_NAMES.fullmatch(folder_name):
        for ask in said:
            name = ask()
            if isinstance(name, str):
                last = name.strip().rstrip("/").rsplit("/", 1)[-1][:LONGEST]
                if last.isprintable() and last and not PLAIN_NAMES.fullmatch(last):
                    return last, f"{Origin.SOURCE}: what it calls itself"
    return folder_name, f"{Origin.SOURCE}: its name"


def title(folder: Path) -> str | None:
    """The name that a README has as its heading, where that is a name: one word."""
    path = folder / README
    if not path.is_file() or path.stat().st_size > SIZE:
        return None
    found = re.search(r"^#\s+(\S+)\s*$", path.read_text("utf-8", "replace"), re.MULTILINE)
    return found[1].strip("*`_") if found else None


def _said(value: Any) -> str | list[str] | None:
    """A text, or a list of them, of a length that a record takes; None for all else."""
    if isinstance(value, str):
        return value.strip()[:LONGEST] or None
    if isinstance(value, list):
        return [x.strip()[:LONGEST] for x in value[:MOST] if isinstance(x, str) and x.strip()] or None
    return None


def _numbered(said: Mapping[str, Any], part: str) -> list[str]:
    """The names of `general.base_model.0.name` and so on, each with its organisation."""
    out = []
    for i in range(MOST):
        if (name := _said(said.get(f"{part}.{i}.name"))) is None:
            break
        whose = _said(said.get(f"{part}.{i}.organization"))
        out.append(f"{whose}/{name}" if whose else str(name))
    return out


def _trained_on(path: Path) -> dict[str, dict[str, int]] | None:
    """Files and lines of training data by their first folder (or file), as sentence-transformers notes them; None where there are none."""
    if not path.is_file() or path.stat().st_size > SIZE:
        return None
    try:
        read = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        log.warning("%s cannot be read as JSON: it is not in the record", path)
        return None
    out: dict[str, dict[str, int]] = {}
    for entry in read if isinstance(read, list) else []:
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
