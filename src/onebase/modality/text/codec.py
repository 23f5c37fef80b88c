"""The tokenising half of the text codec: samples to ids with a loss mask. The token ledger reports what a model would train on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

from onebase.errors import DataError
from onebase.modality.text.pieces import Follows
from onebase.modality.text.sample import Message, Sample, Segment, Tokens
from onebase.modality.text.template import ChatTemplate
from onebase.modality.text.token_bytes import TokenBytes, token_bytes
from onebase.modality.text.tokenizer import Tokenizer

Known = dict[tuple[str, Follows], list[int]]
"""Ids of pieces of text, by the text and what it follows."""


class TextCodec:
    """A tokenizer and a chat template. Turns text samples into tokens, the same way in training, scoring and serving."""

    def __init__(
        self, tokenizer: Tokenizer, template: ChatTemplate | None = None, rows: int | None = None
    ) -> None:
        """rows: size of the base's embedding, where the tokenizer may have more tokens; no id beyond it is ever produced."""
        self.tokenizer, self.rows = tokenizer, rows
        self.template = template or ChatTemplate.default()

    @cached_property
    def token_bytes(self) -> TokenBytes:
        """The vocabulary for grammars, read once. Raises UserError as `token_bytes.token_bytes` does."""
        return token_bytes(self.tokenizer)

    def tokens(self, sample: Sample, known: Known | None = None) -> Tokens:
        """Tokens of a sample: BOS (where there is one), then its segments. Neighbouring `text` segments with equal loss are encoded as
        one. A change of loss is always a token boundary, because there a prompt ends and generation starts.

        known: a cache of encoded pieces that samples share (a prompt and its answers); new pieces are added.
        Raises DataError for a segment kind that is not text, or a special token that the tokenizer or the base lacks.
        """
        chat = any(span.kind == "chat" for span in sample.segments)
        ids, loss = self._read(self._expand(sample.segments), chat, known)
        return Tokens(np.asarray(ids, np.int32), np.asarray(loss, np.bool_), sample.id, sample.source)

    def chat_ids(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        parts: bool = False,
        known: Known | None = None,
    ) -> list[int]:
        """The ids that generation continues: BOS, the conversation and the generation prompt. parts: message contents may be lists, see
        ChatTemplate.segments. known: as for `tokens`."""
        tagged = self.tokenizer.roles.chat_framed
        # A foreign template need not mark the assistant's earlier turns, and some cannot.
        spans = self.template.segments(
            messages, add_generation_prompt=add_generation_prompt, tagged=tagged, parts=parts
        )
        return self._read(spans, True, known)[0]

    def _read(
        self, spans: Iterable[Segment], chat: bool, known: Known | None = None
    ) -> tuple[list[int], list[bool]]:
        tok, known = self.tokenizer, {} if known is None else known
        ids = tok.begun([]) if tok.roles.chat_framed or not chat else []
        loss = [False] * len(ids)
        follows: Follows = "nothing"
        swallow = False  # the special token before strips the white space after it
        joined = _joined(spans)
        for i, span in enumerate(joined):
            if span.kind == "special":
                part = [self._special_id(span.data)]
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
                if span.loss and not tok.stop_ids.isdisjoint(part):
                    raise DataError(
                        f"{_shown(text)} has a character that this vocabulary can write only as {tok.roles.unk}, its stop token",
                        "remove that character: training on it would teach the model to stop there",
                    )
                if text:
                    follows, swallow = "text", False
            ids += part
            loss += [span.loss] * len(part)
        return ids, [
            False,
            *loss[1:],
        ] if loss else []  # the first token has no context to be predicted from

    def _expand(self, spans: Iterable[Segment]) -> list[Segment]:
        out: list[Segment] = []
        for span in spans:
            if span.kind == "chat":
                out += self.template.segments(span.data)
            elif span.kind == "end":
                out.append(Segment("special", self._end(), span.loss))
            elif span.kind in ("text", "special"):
                out.append(span)
            else:
                raise DataError(
                    f"a text base has no codec for segments of kind {span.kind!r}",
                    "accepted: text, special, end, chat",
                )
        return out

    def _special_id(self, name: str) -> int:
        """The id of a special token, which the base's embedding must contain."""
        id = self.tokenizer.id_of(name)
        if self.rows is not None and id >= self.rows:
            raise DataError(
                f"the special token {name!r} has id {id}, but the base's embedding has {self.rows:,} rows",
                "remove it from the text or the chat template: only the tokenizer knows it",
            )
        return id

    def _end(self) -> str:
        """The name of the EOS token."""
        name = self.tokenizer.roles.eos
        if name is None:
            raise DataError(
                "this base's tokenizer has no EOS token",
                "set eos_token in its tokenizer_config.json (of a GGUF file: tokenizer.ggml.eos_token_id)",
            )
        return name


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _joined(spans: Iterable[Segment]) -> list[Segment]:
    out: list[Segment] = []
    for span in spans:
        if out and span.kind == out[-1].kind == "text" and span.loss == out[-1].loss:
            out[-1] = Segment("text", out[-1].data + span.data, span.loss)
        else:
            out.append(span)
    return out
