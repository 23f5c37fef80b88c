"""Filters and tests of chat templates. Each is charged for its input and output, and sees the original text of messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from onebase.modality.text.budget import ELEMENT, VIEW_TYPES, TooMuch, charge, weigh
from onebase.modality.text.guard import Guard, Guarded, guarded

_BITS = 4096
_WORDS = (
    "capitalize count d default first float indent int length lower replace reverse string title trim upper"
)
"""Filters that take a string as a whole; the others iterate over its characters."""
FILTERS = (
    f"{_WORDS} abs attr dictsort groupby items join last list map max min reject rejectattr round select selectattr sort sum unique"
).split()


def filters_of(available: Mapping[str, Callable[..., Any]], guard: Guard) -> dict[str, Callable[..., Any]]:
    """The subset of jinja2's filters that templates may use."""
    return {name: _filter(name, available[name], guard) for name in FILTERS} | {
        "tojson": _tojson(guard),
        "safe": _identity,
    }


def tests_of(available: Mapping[str, Callable[..., Any]], guard: Guard) -> dict[str, Callable[..., Any]]:
    """jinja2's tests, charged to the budget."""
    return {name: _test(test, guard) for name, test in available.items()}


def check_number(operator: str, a: int, b: int) -> None:
    """Raise TooMuch before a product or power with thousands of digits is computed."""
    bits = {"*": a.bit_length() + b.bit_length(), "**": a.bit_length() * max(1, b)}.get(operator, 0)
    if bits > _BITS:
        raise TooMuch("the template computes a number of more than a thousand digits")


def longest(values: Sequence[Any]) -> int:
    """Length of the longest string among these."""
    return max((len(v) for v in values if isinstance(v, (str, bytes))), default=0)


def _filter(name: str, work: Callable[..., Any], guard: Guard) -> Callable[..., Any]:
    """A filter that is charged for its input and output, and returns a list where jinja2 returns a generator."""
    passes = int(getattr(work, "jinja_pass_arg", None) is not None)

    def run(*args: Any, **kwargs: Any) -> Any:
        values = [*args[passes:], *kwargs.values()]
        size = weigh(*values)
        if values and isinstance(values[0], str) and name not in _WORDS.split():
            charge(ELEMENT * len(values[0]))
        if name == "replace":
            charge((len(str(values[0])) + 1) * longest(values[2:3]))
        elif name == "join":
            charge(size + (size // ELEMENT) * longest(values[1:2]))
        elif name == "indent":
            width = next((v for v in values[1:] if isinstance(v, (int, str)) and not isinstance(v, bool)), 4)
            charge((1 + str(values[0]).count("\n")) * (width if isinstance(width, int) else len(width)))
        elif name in ("sort", "dictsort", "groupby", "unique"):
            charge(size * size.bit_length())
        elif name == "round":
            check_number(
                "**", 10, abs(int(values[1])) if len(values) > 1 and isinstance(values[1], int) else 1
            )
        elif name == "sum":
            charge(
                size * (size // ELEMENT if any(isinstance(v, (str, list, tuple)) for v in values[2:]) else 1)
            )
        result = _apply(name, work, guard, args, kwargs, passes)
        if isinstance(result, Iterator):
            result = _listed(result)
        weigh(result)
        return result

    run.__name__ = name
    if passes:
        run.jinja_pass_arg = work.jinja_pass_arg  # type: ignore[attr-defined]
    return run


_AS_METHODS = {"trim": "strip", "replace": "replace"}
_OF_NUMBERS = frozenset(("abs", "float", "int", "round", "sum"))
_OF_ORDER = frozenset(("max", "min", "sort", "unique"))


class _Shown(str):
    """Original text with a reference to its guarded form."""

    hidden: str


def _apply(
    name: str,
    work: Callable[..., Any],
    guard: Guard,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    passes: int,
) -> Any:
    """Run a filter, on the original text where it looks at characters."""
    subject = args[passes] if len(args) > passes else None
    if name == "string":
        return guard.written(subject)
    if name in _OF_NUMBERS:
        return work(*args[:passes], *map(guard.plain, args[passes:]), **kwargs)
    if not guarded(*args[passes:], *kwargs.values()):
        return work(*args, **kwargs)
    if isinstance(subject, str):
        if name in _AS_METHODS:
            rest = [*args[passes + 1 :], *kwargs.values()]
            return guard.call(_AS_METHODS[name], subject, [x for x in rest if x is not None], {})
        if name in ("capitalize", "lower", "title", "upper"):
            return guard.like(subject, work(*args[:passes], guard.show(subject)))
        if name == "indent":
            return guard.hide(work(*args[:passes], *map(guard.plain, args[passes:]), **kwargs))
    if name in _OF_ORDER and isinstance(subject, (list, tuple)) and all(isinstance(x, str) for x in subject):
        shown = [_Shown(guard.show(x)) for x in subject]
        for a, b in zip(shown, subject, strict=True):
            a.hidden = b
        result = work(*args[:passes], shown, *args[passes + 1 :], **kwargs)
        return result.hidden if isinstance(result, _Shown) else [x.hidden for x in result]
    return work(*args, **kwargs)


def _identity(value: Any) -> Any:
    return value


def _listed(values: Iterator[Any]) -> list[Any]:
    out = []
    for value in values:
        charge(ELEMENT)
        out.append(value)
    return out


def _test(work: Callable[..., Any], guard: Guard) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        weigh(*(a for a in args if isinstance(a, VIEW_TYPES)))
        return work(*(guard.plain(a) if guarded(a) or isinstance(a, Guarded) else a for a in args))

    if getattr(work, "jinja_pass_arg", None) is not None:
        run.jinja_pass_arg = work.jinja_pass_arg  # type: ignore[attr-defined]
    return run


def _tojson(guard: Guard) -> Callable[..., str]:
    def run(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """JSON as transformers' templates expect it: no HTML escapes, no ASCII escapes."""
        width = indent if isinstance(indent, int) else len(indent or "")
        if width > 64:
            raise TooMuch("the template indents JSON by more than 64 characters")
        size = weigh(value)
        charge(size * (1 + width))
        shown = guard.plain(value)
        text = json.dumps(
            shown, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        return text if shown == value else guard.hide(text)

    return run
