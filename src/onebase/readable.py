"""Formats numbers, sizes and durations for people, with three digits. Records and JSON keep the exact numbers."""

import math

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def number(x: float, digits: int = 3) -> str:
    """`digits` significant digits, thousands separated by commas, an exponent only below 1e-5: 0.0123, 4.56, 789, 12,300."""
    if not x or not math.isfinite(x):
        return f"{x:g}"
    if abs(x) < 1e-5:
        return f"{x:.{digits - 1}e}"
    rounded = float(f"{x:.{digits - 1}e}")
    whole = math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(0, digits - 1 - whole)}f}"


def figure(x: float, digits: int = 6) -> str:
    """`number` without trailing zeros: 12.5, 1,234,570, 0.00012."""
    text = number(x, digits)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def size(n: float) -> str:
    """Bytes in a suitable unit: 512 bytes, 86.1 KiB, 1.25 GiB."""
    at = 0
    # From 999.5 KiB on the next unit is used: three digits are enough.
    while at < len(UNITS) - 1 and abs(n) >= (1024 if at == 0 else 999.5):
        n, at = n / 1024, at + 1
    if at:
        return f"{number(n)} {UNITS[at]}"
    return f"{n:,.0f} byte{'' if n == 1 else 's'}"


def duration(seconds: float) -> str:
    """0 s, 0.120 ms, 85.3 ms, 4.56 s, 59.9 s, 4 min 05 s, 3 h 12 min, 2 days 4 h."""
    if not seconds or not math.isfinite(seconds):
        return f"{seconds:g} s"
    if seconds < 0.9995:
        return f"{number(1000 * seconds)} ms"
    if seconds < 59.95:
        return f"{number(seconds)} s"
    if seconds < 3599.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s"
    hours, rest = divmod(round(seconds / 60), 60)
    if hours < 48:
        return f"{hours} h {rest:02d} min"
    days, rest = divmod(round(seconds / 3600), 24)
    return f"{days} days {rest} h"
