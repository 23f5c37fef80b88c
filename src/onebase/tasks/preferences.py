"""Rows of preferences, a prompt with a chosen and a rejected answer: their checks and their tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onebase.data import Rows, read_rows
from onebase.data.bad_rows import Samples
from onebase.data.labelled import Data, Make
from onebase.data.lines import Problem
from onebase.draws import Draws
from onebase.engine.prompt_tokens import answer_tokens, less_prompt
from onebase.errors import DataError
from onebase.modality.text.codec import Known
from onebase.modality.text.sample import Tokens
from onebase.tasks.reading import RowReader, each_row

SIDES = ("chosen", "rejected")
COLUMNS = ("prompt", *SIDES)


def pair_problem(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with the values of a row, and what to do."""
    if row["chosen"].strip() == row["rejected"].strip():
        return "'chosen' and 'rejected' are the same", "remove the row: it has no preference"
    return prompt_problem(row)


def prompt_problem(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with the prompt of a row, a text or messages, and what to do."""
    prompt = row.get("prompt")
    text = isinstance(prompt, str) and prompt.strip()
    if not text and not (isinstance(prompt, (list, tuple)) and prompt):
        what = (
            "is empty" if prompt is None or isinstance(prompt, (str, list, tuple)) else f"is {prompt!r:.40}"
        )
        return f"'prompt' {what}, expected a text or a list of messages", "correct the row or remove it"
    if not text and not all(isinstance(m, Mapping) for m in prompt or ()):
        return "'prompt' is a list, but not of messages", 'write {"role": "user", "content": "..."}'
    if not text and prompt and prompt[-1].get("role") == "assistant":
        return "'prompt' ends with a message of the assistant", "end it with the user's message"
    return None


def answer_pairs(reader: RowReader) -> Make:
    """Chosen and rejected answer of each row, each after the prompt, which is encoded once."""

    def one(row: Mapping[str, Any]) -> Samples | Problem:
        known: Known = {}
        samples = []
        for side in SIDES:
            answer = answer_tokens(reader.base, row["prompt"], row[side], known)
            samples.append(less_prompt(answer, reader.tokens, reader.long))
            long = reader.too_long(len(samples[-1]), f"'{side}' ", " with its prompt", "answers")
            if long is not None:
                return long
        return tuple(samples)

    return each_row(one)


def preference_rows(reader: RowReader, data: Data) -> Rows:
    """Rows of prompt, chosen and rejected, with their answers as tokens. Raises DataError, BadRows with all unusable rows."""
    return read_rows(data, COLUMNS, check=pair_problem, make=answer_pairs(reader))


def pair_tokens(rows: Rows) -> list[tuple[Tokens, Tokens]]:
    """Chosen and rejected of each row, with ids `1 chosen`, `1 rejected`, `2 chosen` and so on."""
    return [(chosen, rejected) for chosen, rejected in rows.named([f" {side}" for side in SIDES])]


def has_chats(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Does any prompt use the chat template?"""
    return any(not isinstance(r["prompt"], str) for r in rows)


def other_answers(
    pairs: Sequence[tuple[Tokens, Tokens]], limit: int, seed: int
) -> list[tuple[Tokens, Tokens]]:
    """For each prompt the two answers of a row with another prompt, drawn by seed, and cut to the limit. Raises DataError where all prompts
    are the same."""
    starts = [int(chosen.loss.argmax()) for chosen, _ in pairs]
    prompts = [chosen.ids[:n] for (chosen, _), n in zip(pairs, starts, strict=True)]
    if len({p.tobytes() for p in prompts}) < 2:
        raise DataError(
            "all rows have the same prompt, and kto needs answers to other prompts",
            "give rows with at least two prompts, or use -o prefer.loss=dpo",
        )
    order = Draws(seed, "other answers").permutation(len(pairs)).tolist()
    out: dict[int, tuple[Tokens, Tokens]] = {}
    for k, i in enumerate(order):
        later = (order[(k + step) % len(order)] for step in range(1, len(order)))
        j = next(j for j in later if not np.array_equal(prompts[i], prompts[j]))
        pair = []
        for side, text in zip(SIDES, pairs[j], strict=True):
            answer = text.ids[starts[j] :][: limit - len(prompts[i])]
            ids = np.concatenate([prompts[i], answer])
            pair.append(Tokens(ids, np.arange(len(ids)) >= starts[i], f"{i + 1} other {side}", "preferences"))
        out[i] = (pair[0], pair[1])
    return [out[i] for i in range(len(pairs))]
