"""Sites by pattern: a last word (`q`), the end of a name (`attn.q`), a whole name, or a glob of these (`text.*.attn.q`, `text.[0-3].*`)."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

T = TypeVar("T")


def fits(site: str, pattern: str) -> bool:
    """Does the pattern mean this site? `*` stands for any text (dots too), `?` for one character, `[0-3]` for one of some."""
    return fnmatchcase(site, pattern) or fnmatchcase(site, "*." + pattern)


def value_at(table: Mapping[str, T] | None, site: str, default: T) -> T:
    """The value of the longest pattern that means this site (of equally long ones the first by alphabet): the order of the table
    means nothing, for fingerprints do not know it."""
    found = [p for p in table or () if fits(site, p)]
    return table[min(found, key=lambda p: (-len(p), p))] if table and found else default


def worded(chosen: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The shortest way to name the chosen sites: none for all, last words where they mean no others, else whole names."""
    if set(chosen) == set(known):
        return ()
    words = sorted({s.rsplit(".", 1)[-1] for s in chosen})
    meant = {s for s in known if s.rsplit(".", 1)[-1] in words}
    return tuple(words) if meant == set(chosen) else tuple(sorted(chosen))


def exceptions(values: Mapping[str, T], common: T) -> dict[str, T] | None:
    """A table for `value_at`: the sites whose value is not the common one; None where there is none."""
    return {s: v for s, v in values.items() if v != common} or None
