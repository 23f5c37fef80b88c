"""Split a text of any script into words, for the metrics and baselines."""

import re
import sys
import unicodedata
from functools import cache

_SPACELESS = (
    r"\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\uaa60-\uaa7f\u3041-\u3096\u30a1-\u30fa\u31f0-\u31ff"
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana and Chinese characters."""


@cache
def inside() -> str:
    """Characters that continue a word but do not begin one, as a regular expression class: combining marks, which Python's `re` treats as the end
    of a word (Hindi vowels, for example), and zero-width joiners and non-joiners."""
    out, start = [r"\u200c\u200d"], -1
    for code in range(0x300, sys.maxunicode + 2):
        mark = code <= sys.maxunicode and unicodedata.category(chr(code))[0] == "M"
        if mark and start < 0:
            start = code
        elif not mark and start >= 0:
            out.append(rf"\U{start:08x}-\U{code - 1:08x}")
            start = -1
    return "".join(out)


@cache
def _word() -> re.Pattern[str]:
    alone, marks = f"[{_SPACELESS}]", f"[{inside()}]"
    letter = rf"(?!{alone})[^\W_]"
    return re.compile(f"{alone}{marks}*|{letter}(?:{letter}|{marks})*")


def words(text: str) -> list[str]:
    """Lower-case NFC runs of letters with their marks, and digits; in scripts without spaces each letter with its marks is a word."""
    return _word().findall(unicodedata.normalize("NFC", text.lower()))
