"""The Jinja environment of chat templates: the `generation` tag, undefined values, and the functions that foreign templates call."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from onebase.modality.text.clock import now
from onebase.modality.text.guard import Guard
from onebase.modality.text.sandbox import Sandboxed

# Noncharacters of Unicode, never assigned. They enclose supervised text; in a message they are guarded like the rest.
ON, OFF = "\ufdd2", "\ufdd3"


class _Undefined(jinja2.Undefined):
    """False when tested, an error when printed: `{% if message.tools %}` works, a misspelt `{{ message.contnt
    }}` does not.
    """

    def __str__(self) -> str:
        raise jinja2.UndefinedError(self._undefined_message)


class _Generation(Extension):
    tags = {"generation"}  # noqa: RUF012  declared so by jinja2

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("mark"), [], [], body).set_lineno(line)

    def mark(self, caller: Any) -> str:
        return f"{ON}{caller()}{OFF}"


def _raise(message: str) -> None:
    raise jinja2.TemplateError(str(message)[:1000])


def _now(form: str) -> str:
    """`strftime_now` of foreign templates: the date of the run or of today (clock.py)."""
    return now().strftime(str(form)[:100])


@lru_cache(maxsize=32)
def guard_of(specials: tuple[str, ...]) -> Guard:
    """The guard for the names of these special tokens."""
    return Guard(specials, ON + OFF)


@lru_cache(maxsize=32)
def compiled(source: str, guard: Guard, strict: bool) -> tuple[jinja2.Template, bool]:
    """The template, and whether it has the tag. strict: printing an undefined value is an error (see ChatTemplate). Cached: compiling takes
    longer than building a small base, and bases share templates."""
    env = Sandboxed(_Generation, undefined=_Undefined if strict else jinja2.Undefined, guard=guard)
    env.globals |= {"raise_exception": _raise, "strftime_now": _now}
    tree = env.parse(source)
    blocks = tree.find_all(nodes.CallBlock)
    tagged = any(isinstance(b.call.node, nodes.ExtensionAttribute) for b in blocks)
    return env.from_string(tree), tagged
