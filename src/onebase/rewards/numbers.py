"""Parses numbers as people and models write them: signs, digits and separators of all keyboards and scripts."""

import re
import unicodedata
from decimal import Decimal

MINUS = "\u2212\ufe63\uff0d\u2010\u2011\u2012\u2013"
"""Characters used as a minus: the sign itself, its narrow and wide forms, hyphens and dashes."""
_PLAIN = {ord(c): "-" for c in MINUS} | {
    ord(c): plain
    for c, plain in (
        ("\uff0b", "+"),
        ("\ufe62", "+"),
        ("\uff0e", "."),
        ("\uff0c", ","),
        ("\u066b", "."),
        ("\u066c", ","),
    )
}
_GAPS = ",_'\u2019\u00a0\u2009\u202f"
"""Separators of digit groups: a comma, an apostrophe, a non-breaking space (and Python's underscore)."""
_HALVES = "\u00bc\u00bd\u00be\u2150\u2151\u2152\u2153\u2154\u2155\u2156\u2157\u2158\u2159\u215a\u215b\u215c\u215d\u215e"
"""Fractions that are a single character, such as one half."""
# A sign after a digit, a letter or a bracket is a subtraction (3-5) or a dash.
NUMBER = re.compile(
    rf"(?:(?<![\w)\]%])[-+])?"
    rf"(?:\d{{1,3}}(?:[{_GAPS}]\d{{2,3}})*[{_GAPS}]\d{{3}}(?!\d)|\d+|(?=\.\d|[{_HALVES}]))"
    rf"(?:[{_HALVES}]|(?:\.\d+)?(?:[eE][-+]?\d+)?)"
)


def last_number(text: str) -> Decimal | None:
    """The value of the last number in a text; None without one."""
    found = NUMBER.findall(_plain(text))
    return _value(found[-1]) if found else None


def number_of(text: str) -> Decimal | None:
    """The value of a text that is only a number; None for any other text."""
    plain = _plain(text.strip())
    plain = plain[:-1] if plain.endswith(".") else plain
    return _value(plain) if NUMBER.fullmatch(plain) else None


def _plain(text: str) -> str:
    """Replace decimal digits of all scripts by 0 to 9, and variants of signs by - + . and a comma."""
    text = text.translate(_PLAIN)
    return (
        text
        if text.isascii()
        else "".join(str(d) if (d := unicodedata.decimal(c, None)) is not None else c for c in text)
    )


def _value(text: str) -> Decimal:
    digits = text.translate(dict.fromkeys(map(ord, _GAPS)))
    if text[-1] not in _HALVES:
        return Decimal(digits)
    over, under = map(Decimal, unicodedata.normalize("NFKC", text[-1]).split("\u2044"))
    whole = Decimal(digits[:-1] if digits[:-1].strip("+-") else "0")
    return whole - over / under if text.startswith("-") else whole + over / under
