"""The text codec's tokenising half: samples to ids with their loss. What they would teach is said by the token ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

from onebase.codec.text.pieces import Follows
from onebase.codec.text.sample import Message, Sample, Span, Tokens
from onebase.codec.text.template import ChatTemplate
from onebase.codec.text.token_bytes import Spelled, spelled
from onebase.codec.text.tokenizer import Tokenizer
from onebase.errors import DataError

Known = dict[tuple[str, Follows], list[int]]
"""Ids of pieces of text, by what they follow."""


class TextCodec:
    """A tokenizer and a chat template: what turns a text sample into tokens, the same in training, scoring
    and serving.
    """

    def __init__(
        self, tokenizer: Tokenizer, template: ChatTemplate | None = None, rows: int | None = None
    ) -> None:
        """rows: how many tokens the base has vectors for, where the tokenizer may have more: no other id is ever made."""
        self.tokenizer, self.rows = tokenizer, rows
        self.template = template or ChatTemplate.default()

    @cached_property
    def spelled(self) -> Spelled:
        """The vocabulary for grammars, read once. Raises UserError as `spelled.spelled` does."""
        return spelled(self.tokenizer)

    def tokens(self, sample: Sample, known: Known | None = None) -> Tokens:
        """What begins a text (BOS, where there is one), then the spans. Neighbouring `text` spans with equal loss are encoded as one;
        a change of loss is always a token boundary, because it is where a prompt ends and generation starts.

        known: pieces of text that are not encoded again where samples share them (a prompt and its answers); it is added to.
        Raises DataError for a span kind that is not text, or a special token that the tokenizer or the base lacks.
        """
        chat = any(span.kind == "chat" for span in sample.spans)
        ids, loss = self._read(self._expand(sample.spans), chat, known)
        return Tokens(np.asarray(ids, np.int32), np.asarray(loss, np.bool_), sample.id, sample.source)

    def chat_ids(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        parts: bool = False,
        known: Known | None = None,
    ) -> list[int]:
        """The ids that generation continues: what begins a text, the conversation and the assistant's opening token. parts: contents may
        be lists, see ChatTemplate.spans. known: as for `tokens`."""
        own = self.tokenizer.roles.chat_framed
        # A foreign template need not say which part the assistant said before, and may have no way to.
        spans = self.template.spans(
            messages, add_generation_prompt=add_generation_prompt, tagged=own, parts=parts
        )
        return self._read(spans, True, known)[0]

    def _read(
        self, spans: Iterable[Span], chat: bool, known: Known | None = None
    ) -> tuple[list[int], list[bool]]:
        tok, known = self.tokenizer, {} if known is None else known
        ids = tok.begun([]) if tok.roles.chat_framed or not chat else []
        loss = [False] * len(ids)
        follows: Follows = "nothing"
        swallow = False  # the special token before takes the white space behind it
        joined = _joined(spans)
        for i, span in enumerate(joined):
            if span.kind == "special":
                part = [self._own(span.data)]
                follows, swallow = "special", span.data in tok.strips[1]
                if i == 0 and ids == part:
                    continue  # a template that writes BOS itself
            else:
                text = span.data.lstrip() if swallow else span.data
                after = joined[i + 1] if i + 1 < len(joined) else span
                text = text.rstrip() if after.kind == "special" and after.data in tok.strips[0] else text
                if (text, follows) not in known:
                    known[text, follows] = tok.encode(text, follows=follows)
                part = known[text, follows]
                if span.loss and not tok.closing.isdisjoint(part):
                    raise DataError(
                        f"{_shown(text)} has a letter for which this vocabulary has no other token than {tok.roles.unk}, which ends a text",
                        "leave it out: learning it would teach to stop there",
                    )
                if text:
                    follows, swallow = "text", False
            ids += part
            loss += [span.loss] * len(part)
        return ids, [
            False,
            *loss[1:],
        ] if loss else []  # nothing stands before the first token to predict it from

    def _expand(self, spans: Iterable[Span]) -> list[Span]:
        out: list[Span] = []
        for span in spans:
            if span.kind == "chat":
                out += self.template.spans(span.data)
            elif span.kind == "end":
                out.append(Span("special", self._end(), span.loss))
            elif span.kind in ("text", "special"):
                out.append(span)
            else:
                raise DataError(
                    f"a text base has no codec for spans of kind {span.kind!r}",
                    "it reads: text, special, end, chat",
                )
        return out

    def _own(self, name: str) -> int:
        """The id of a special token, for which the base must have a vector."""
        id = self.tokenizer.id_of(name)
        if self.rows is not None and id >= self.rows:
            raise DataError(
                f"the special token {name!r} has id {id}, the base has vectors for {self.rows:,} tokens",
                "leave it out (a chat template may write it): it is a token of the tokenizer alone",
            )
        return id

    def _end(self) -> str:
        """The name of the token that ends a text."""
        name = self.tokenizer.roles.eos
        if name is None:
            raise DataError(
                "this base's tokenizer has no token that ends a text",
                "say which one does: eos_token in its tokenizer_config.json (of a GGUF file: tokenizer.ggml.eos_token_id)",
            )
        return name


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _joined(spans: Iterable[Span]) -> list[Span]:
    out: list[Span] = []
    for span in spans:
        if out and span.kind == out[-1].kind == "text" and span.loss == out[-1].loss:
            out[-1] = Span("text", out[-1].data + span.data, span.loss)
        else:
            out.append(span)
    return out
