"""Contents of messages as lists of parts, {"type": "image"} and {"type": "text", "text": ...}: what templates of models that see images take."""

from collections.abc import Mapping
from typing import Any

from onebase.codec.text.sample import Message

PROBE = "probe"
"""A text to see what a template does with one."""


def is_part(part: Any) -> bool:
    """Whether it is one of the two."""
    return isinstance(part, Mapping) and (
        part == {"type": "image"} or (part.get("type") == "text" and isinstance(part.get("text"), str))
    )


def in_parts(message: Message) -> Message:
    """The message with its content as a list."""
    content = message.get("content")
    return (
        {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message
    )


def joined(message: Message) -> Message:
    """The message with its content as one text; it has no images."""
    content = message.get("content")
    return (
        {**message, "content": "".join(p["text"] for p in content)} if isinstance(content, list) else message
    )
