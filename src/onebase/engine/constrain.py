"""Constrained generation by a JSON schema, a regular expression or a grammar. B rows, V vocabulary.

Before each token llguidance computes which tokens the constraint allows (Earley's parser over derivatives of regular expressions, one walk
through the trie of the vocabulary); the others are masked. So the text satisfies the constraint by construction, whatever the weights.
"""

import functools
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onebase.errors import UserError
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.token_bytes import TokenBytes
from onebase.modality.text.valid import is_unicode

if TYPE_CHECKING:
    from llguidance import LLMatcher

log = logging.getLogger(__name__)

LETTERS = 1 << 16
"""Characters in a constraint at most. The time to compile grows faster than the text: about 3 s in the worst case."""
SYMBOLS = 20_000
"""Symbols of the compiled grammar at most."""

# White space between the parts of JSON, if allowed: none, one space, or a new line and its indent. Without a bound a small base may generate it
# forever, and it uses up tokens that the values need: by default there is none.
# No \uXXXX in strings: a key written so would be another spelling of a property of the schema, and bypass its rules.
_SPACES, _COMPACT = {"whitespace_pattern": r" |\n {0,20}"}, {"whitespace_flexible": False}
_JSON = {
    "item_separator": ",",
    "key_separator": ":",
    "json_allowed_escapes": 'nrbtf\\"',
    "json_allow_general_unicode_escapes": False,
    "coerce_one_of": False,
    "lenient": False,
}
_ANCHOR = re.compile(r"\\[AbBz<>]|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[$^]", re.DOTALL)
"""Anchors of a regular expression, and escapes and classes, which may contain the same characters."""
_CONTROL = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]")
_CONTROL_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\(?:[xu]\{|x[01]|x7[fF]|u00[01]|u007[fF]|[avcU0])")
_SUPPORTED = "see docs/structured.md for the supported constraints"


@dataclass(frozen=True)
class Constraint:
    """The format that an answer must have; exactly one of schema, regex and grammar.

    schema: a JSON schema (2020-12, as far as docs/structured.md says): a mapping, or JSON text. spaces: allow white space between the parts of
    JSON (default: compact). regex: matches the whole answer, in the syntax of Rust's `regex` (no look-around, no back-references); a leading `^`
    and a trailing `$` have no effect. grammar: Lark's syntax as llguidance reads it, from `start`. Raises UserError; errors that only
    compilation finds (an unsupported keyword) are raised before the first token.
    """

    schema: Any = None
    regex: str | None = None
    grammar: str | None = None
    spaces: bool = False

    def __post_init__(self) -> None:
        given = [k for k in ("schema", "regex", "grammar") if getattr(self, k) is not None]
        if len(given) != 1:
            raise UserError(
                f"a constraint of {' and '.join(given) or 'nothing'}", "give one of schema, regex and grammar"
            )
        if self.schema is not None:
            object.__setattr__(self, "schema", _json_text(self.schema))
        elif self.spaces:
            raise UserError(
                f"spaces is for JSON schemas, but a {given[0]} is given", "leave spaces out, or give a schema"
            )
        if isinstance(self.regex, str):
            object.__setattr__(self, "regex", _without_anchors(self.regex))
        text = self.text
        if not isinstance(text, str) or not is_unicode(text):
            raise UserError(f"the {self.kind} is not a text", "give a str that is valid Unicode")
        if len(text) > LETTERS:
            raise UserError(f"the {self.kind} has {len(text)} characters", f"give at most {LETTERS}")

    @property
    def kind(self) -> str:
        return "schema" if self.schema is not None else "regex" if self.regex is not None else "grammar"

    @property
    def text(self) -> str:
        """The constraint as llguidance reads it."""
        return str(self.schema) if self.schema is not None else self.regex or self.grammar or ""


def _without_anchors(regex: str) -> str:
    """A regular expression without a leading `^` and a trailing `$`: it always matches the whole answer. Raises UserError for anchors elsewhere,
    which are not supported."""
    anchors = [
        m for m in _ANCHOR.finditer(regex) if m[0] in ("^", "$", r"\A", r"\z", r"\b", r"\B", r"\<", r"\>")
    ]
    first = bool(anchors) and anchors[0].start() == 0 and anchors[0][0] in ("^", r"\A")
    rest = anchors[first:]
    last = bool(rest) and rest[-1].end() == len(regex) and rest[-1][0] in ("$", r"\z")
    if inner := rest[: len(rest) - last]:
        raise UserError(
            f"the regex has {inner[0][0]} at character {inner[0].start() + 1}, where it is not supported",
            "leave it out: the regex matches the whole answer; write .* to allow any text before or after",
        )
    return regex[anchors[0].end() if first else 0 : rest[-1].start() if last else len(regex)]


@functools.lru_cache(1024)
def _say_unanchored(pattern: str) -> None:
    """Warn once about a pattern in a schema that need not match the whole text."""
    if not (pattern.startswith("^") and pattern.endswith("$")):
        log.warning(
            "the schema's pattern %r has no ^ and $ around it: JSON Schema then allows any text before and after it",
            pattern,
        )


def _json_text(schema: Any) -> str:
    """A schema as JSON text. It keeps the order of properties, in which the answer has them. Raises UserError for an invalid schema."""
    try:
        tree = json.loads(schema) if isinstance(schema, str) else schema
        text = schema if isinstance(schema, str) else json.dumps(schema, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as e:
        raise UserError(f"the schema is not JSON: {e}", 'give one like {"type": "object", ...}') from None
    if not isinstance(tree, dict):
        raise UserError(
            f"the schema is {type(tree).__name__}, not an object", 'give one like {"type": "object", ...}'
        )
    _check(tree)
    return text


def _check(tree: Any) -> None:
    """Refuse schemas that the library accepts but cannot enforce. Raises UserError.

    `minProperties` beyond the required names: other names may repeat, and JSON parsers count them once. Control characters, which need \\uXXXX
    (see `_JSON`): the library would omit them.
    """
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            _writable(node, _CONTROL)
        elif isinstance(node, list):
            stack += node
        elif isinstance(node, dict):
            _counted(node)
            patterns = node.get("patternProperties")
            for pattern in [node.get("pattern"), *(patterns if isinstance(patterns, dict) else ())]:
                _writable(str(pattern), _CONTROL_ESCAPE)
            if isinstance(node.get("pattern"), str):
                _say_unanchored(node["pattern"])
            stack += [*node, *node.values()]


def _counted(node: dict[str, Any]) -> None:
    least, required = node.get("minProperties"), node.get("required")
    named = len({str(r) for r in required}) if isinstance(required, list) else 0
    if isinstance(least, (int, float)) and least > max(1, named):
        raise UserError(
            f"the schema has minProperties {least}, but requires only {named} by name: others may repeat",
            "list the names in 'required', or leave minProperties out",
        )


def _writable(text: str, control: re.Pattern[str]) -> None:
    if control.search(text):
        raise UserError(
            f"the schema has a control character in {text[:80]!r}, which constrained JSON cannot write",
            r"leave it out; \b, \f, \n, \r and \t can be written",
        )


class Guide:
    """The state of the constraint on one answer. It cannot be shared: `fresh` returns a copy for another answer."""

    def __init__(self, matcher: "LLMatcher", token_bytes: TokenBytes) -> None:
        self._matcher, self._token_bytes = matcher, token_bytes

    def fresh(self) -> "Guide":
        """A copy of this guide in its current state."""
        return Guide(self._matcher.deep_copy(), self._token_bytes)

    def allowed_V(self) -> NDArray[np.bool_]:
        """Mask of the allowed next tokens, [V]: text tokens that continue the answer, and stop tokens if it may end here.

        Raises UserError if no token is allowed, or the constraint exceeds the limits of the parser.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        usable_V = self._token_bytes.usable_V
        out = np.unpackbits(bits, count=len(usable_V), bitorder="little").view(np.bool_) & usable_V
        if self._matcher.is_error() or not out.any():
            self._failed("no token of this vocabulary satisfies it")
        return out

    def push(self, id: int) -> bool:
        """Add an allowed token. Returns whether the answer is complete, so that no token can follow."""
        accepted = self._matcher.consume_token(id)
        ended = self._matcher.is_stopped()
        if not accepted or (ended and not self._matcher.is_accepting()):
            self._failed("no continuation satisfies it")
        return ended

    def _failed(self, otherwise: str) -> None:
        why = _line(self._matcher.get_error()) or otherwise
        raise UserError(f"the constraint cannot be satisfied: {why}", _SUPPORTED)


def guides(codec: TextCodec, constraints: Sequence[Constraint | None]) -> list[Guide | None]:
    """A guide for each answer, None without a constraint; equal constraints are compiled once. Raises UserError for a constraint that cannot be
    compiled or satisfied, before decoding begins."""
    compiled = {c: _compiled(codec, c) for c in set(constraints) if c is not None}
    return [None if c is None else compiled[c].fresh() for c in constraints]


def _compiled(codec: TextCodec, constraint: Constraint) -> Guide:
    token_bytes = codec.token_bytes
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(max_grammar_size=SYMBOLS, verbose_errors=False)
    try:
        match constraint.kind:
            case "schema":
                options: Any = _JSON | (_SPACES if constraint.spaces else _COMPACT)
                grammar = LLMatcher.grammar_from_json_schema(constraint.text, overrides=options)
            case "regex":
                grammar = LLMatcher.grammar_from_regex(constraint.text)
            case _:
                grammar = LLMatcher.grammar_from_lark(constraint.text)
    except ValueError as e:  # JSON that Python accepts and the library does not
        raise UserError(f"the {constraint.kind} cannot be read: {_line(str(e))}", _SUPPORTED) from None
    matcher = LLMatcher(token_bytes.inner, grammar, log_level=0, limits=limits)
    if matcher.is_error():
        raise UserError(
            f"the {constraint.kind} is not supported as a constraint: {_line(matcher.get_error())}",
            _SUPPORTED,
        )
    guide = Guide(matcher, token_bytes)
    guide.allowed_V()
    return guide


def _line(text: str) -> str:
    """The library's message as one short line."""
    return " ".join(text.split())[:300]


def masked(logits_BV: Tensor, rows: Sequence[Guide | None]) -> Tensor:
    """Logits with -inf for tokens that a row's guide does not allow; rows without a guide are unchanged. Raises UserError, see Guide.allowed_V."""
    if all(g is None for g in rows):
        return logits_BV
    V = logits_BV.shape[1]
    allowed_BV = np.ones((len(rows), V), np.bool_)
    for i, guide in enumerate(rows):
        if guide is not None:
            allowed_BV[i] = guide.allowed_V()[:V]
    return logits_BV.masked_fill(~torch.from_numpy(allowed_BV).to(logits_BV.device), -torch.inf)
