"""Plain trees of dicts and lists, as configs and JSON files hold them."""

from collections.abc import Iterator, Mapping
from typing import Any


def differences(a: Any, b: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two trees differ: (key as `part.sub.0`, value in `a`, value in `b`), in the order of keys. A missing key is None."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for k in sorted(a.keys() | b.keys()):
            yield from differences(a.get(k), b.get(k), f"{key}.{k}" if key else str(k))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from differences(x, y, f"{key}.{i}")
    elif a != b:
        yield key, a, b
