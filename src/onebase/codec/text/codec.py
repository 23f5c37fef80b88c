"""The text codec's tokenising half: samples to ids with their loss, the token ledger and the checks before
training.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from onebase.codec.text.pieces import Follows
from onebase.codec.text.sample import Message, Sample, Span, Tokens
from onebase.codec.text.template import ChatTemplate
from onebase.codec.text.tokenizer import Tokenizer
from onebase.errors import DataError


class TextCodec:
    """A tokenizer and a chat template: what turns a text sample into tokens, the same in training, scoring
    and serving.
    """

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None = None) -> None:
        self.tokenizer = tokenizer
        self.template = template or ChatTemplate.default()

    def tokens(self, sample: Sample) -> Tokens:
        """What begins a text (BOS, where there is one), then the spans. Neighbouring `text` spans with equal loss are encoded as one;
        a change of loss is always a token boundary, because it is where a prompt ends and generation starts.

        Raises DataError for a span kind that is not text, or a special token that the tokenizer lacks.
        """
        chat = any(span.kind == "chat" for span in sample.spans)
        ids, loss = self._read(self._expand(sample.spans), chat)
        return Tokens(np.asarray(ids, np.int32), np.asarray(loss, np.bool_), sample.id, sample.source)

    def chat_ids(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True, parts: bool = False
    ) -> list[int]:
        """The ids that generation continues: what begins a text, the conversation and the assistant's opening token. parts: contents may
        be lists, see ChatTemplate.spans."""
        own = self.tokenizer.roles.chat_framed
        # A foreign template need not say which part the assistant said before, and may have no way to.
        spans = self.template.spans(
            messages, add_generation_prompt=add_generation_prompt, tagged=own, parts=parts
        )
        return self._read(spans, chat=True)[0]

    def _read(self, spans: Iterable[Span], chat: bool) -> tuple[list[int], list[bool]]:
        tok = self.tokenizer
        ids = tok.begun([]) if tok.roles.chat_framed or not chat else []
        loss = [False] * len(ids)
        follows: Follows = "nothing"
        swallow = False  # the special token before takes the white space behind it
        joined = _joined(spans)
        for i, span in enumerate(joined):
            if span.kind == "special":
                part = [tok.id_of(span.data)]
                follows, swallow = "special", span.data in tok.strips[1]
                if i == 0 and ids == part:
                    continue  # a template that writes BOS itself
            else:
                text = span.data.lstrip() if swallow else span.data
                after = joined[i + 1] if i + 1 < len(joined) else span
                text = text.rstrip() if after.kind == "special" and after.data in tok.strips[0] else text
                part = tok.encode(text, follows=follows)
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

    def _end(self) -> str:
        """The name of the token that ends a text."""
        name = self.tokenizer.roles.eos
        if name is None:
            raise DataError(
                "this base's tokenizer has no token that ends a text",
                "say which one does: eos_token in its tokenizer_config.json",
            )
        return name


def _joined(spans: Iterable[Span]) -> list[Span]:
    out: list[Span] = []
    for span in spans:
        if out and span.kind == out[-1].kind == "text" and span.loss == out[-1].loss:
            out[-1] = Span("text", out[-1].data + span.data, span.loss)
        else:
            out.append(span)
    return out


@dataclass(frozen=True)
class LedgerRow:
    """One sample as the trainer sees it: `segments` of (decoded text, supervised) and the counts."""

    id: str
    source: str
    segments: tuple[tuple[str, bool], ...]
    tokens: int
    supervised: int


def ledger(tokens: Iterable[Tokens], tokenizer: Tokenizer, rows: int = 3) -> list[LedgerRow]:
    """What will be learnt from the first `rows` samples, special tokens shown by name."""
    out: list[LedgerRow] = []
    for item in tokens:
        if len(out) == rows:
            break
        cuts = [0, *(np.flatnonzero(np.diff(item.loss.astype(np.int8))) + 1).tolist(), len(item)]
        segments = tuple(
            (tokenizer.decode(item.ids[a:b].tolist(), skip_special=False), bool(item.loss[a]))
            for a, b in itertools.pairwise(cuts)
            if b > a
        )
        out.append(LedgerRow(item.id, item.source, segments, len(item), int(item.loss.sum())))
    return out


def render_ledger(rows: Iterable[LedgerRow], width: int = 300) -> str:
    """The ledger as plain text: what is learnt stands in « ». Long segments lose their middle, never their
    end.
    """
    lines = []
    for row in rows:
        name = " ".join(x for x in (row.source, row.id) if x) or "sample"
        lines.append(f"{name}: {row.supervised} of {row.tokens} tokens learnt")
        lines.append(
            "  " + "".join(f"«{_short(t, width)}»" if s else _short(t, width) for t, s in row.segments)
        )
    return "\n".join(lines)


def _short(text: str, width: int) -> str:
    if len(text) > width:
        half = max(1, width // 2)
        text = f"{text[:half]} ... {text[-half:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def check_tokens(tokens: Tokens | Iterable[Tokens], tokenizer: Tokenizer) -> None:
    """Refuse samples that would teach nonsense: nothing learnt, BOS twice, BOS as a target, or a learnt
    stretch without its end.

    Every learnt stretch must end in a closing token (`<|eos|>` or `<|end|>` in our own), else the model never learns
    to stop. Works on whole samples, before long ones are cut. Raises DataError that names the sample.
    """
    roles, bos = tokenizer.roles, tokenizer.bos
    closing = tokenizer.closing | ({tokenizer.eos} if tokenizer.eos is not None else set())
    # Where a chat template says what begins a conversation, not every sample begins alike; and some models have one token
    # for both ends of a text, which is learnt as an end.
    begins = roles.chat_framed and bos is not None
    for n, item in enumerate([tokens] if isinstance(tokens, Tokens) else tokens, 1):
        name = f"sample {item.id or n}" + (f" of {item.source}" if item.source else "")
        if not item.loss.any():
            raise DataError(
                f"{name}: no token is learnt, all {len(item)} are masked",
                "give a completion or an assistant message",
            )
        if len(item) > 1 and item.ids[0] == item.ids[1] == bos:
            raise DataError(
                f"{name}: starts with {roles.bos} twice",
                "let either the template or the codec write it, not both",
            )
        if begins and item.ids[0] != bos:
            raise DataError(f"{name}: does not start with {roles.bos}", "make tokens with TextCodec.tokens")
        if bos not in closing and bool(item.loss[item.ids == bos].any()):
            raise DataError(f"{name}: {roles.bos} is marked to be learnt", "mark only what follows it")
        ends = np.flatnonzero(item.loss & ~np.append(item.loss[1:], False))
        if not set(item.ids[ends].tolist()) <= closing:
            names = " or ".join(dict.fromkeys([n for n in (roles.eos, *roles.closing) if n])) or "any token"
            raise DataError(
                f"{name}: a learnt stretch does not end in {names}, so stopping is not learnt",
                "mark the closing token as learnt too ({% generation %} around it in the template)",
            )
