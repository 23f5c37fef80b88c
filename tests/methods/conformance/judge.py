"""A reward of Python, as a user would write it."""

from typing import Any


def vowels(prompt: object, completion: str, row: dict[str, Any]) -> float:
    """Share of the completion's characters that are vowels."""
    return sum(c in "aeiou" for c in completion) / max(1, len(completion))
