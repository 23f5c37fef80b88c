"""A prompt and an answer to it as tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from onebase.base.folder import LoadedBase
from onebase.codec.text.codec import Known
from onebase.codec.text.long import Long
from onebase.codec.text.sample import Tokens, chat_sample, completion_sample
from onebase.codec.text.validation import stretches

Prompt = str | Sequence[Mapping[str, Any]]
"""A text, or messages that an answer of the assistant follows."""


def less_prompt(text: Tokens, limit: int, long: Long) -> Tokens:
    """A prompt and its answer without the beginning of the prompt, where they are longer than the limit and `long` is not "refuse". The first token stays
    where it begins every text. The answer is never cut: beyond the limit it is refused where it is read."""
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
    """A prompt, an answer and its end as tokens, only the last two learnt; messages go through the chat template. Raises DataError."""
    if isinstance(prompt, str):
        return base.codec.tokens(completion_sample(prompt, answer, id=name, source="preferences"), known)
    messages = [*prompt, {"role": "assistant", "content": answer}]
    made = base.codec.tokens(chat_sample(messages, id=name, source="preferences"), known)
    if not made.loss.any():
        return made  # the ledger says so
    start, stop = stretches(made)[-1]  # what the assistant said before is given
    at = np.arange(len(made))
    return replace(made, loss=(at >= start) & (at < stop))
