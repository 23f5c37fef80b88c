"""Site patterns: a last word (`q`), the end of a name (`attn.q`), a full name, or a glob of these (`text.*.attn.q`, `text.[0-3].*`)."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

T = TypeVar("T")


def fits(site: str, pattern: str) -> bool:
    """Whether the pattern matches this site. `*` matches any text (dots too), `?` one character, `[0-3]` one of a set."""
    return fnmatchcase(site, pattern) or fnmatchcase(site, "*." + pattern)


def value_at(table: Mapping[str, T] | None, site: str, default: T) -> T:
    """The value of the longest pattern that matches this site (of equally long ones, the first alphabetically). The order of the table has
    no effect, because fingerprints do not contain it."""
    matches = [p for p in table or () if fits(site, p)]
    return table[min(matches, key=lambda p: (-len(p), p))] if table and matches else default


def worded(chosen: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The shortest patterns for the chosen sites: none for all, last words where they match no other sites, else full names."""
    if set(chosen) == set(known):
        return ()
    words = sorted({s.rsplit(".", 1)[-1] for s in chosen})
    meant = {s for s in known if s.rsplit(".", 1)[-1] in words}
    return tuple(words) if meant == set(chosen) else tuple(sorted(chosen))


def exceptions(values: Mapping[str, T], common: T) -> dict[str, T] | None:
    """A table for `value_at`: the sites whose value differs from the common one; None if there are none."""
    return {s: v for s, v in values.items() if v != common} or None
