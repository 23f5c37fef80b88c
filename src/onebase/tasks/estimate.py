"""What something would take, before it is done."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Plan:
    """`facts` for programs, `text` for people."""

    facts: dict[str, Any]
    text: str
