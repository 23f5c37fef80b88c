"""Text to measure on where none is given."""

from collections.abc import Iterable
from typing import Any

from onebase.data import Document


def reference() -> Iterable[Document]:
    """The Python language reference as `help()` shows it: text that every Python brings along."""
    from pydoc_data.topics import topics

    pages: dict[str, Any] = topics
    for name, text in pages.items():
        yield Document(str(text), "reference", licence="PSF-2.0", id=f"pydoc/{name}")
