"""Chat templates: sandboxed Jinja with a budget in, segments out.

The template's own text may contain special tokens, the text of a message may not: its characters of special tokens are replaced while
Jinja runs (modality/text/guard.py), and restored as plain text afterwards. `{% generation %}...{% endgeneration %}` marks supervised text
(as in transformers). Without it, the supervised text is what each assistant turn adds to the generation prompt before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2

from onebase.artifact.files import sha256_bytes
from onebase.errors import ConfigError, DataError
from onebase.modality.text.budget import budget
from onebase.modality.text.jinja_environment import OFF, ON, compiled, guard_of
from onebase.modality.text.roles import Roles
from onebase.modality.text.sample import PROBE, SPECIALS, Message, Segment, in_parts, is_part

DEFAULT = """\
{%- for message in messages -%}
  {%- if message.role == 'assistant' -%}
<|assistant|>{% generation %}{{ message.content }}<|end|>{% endgeneration %}
  {%- elif message.role == 'user' or (message.role == 'system' and loop.first) -%}
{{ '<|' + message.role + '|>' }}{{ message.content }}<|end|>
  {%- elif message.role == 'system' -%}
{{ raise_exception('a system message must come first') }}
  {%- else -%}
{{ raise_exception('unknown role "' + message.role + '"; roles are system, user, assistant') }}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
"""
_ROLES = frozenset(
    [
        "assistant",
        "developer",
        "environment",
        "function",
        "ipython",
        "model",
        "observation",
        "system",
        "tool",
        "user",
    ]
)
"""Role names that a template may turn into a special token (<|user|>), besides those that it names itself."""


class ChatTemplate:
    """A template over `messages`, `add_generation_prompt`, `bos_token` and `eos_token`.

    roles: defines those two tokens. A foreign template may print undefined values, as in transformers; our own may not. An empty
    source means no template: the base does not chat.
    """

    def __init__(
        self,
        source: str = DEFAULT,
        specials: Sequence[str] = SPECIALS,
        where: str = "chat template",
        roles: Roles | None = None,
    ) -> None:
        self.source = source
        self._where = where
        roles = roles or Roles.own()
        names = {
            "bos_token": roles.bos,
            "eos_token": roles.eos,
            "pad_token": roles.pad,
            "unk_token": roles.unk,
        }
        self._names = {k: v for k, v in names.items() if v is not None}
        self._pattern = re.compile(
            "|".join(re.escape(s) for s in sorted(specials, key=len, reverse=True)) or "(?!)"
        )
        self._guard = guard_of(tuple(specials))
        self._broken: ConfigError | None = None
        try:
            self._template, self._tagged = compiled(source, self._guard, roles.chat_framed)
        except jinja2.TemplateSyntaxError as e:
            self._broken = ConfigError(f"{where}:{e.lineno}: {e.message}", "fix the Jinja template")
        except Exception as e:  # nested too deep, a number too large: errors of Python's compiler
            self._broken = ConfigError(f"{where}: {type(e).__name__}: {e}", "fix the Jinja template")
        if self._broken and roles.chat_framed:
            raise self._broken  # a foreign base is useful without its template: the error is raised when it must chat

    @classmethod
    def default(cls) -> ChatTemplate:
        """The template of bases trained by onebase: <|system|> <|user|> <|assistant|>, each turn ends in <|end|>."""
        return cls()

    @classmethod
    def none(cls) -> ChatTemplate:
        """The empty template, of a base that does not chat."""
        return cls("")

    @classmethod
    def from_file(
        cls, path: str | Path, specials: Sequence[str] = SPECIALS, roles: Roles | None = None
    ) -> ChatTemplate:
        """Read a `template.jinja`. Raises ConfigError when it is missing or not a template."""
        try:
            source = Path(path).read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError(
                f"no chat template at {path}: {e}", "give the path of a template.jinja"
            ) from None
        return cls(source, specials, str(path), roles)

    @cached_property
    def takes_parts(self) -> bool:
        """Whether it renders the text of a content list (and not the list itself)."""
        text = self._probed([{"type": "text", "text": PROBE}])
        return PROBE in text and "'text'" not in text

    @cached_property
    def _drops_plain(self) -> bool:
        return PROBE not in self._probed(PROBE) and self.takes_parts

    def _probed(self, content: Any) -> str:
        try:
            return self._guard.show(self._render([{"role": "user", "content": content}], True))
        except DataError:
            return ""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the source."""
        return sha256_bytes(self.source.encode())

    def segments(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tagged: bool = True,
        parts: bool = False,
    ) -> tuple[Segment, ...]:
        """The conversation as `text` and `special` segments, with `loss` on the assistant's text and its stop token. tagged=False: no
        loss, for a conversation that is only read. parts: contents may be lists (modality/text/sample.py), which the template must
        support. A template that drops plain contents gets lists.

        Raises DataError for malformed messages, for messages that the template refuses, and where there is no template.
        """
        if not self.source.strip():
            raise DataError(
                "this base has no chat template",
                "use a base with a chat template, or generate from a plain prompt",
            )
        if self._broken:
            raise self._broken
        _check(messages, parts)
        messages = [in_parts(m) for m in messages] if self._drops_plain else messages
        text = self._render(messages, add_generation_prompt)
        if not tagged:
            return tuple(self._cut(re.sub(f"{ON}|{OFF}", "", text), loss=False))
        if not self._tagged:
            text = self._tag(messages, text)
        spans: list[Segment] = []
        for i, part in enumerate(re.split(f"{ON}|{OFF}", text)):
            spans += self._cut(part, loss=i % 2 == 1)
        return tuple(spans)

    def _cut(self, text: str, loss: bool) -> list[Segment]:
        spans, at = [], 0
        for found in self._pattern.finditer(text):
            spans += [
                Segment("text", text[at : found.start()], loss),
                Segment("special", found.group(), loss),
            ]
            at = found.end()
        spans.append(Segment("text", text[at:], loss))
        return [Segment(s.kind, self._guard.show(s.data), loss) for s in spans if s.data]

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        guarded = [self._guarded(m) for m in messages]
        try:
            with budget(guarded):
                return self._template.render(
                    messages=guarded,
                    add_generation_prompt=add_generation_prompt,
                    tools=None,
                    documents=None,
                    **self._names,
                )
        except jinja2.TemplateError as e:
            raise DataError(
                f"{self._where}: {self._guard.show(str(e.message)[:1000])}",
                "give messages that the template accepts",
            ) from None
        except Exception as e:  # a template is untrusted code: it may fail in any way
            raise DataError(
                f"{self._where}: {type(e).__name__}: {self._guard.show(str(e)[:1000])}",
                "fix the template or the messages",
            ) from None

    def _guarded(self, message: Message) -> Any:
        """A message as the template gets it: guarded, except for a role name that it may turn into a special token."""
        guarded, role = self._guard.guarded(message), message.get("role")
        if isinstance(role, str) and (role in _ROLES or self._names_role(role)):
            guarded[self._guard.hide("role")] = role
        return guarded

    def _names_role(self, role: str) -> bool:
        """Whether the template itself contains this name as a string literal, and the name contains no special token."""
        plain = re.fullmatch(r"[A-Za-z][\w-]*", role) and not self._pattern.search(role)
        return bool(plain) and any(f"{q}{role}{q}" in self.source for q in "'\"")

    def _less_end(self, whole: str, full: str) -> str:
        """The beginning of a conversation without tokens that occur only at its very end (Phi 3 ends a conversation with one)."""
        while not full.startswith(whole):
            last = [m for m in self._pattern.finditer(whole) if not whole[m.end() :].strip()]
            if not last:
                return whole
            whole = whole[: last[-1].start()]
        return whole

    def _tag(self, messages: Sequence[Message], full: str) -> str:
        """Mark the assistant's turns for a template without the tag: what a turn adds to the generation prompt before it."""
        out, at = "", 0
        for i, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            prompt, whole = self._render(messages[:i], True), self._render(messages[: i + 1], False)
            whole = self._less_end(whole, full)
            if not (whole.startswith(prompt) and full.startswith(whole)):
                raise DataError(
                    f"{self._where}: cannot determine which text message {i + 1} adds to the prompt before it",
                    "put {% generation %}...{% endgeneration %} around the assistant's text in the template",
                )
            turn = whole[len(prompt) :]
            ends = [m.end() for m in self._pattern.finditer(turn)]
            stop = len(prompt) + (ends[-1] if ends else len(turn))  # not the blank line after the stop token
            out += full[at : len(prompt)] + ON + full[len(prompt) : stop] + OFF
            at = stop
        return out + full[at:]


def _check(messages: Sequence[Message], parts: bool = False) -> None:
    if isinstance(messages, (str, bytes)) or not isinstance(messages, Sequence) or not messages:
        raise DataError(
            "messages must be a list with at least one message",
            'for example [{"role": "user", "content": "Hi"}]',
        )
    for i, message in enumerate(messages, 1):
        if not isinstance(message, Mapping):
            raise DataError(
                f"message {i} is {type(message).__name__}", 'each is {"role": text, "content": text}'
            )
        for key in ("role", "content"):
            value = message.get(key)
            if parts and key == "content" and isinstance(value, list) and all(map(is_part, value)):
                continue
            if not isinstance(value, str):
                given = type(message[key]).__name__ if key in message else "missing"
                raise DataError(
                    f"message {i}: '{key}' is {given}", 'each message is {"role": text, "content": text}'
                )
