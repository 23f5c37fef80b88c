"""What is in a message stays text, and a template sees it as it is: letters of special tokens are written as others while Jinja runs.

Every letter of a message that stands in the name of any special token becomes a lone surrogate, one for one. No text has those, so it can
be undone; and a special token in what a template wrote, all of whose letters are plain, was written by the template itself, whatever was
cut, joined or turned round on the way. Lengths and places are those of the message. What looks at letters (comparisons, searches, cuts,
capitals) is done on the text as it is, and cut out of the guarded one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from onebase.codec.text.valid import not_text

FIRST, MANY = 0xD800, 0x800
_HIDDEN = re.compile("[\ud800-\udfff]")
_CASES = frozenset(("capitalize", "lower", "swapcase", "title", "upper"))
_ASKS = frozenset(
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
    """A map out of a message. Its keys are guarded, and found by the names as they are."""

    show: Callable[[str], str]

    def __missing__(self, key: Any) -> Any:
        found = next((k for k in self if isinstance(k, str) and self.show(k) == key), None)
        if found is None:
            raise KeyError(key)
        return self[found]

    def get(self, key: Any, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default


class Guard:
    """Writes texts guarded and back. names: of special tokens; more: letters that mean something in what a template writes."""

    def __init__(self, names: Iterable[str], more: str = "") -> None:
        letters = sorted({c for name in names for c in name} | set(more))
        assert len(letters) <= MANY, "more letters in special tokens than there are surrogates"
        self._there = {ord(c): FIRST + i for i, c in enumerate(letters)}
        self._back = {v: k for k, v in self._there.items()}

    def hide(self, text: str) -> str:
        """The text guarded."""
        return text.translate(self._there)

    def show(self, text: str) -> str:
        """The text as it is."""
        return text.translate(self._back) if _HIDDEN.search(text) else text

    def guarded(self, value: Any) -> Any:
        """A value of a message, with every text in it guarded. Raises DataError for one that is no Unicode."""
        if isinstance(value, str):
            if _HIDDEN.search(value):
                raise not_text(value)
            return self.hide(value)
        if isinstance(value, Mapping):
            made = Guarded({self.guarded(k): self.guarded(v) for k, v in value.items()})
            made.show = self.show
            return made
        return [self.guarded(v) for v in value] if isinstance(value, (list, tuple)) else value

    def plain(self, value: Any) -> Any:
        """A value with every text in it as it is."""
        if isinstance(value, str):
            return self.show(value)
        if isinstance(value, dict):
            return {self.plain(k): self.plain(v) for k, v in value.items()}
        if type(value) in (list, tuple, set, frozenset):
            return type(value)(self.plain(v) for v in value)
        return value

    def written(self, value: Any) -> str:
        """A value as it is printed: what is no text is written out as it is, and guarded if a part of it was."""
        if isinstance(value, str):
            return str(value)
        text, shown = str(value), self.plain(value)
        return text if shown is value or shown == value else self.hide(str(shown))

    def call(self, name: str, text: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """A method of a guarded text, or of one that is given guarded ones."""
        shown, given = self.show(text), [self.plain(a) for a in args]
        made = getattr(shown, name)
        if name in _ASKS:
            return made(*given, **kwargs)
        if name in _CASES:
            return self.like(text, made())
        if name in ("strip", "lstrip", "rstrip"):
            left = 0 if name == "rstrip" else len(shown) - len(shown.lstrip(*given))
            return text[left : left + len(made(*given))]
        if name == "removeprefix":
            return text[len(text) - len(made(*given)) :]
        if name == "removesuffix":
            return text[: len(made(*given))]
        if name in ("partition", "rpartition"):
            return tuple(_cut(text, [len(p) for p in made(*given)]))
        if name == "splitlines":
            whole = _cut(text, [len(p) for p in shown.splitlines(True)])
            return [w[: len(p)] for w, p in zip(whole, made(*given, **kwargs), strict=True)]
        if name in ("split", "rsplit"):
            sep = given[0] if given else self.plain(kwargs.get("sep"))
            return _found(text, shown, made(*given, **{k: self.plain(v) for k, v in kwargs.items()}), sep)
        if name == "replace":
            return _replaced(text, shown, given[0], *args[1:], **kwargs)
        return getattr(text, name)(*args, **kwargs)

    def like(self, text: str, made: str) -> str:
        """What was made of the letters of a text, guarded where that was."""
        if len(made) != len(text):
            return self.hide(made)
        return "".join(self.hide(b) if _HIDDEN.match(a) else b for a, b in zip(text, made, strict=True))


def guarded(*values: Any) -> bool:
    """Is a text in one of these values (or in a list of them) guarded?"""
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


def _found(text: str, shown: str, parts: Sequence[str], sep: str | None) -> list[str]:
    """The parts that `shown` was split into by `sep` (None: white space), out of `text`."""
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
