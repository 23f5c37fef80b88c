"""Words of a text in any script, as the metrics and baselines take them."""

import re
import sys
import unicodedata
from functools import cache

_SPACELESS = (
    r"\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\uaa60-\uaa7f\u3041-\u3096\u30a1-\u30fa\u31f0-\u31ff"
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Scripts that write no space between words: Thai, Lao, Burmese, Khmer, kana and Chinese characters."""


@cache
def inside() -> str:
    """What goes on with a word and begins none, for a class of a regular expression: combining marks, which Python's `re` takes for the end of a
    word (vowels of Hindi among them), and what joins letters or keeps them from joining."""
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
    """Runs of letters, their marks and digits, lower-case, each letter in its composed form; in scripts without spaces each letter with its
    marks."""
    return _word().findall(unicodedata.normalize("NFC", text.lower()))
