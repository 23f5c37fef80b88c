"""File names in a Hugging Face folder, and a safe reader of its JSON. Nothing here needs torch."""

import json
from pathlib import Path
from typing import Any

from onebase.errors import ArtifactError
from onebase.formats.hf.unsupported import pointer

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_JSON = 64 * 2**20
"""A config or an index has some kilobytes; larger files are not read."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON map of at most MAX_JSON bytes. Raises ArtifactError with the file."""
    try:
        if path.stat().st_size > MAX_JSON:
            raise ArtifactError(
                f"{path} has {path.stat().st_size:,} bytes", f"at most {MAX_JSON:,} are read as JSON"
            )
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing", "take an intact copy of the folder") from None
    except (OSError, ValueError, RecursionError) as e:
        raise pointer(path) or ArtifactError(
            f"{path} is not JSON: {e}", "take an intact copy of the folder"
        ) from None
    if not isinstance(tree, dict):
        raise ArtifactError(f"{path} is not a JSON map", "take an intact copy of the folder")
    return tree
