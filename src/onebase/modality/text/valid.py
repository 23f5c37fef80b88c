"""What counts as text: Unicode that UTF-8 can write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onebase.errors import DataError


def checked(texts: Iterable[str]) -> Iterator[str]:
    """The texts, unchanged. Raises DataError at the first that is not valid text."""
    for text in texts:
        if not is_unicode(text):
            raise not_text(text)
        yield text


def is_unicode(text: object) -> bool:
    """Whether it is a str that UTF-8 can encode."""
    if not isinstance(text, str):
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def not_text(text: object) -> DataError:
    """The error for a value that is not valid text."""
    if isinstance(text, str):
        at = next(i for i, c in enumerate(text) if 0xD800 <= ord(c) <= 0xDFFF)
        return DataError(
            f"the text has a lone surrogate at character {at}, so it is not valid Unicode",
            "decode the source as UTF-8, or remove the surrogate",
        )
    return DataError(f"expected a text, got {type(text).__name__}", "give str values")
