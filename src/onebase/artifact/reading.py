"""Our own files read back: what is in them may have been changed since, and then they are named and nothing else happens."""

from __future__ import annotations

import contextlib
import json
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onebase.errors import ArtifactError, UserError

REMEDY = "take an intact copy of the folder, or make it again"
_UNFIT = (ValueError, KeyError, TypeError, IndexError, AttributeError, EOFError, OverflowError, RecursionError, RuntimeError, MemoryError, SyntaxError, tokenize.TokenError)  # fmt: skip
"""What Python, numpy (whose headers are read by Python's own tokenizer) and torch say of content that does not fit. No OSError: a disk that
fails is another matter."""


def read_json(path: Path, *keys: str, remedy: str = REMEDY) -> dict[str, Any]:
    """The object in a JSON file that we wrote. Raises ArtifactError where it cannot be read, is no JSON object, or lacks one of `keys`."""
    try:
        found = json.loads(path.read_bytes())
    except OSError as e:
        raise ArtifactError(f"{path} cannot be read: {e.strerror or e}", remedy) from None
    except (ValueError, RecursionError) as e:  # UnicodeDecodeError is a ValueError
        raise ArtifactError(f"{path} is changed since it was written: not valid JSON ({e})", remedy) from None
    if not isinstance(found, dict):
        raise ArtifactError(f"{path} is changed since it was written: no JSON object", remedy)
    for key in keys:
        if key not in found:
            raise ArtifactError(f"{path} is changed since it was written: it has no '{key}'", remedy)
    return found


@contextlib.contextmanager
def understood(path: Path, remedy: str = REMEDY) -> Iterator[None]:
    """Around making something of what stands in `path`: content that does not fit becomes ArtifactError naming the file."""
    try:
        yield
    except UserError:
        raise
    except _UNFIT as e:
        what = f"{type(e).__name__}: {e}" if str(e) else type(e).__name__
        raise ArtifactError(f"{path} does not hold what onebase writes there ({what})", remedy) from None
