"""The text codec's tokenising half: samples to ids with their loss, the token ledger and the checks before
training.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from onebase.codec.text.sample import BOS, END, EOS, Message, Sample, Span, Tokens
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
        """BOS, then the spans. Neighbouring `text` spans with equal loss are encoded as one; a change of loss
        is always a token boundary, because it is where a prompt ends and generation starts.

        Raises DataError for a span kind that is not text, or a special token that the tokenizer lacks.
        """
        ids, loss = [self.tokenizer.bos], [False]
        for i, span in enumerate(_joined(self._expand(sample.spans))):
            if span.kind == "special":
                part = [self.tokenizer.id_of(span.data)]
                if i == 0 and span.data == BOS:
                    continue  # a template that writes BOS itself
            else:
                part = self.tokenizer.encode(span.data)
            ids += part
            loss += [span.loss] * len(part)
        return Tokens(np.asarray(ids, np.int32), np.asarray(loss, np.bool_), sample.id, sample.source)

    def chat_ids(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[int]:
        """The ids that generation continues: BOS, the conversation and the assistant's opening token."""
        spans = self.template.spans(messages, add_generation_prompt=add_generation_prompt)
        return [int(i) for i in self.tokens(Sample(spans)).ids]

    def _expand(self, spans: Iterable[Span]) -> list[Span]:
        out: list[Span] = []
        for span in spans:
            if span.kind == "chat":
                out += self.template.spans(span.data)
            elif span.kind in ("text", "special"):
                out.append(span)
            else:
                raise DataError(
                    f"a text base has no codec for spans of kind {span.kind!r}",
                    "it reads: text, special, chat",
                )
        return out


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

    Every learnt stretch must end in the closing token (`<|eos|>` or `<|end|>`), else the model never learns
    to stop. Works on whole samples, before long ones are cut. Raises DataError that names the sample.
    """
    closing = {tokenizer.specials[n] for n in (EOS, END) if n in tokenizer.specials}
    for n, item in enumerate([tokens] if isinstance(tokens, Tokens) else tokens, 1):
        name = f"sample {item.id or n}" + (f" of {item.source}" if item.source else "")
        if not item.loss.any():
            raise DataError(
                f"{name}: no token is learnt, all {len(item)} are masked",
                "give a completion or an assistant message",
            )
        if len(item) > 1 and item.ids[0] == item.ids[1] == tokenizer.bos:
            raise DataError(
                f"{name}: starts with {BOS} twice", "let either the template or the codec write it, not both"
            )
        if item.ids[0] != tokenizer.bos:
            raise DataError(f"{name}: does not start with {BOS}", "make tokens with TextCodec.tokens")
        if bool(item.loss[item.ids == tokenizer.bos].any()):
            raise DataError(f"{name}: {BOS} is marked to be learnt", "mark only what follows it")
        ends = np.flatnonzero(item.loss & ~np.append(item.loss[1:], False))
        if not set(item.ids[ends].tolist()) <= closing:
            raise DataError(
                f"{name}: a learnt stretch does not end in {EOS} or {END}, so stopping is not learnt",
                "mark the closing token as learnt too ({% generation %} around it in the template)",
            )
