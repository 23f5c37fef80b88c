"""Keeps special tokens in messages as plain text: while Jinja runs, the characters of special tokens are replaced in messages.

Every character of a message that occurs in the name of any special token becomes a lone surrogate, one for one. No valid text has those, so
the replacement can be undone. A special token in the output whose characters are all plain was therefore written by the template itself,
however strings were cut, joined or reversed. Lengths and offsets stay those of the message. Operations that look at characters
(comparison, search, split, case) run on the original text, and their result is cut out of the guarded one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from onebase.modality.text.valid import not_text

FIRST, SURROGATES = 0xD800, 0x800
_HIDDEN = re.compile("[\ud800-\udfff]")
_CASES = frozenset(("capitalize", "lower", "swapcase", "title", "upper"))
_QUERIES = frozenset(
    (
        *("count", "endswith", "find", "index", "rfind", "rindex", "startswith"),
        *(
            "isalnum",
            "isalpha",
            "isdecimal",
            "isdigit",
            "islower",
            "isnumeric",
            "isspace",
            "istitle",
            "isupper",
        ),
    )
)


class Guarded(dict[Any, Any]):
    """A dict out of a message. Its keys are guarded, and are looked up by their original names."""

    show: Callable[[str], str]

    def __missing__(self, key: Any) -> Any:
        match = next((k for k in self if isinstance(k, str) and self.show(k) == key), None)
        if match is None:
            raise KeyError(key)
        return self[match]

    def get(self, key: Any, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default


class Guard:
    """Replaces characters and restores them. names: of special tokens; more: further characters with a meaning in the output."""

    def __init__(self, names: Iterable[str], more: str = "") -> None:
        letters = sorted({c for name in names for c in name} | set(more))
        assert len(letters) <= SURROGATES, "more characters in special tokens than there are surrogates"
        self._there = {ord(c): FIRST + i for i, c in enumerate(letters)}
        self._back = {v: k for k, v in self._there.items()}

    def hide(self, text: str) -> str:
        """The guarded form of a text."""
        return text.translate(self._there)

    def show(self, text: str) -> str:
        """The original form of a text."""
        return text.translate(self._back) if _HIDDEN.search(text) else text

    def guarded(self, value: Any) -> Any:
        """A value of a message with every string in it guarded. Raises DataError for a string that is not valid Unicode."""
        if isinstance(value, str):
            if _HIDDEN.search(value):
                raise not_text(value)
            return self.hide(value)
        if isinstance(value, Mapping):
            result = Guarded({self.guarded(k): self.guarded(v) for k, v in value.items()})
            result.show = self.show
            return result
        return [self.guarded(v) for v in value] if isinstance(value, (list, tuple)) else value

    def plain(self, value: Any) -> Any:
        """A value with every string in it in its original form."""
        if isinstance(value, str):
            return self.show(value)
        if isinstance(value, dict):
            return {self.plain(k): self.plain(v) for k, v in value.items()}
        if type(value) in (list, tuple, set, frozenset):
            return type(value)(self.plain(v) for v in value)
        return value

    def written(self, value: Any) -> str:
        """A value as printed. A value that is not a string is converted, and guarded if a part of it was."""
        if isinstance(value, str):
            return str(value)
        text, shown = str(value), self.plain(value)
        return text if shown is value or shown == value else self.hide(str(shown))

    def call(self, name: str, text: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a string method of `text`, where it or an argument is guarded."""
        shown, plain = self.show(text), [self.plain(a) for a in args]
        method = getattr(shown, name)
        if name in _QUERIES:
            return method(*plain, **kwargs)
        if name in _CASES:
            return self.like(text, method())
        if name in ("strip", "lstrip", "rstrip"):
            left = 0 if name == "rstrip" else len(shown) - len(shown.lstrip(*plain))
            return text[left : left + len(method(*plain))]
        if name == "removeprefix":
            return text[len(text) - len(method(*plain)) :]
        if name == "removesuffix":
            return text[: len(method(*plain))]
        if name in ("partition", "rpartition"):
            return tuple(_cut(text, [len(p) for p in method(*plain)]))
        if name == "splitlines":
            whole = _cut(text, [len(p) for p in shown.splitlines(True)])
            return [w[: len(p)] for w, p in zip(whole, method(*plain, **kwargs), strict=True)]
        if name in ("split", "rsplit"):
            sep = plain[0] if plain else self.plain(kwargs.get("sep"))
            return _split(text, shown, method(*plain, **{k: self.plain(v) for k, v in kwargs.items()}), sep)
        if name == "replace":
            return _replaced(text, shown, plain[0], *args[1:], **kwargs)
        return getattr(text, name)(*args, **kwargs)

    def like(self, text: str, changed: str) -> str:
        """`changed`, made from the characters of `text`, guarded where `text` was."""
        if len(changed) != len(text):
            return self.hide(changed)
        return "".join(self.hide(b) if _HIDDEN.match(a) else b for a, b in zip(text, changed, strict=True))


def guarded(*values: Any) -> bool:
    """Whether a string in these values (or in a list among them) is guarded."""
    return any(
        bool(_HIDDEN.search(v)) if isinstance(v, str) else isinstance(v, (list, tuple)) and guarded(*v)
        for v in values
    )


def _cut(text: str, sizes: Iterable[int]) -> list[str]:
    out, at = [], 0
    for size in sizes:
        out.append(text[at : at + size])
        at += size
    return out


def _split(text: str, shown: str, parts: Sequence[str], sep: str | None) -> list[str]:
    """The parts that `shown` was split into by `sep` (None: white space), cut out of `text`."""
    out, at = [], 0
    for part in parts:
        at = at if sep else shown.index(part, at)
        out.append(text[at : at + len(part)])
        at += len(part) + len(sep or "")
    return out


def _replaced(text: str, shown: str, old: str, new: str, count: int | None = None) -> str:
    if not old:
        return text.replace("", new, -1 if count is None else count)
    out, at, left = "", 0, -1 if count is None else count
    while left and (i := shown.find(old, at)) >= 0:
        out += text[at:i] + new
        at, left = i + len(old), left - 1
    return out + text[at:]
