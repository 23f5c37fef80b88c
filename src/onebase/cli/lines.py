"""Lines of standard input, and output printed one record per line whatever characters it contains."""

import sys
from collections.abc import Iterator
from typing import Any

from onebase.errors import DataError

STDIN = "standard input"
_BREAKS = {ord(c): ascii(c)[1:-1] for c in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"}
"""Every character that some program takes for the end of a line, and its escape."""


def stdin_lines() -> Iterator[str]:
    """The lines of standard input as they arrive, without line ends (only `\\n` and `\\r\\n` count). Raises DataError (binary, not UTF-8)."""
    from onebase.data.files import sound
    from onebase.data.lines import lines_of, without_end

    binary = getattr(sys.stdin, "buffer", None)
    source = (line.encode("utf-8", "surrogateescape") for line in sys.stdin) if binary is None else binary
    yield from map(without_end, sound(lines_of(source, STDIN), STDIN))


def stdin_text() -> str:
    """The whole of standard input without a byte order mark. Raises DataError (not UTF-8)."""
    binary = getattr(sys.stdin, "buffer", None)
    raw = sys.stdin.read().encode("utf-8", "surrogateescape") if binary is None else binary.read()
    try:
        return str(raw.decode("utf-8")).removeprefix("\ufeff")
    except UnicodeDecodeError as e:
        raise DataError(
            f"{STDIN} is not UTF-8 (byte 0x{raw[e.start]:02x} at offset {e.start})",
            "convert it, for example: iconv -f latin1 -t utf-8",
        ) from None


def one_line(text: str) -> str:
    """The text with line ends escaped (`\\n`, `\\u2028`), for people. Output for programs is printed as JSON."""
    return text.translate(_BREAKS)


def json_line(value: Any) -> str:
    """The value as JSON on one line, whichever characters the reader treats as line ends."""
    import json

    # In JSON only strings can contain these three characters unescaped, and there the escape is equivalent.
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
    text = json.dumps(value, ensure_ascii=encoding != "utf8")
    return text.replace("\x85", "\\u0085").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
