"""Tokenises a prompt with its answer."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from onebase.base.folder import LoadedBase
from onebase.modality.text.codec import Known
from onebase.modality.text.long import Long
from onebase.modality.text.sample import Tokens, chat_sample, completion_sample
from onebase.modality.text.validation import stretches

Prompt = str | Sequence[Mapping[str, Any]]
"""A text, or messages before an answer of the assistant."""


def less_prompt(text: Tokens, limit: int, long: Long) -> Tokens:
    """Cut the beginning of the prompt if prompt and answer are longer than the limit, unless `long` is "refuse". The first token stays. The answer is
    never cut: if it is beyond the limit, it is refused later."""
    over = len(text) - limit
    if over <= 0 or long == "refuse":
        return text
    given = int(text.loss.argmax())  # tokens before the answer
    over = min(over, max(0, given - 1))
    kept = np.concatenate(([0], np.arange(1 + over, len(text))))
    return replace(text, ids=text.ids[kept], loss=text.loss[kept], left_out=over)


def answer_tokens(
    base: LoadedBase, prompt: Prompt, answer: str, known: Known | None = None, name: str = ""
) -> Tokens:
    """A prompt, an answer and its stop token as tokens, with a loss on the last two only; messages go through the chat template. Raises DataError."""
    if isinstance(prompt, str):
        return base.codec.tokens(completion_sample(prompt, answer, id=name, source="preferences"), known)
    messages = [*prompt, {"role": "assistant", "content": answer}]
    tokens = base.codec.tokens(chat_sample(messages, id=name, source="preferences"), known)
    if not tokens.loss.any():
        return tokens  # the ledger reports it
    start, stop = stretches(tokens)[-1]  # earlier turns of the assistant have no loss
    at = np.arange(len(tokens))
    return replace(tokens, loss=(at >= start) & (at < stop))
