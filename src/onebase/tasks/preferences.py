"""Rows of a prompt and two answers, the first of which is liked better: what is wrong with them, and their tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from onebase.base.folder import LoadedBase
from onebase.codec.text.faults import stretches
from onebase.codec.text.sample import Tokens, chat_sample, completion_sample
from onebase.data import Rows, read_rows
from onebase.data.bad_rows import once, places_of, refuse_bad
from onebase.data.labelled import Data
from onebase.data.row_files import missing_column
from onebase.draws import Draws
from onebase.engine.features import samples_of
from onebase.errors import DataError

SIDES = ("chosen", "rejected")

Prompt = str | Sequence[Mapping[str, Any]]
"""A text, or messages that an answer of the assistant follows."""


def preference_rows(base: LoadedBase, data: Data, limit: int, taken: int = 0) -> Rows:
    """Rows of prompt, chosen and rejected. Raises DataError, BadRows with all rows that `refuse_pairs` refuses."""
    rows = read_rows(data, SIDES, check=lambda found: refuse_pairs(base, found, limit, taken))
    refuse_pairs(base, rows, limit, taken)
    return rows


def refuse_pairs(base: LoadedBase, rows: Sequence[Mapping[str, Any]], limit: int, taken: int = 0) -> None:
    """Raises DataError where no row has a prompt, and BadRows with all rows that cannot be used: a prompt that is neither text nor messages,
    what the chat template does not take, equal answers, an answer that is longer with its prompt than `limit` tokens, of which an adapter
    has `taken` some already."""
    if not any("prompt" in row for row in rows):
        raise missing_column(places_of(rows)[0], ["prompt"], list(rows[0]))
    made: list[list[Tokens]] = []
    found = {i: flaw for i, row in enumerate(rows) if (flaw := _flaw(base, row, limit, taken, made))}
    refuse_bad(found, places_of(rows))
    pairs = [
        tuple(replace(t, id=f"{i} {s}") for t, s in zip(p, SIDES, strict=True)) for i, p in enumerate(made, 1)
    ]
    once(rows, samples_of(base, "preferences"), lambda: pairs)


def prompt_flaw(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with the prompt of a row, a text or messages, and what to do."""
    prompt = row.get("prompt")
    text = isinstance(prompt, str) and prompt.strip()
    if not text and not (isinstance(prompt, (list, tuple)) and prompt):
        what = (
            "is empty" if prompt is None or isinstance(prompt, (str, list, tuple)) else f"is {prompt!r:.40}"
        )
        return f"'prompt' {what}, a text or a list of messages is expected", "mend the row or remove it"
    if not text and not all(isinstance(m, Mapping) for m in prompt or ()):
        return "'prompt' is a list of what are no messages", 'write {"role": "user", "content": "..."}'
    if not text and prompt and prompt[-1].get("role") == "assistant":
        return "'prompt' ends with the assistant, whose answer shall follow", "end it with the user's message"
    return None


def _flaw(
    base: LoadedBase, row: Mapping[str, Any], limit: int, taken: int, made: list[list[Tokens]]
) -> tuple[str, str] | None:
    """What is wrong with a row, and what to do; its answers as tokens are put into `made`."""
    if (flaw := prompt_flaw(row)) is not None:
        return flaw
    prompt = row.get("prompt")
    if row["chosen"].strip() == row["rejected"].strip():
        return "'chosen' and 'rejected' are the same", "remove the row: it prefers nothing"
    behind = f" behind the {taken} of the adapter" if taken else ""
    made.append([])
    for side in SIDES:
        try:
            made[-1].append(answer_tokens(base, prompt or "", row[side]))
            size = len(made[-1][-1])
        except DataError as e:
            return e.cause, e.remedy
        if size > limit:
            return (
                f"'{side}' has {size} tokens with its prompt, the limit is {limit}{behind}",
                "shorten it, leave it out or raise max_length: answers are never cut",
            )
    return None


def answer_tokens(base: LoadedBase, prompt: Prompt, answer: str, name: str = "") -> Tokens:
    """A prompt, an answer and its end as tokens, only the last two learnt; messages go through the chat template. Raises DataError."""
    if isinstance(prompt, str):
        return base.codec.tokens(completion_sample(prompt, answer, id=name, source="preferences"))
    messages = [*prompt, {"role": "assistant", "content": answer}]
    made = base.codec.tokens(chat_sample(messages, id=name, source="preferences"))
    if not made.loss.any():
        return made  # the ledger says so
    start, stop = stretches(made)[-1]  # what the assistant said before is given
    at = np.arange(len(made))
    return replace(made, loss=(at >= start) & (at < stop))


def pair_tokens(base: LoadedBase, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Tokens, Tokens]]:
    """Chosen and rejected of each row, ids `1 chosen`, `1 rejected`, `2 chosen` and so on."""

    def make() -> list[tuple[Tokens, Tokens]]:
        made = [
            [answer_tokens(base, r["prompt"], r[side], f"{i} {side}") for side in SIDES]
            for i, r in enumerate(rows, 1)
        ]
        return [(chosen, rejected) for chosen, rejected in made]

    return once(rows, samples_of(base, "preferences"), make)


def has_chats(data: Data) -> bool:
    """Does any prompt go through the chat template?"""
    return any(not isinstance(r["prompt"], str) for r in read_rows(data, SIDES))


def other_answers(
    pairs: Sequence[tuple[Tokens, Tokens]], limit: int, seed: int
) -> list[tuple[Tokens, Tokens]]:
    """Behind each prompt the two answers of a row with another prompt, drawn by seed, cut where both would be too long. Raises DataError
    where all prompts are the same."""
    starts = [int(chosen.loss.argmax()) for chosen, _ in pairs]
    prompts = [chosen.ids[:n] for (chosen, _), n in zip(pairs, starts, strict=True)]
    if len({p.tobytes() for p in prompts}) < 2:
        raise DataError(
            "all rows have the same prompt, and kto compares with answers to other prompts",
            "give rows with at least two prompts, or take loss dpo: -o prefer.loss=dpo",
        )
    order = Draws(seed, "other answers").permutation(len(pairs)).tolist()
    out: dict[int, tuple[Tokens, Tokens]] = {}
    for k, i in enumerate(order):
        later = (order[(k + step) % len(order)] for step in range(1, len(order)))
        j = next(j for j in later if not np.array_equal(prompts[i], prompts[j]))
        made = []
        for side, text in zip(SIDES, pairs[j], strict=True):
            answer = text.ids[starts[j] :][: limit - len(prompts[i])]
            ids = np.concatenate([prompts[i], answer])
            made.append(Tokens(ids, np.arange(len(ids)) >= starts[i], f"{i + 1} other {side}", "preferences"))
        out[i] = (made[0], made[1])
    return [out[i] for i in range(len(pairs))]
