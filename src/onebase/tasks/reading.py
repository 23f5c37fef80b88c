"""Tokenises rows once, as they are read: rows that are too long or cannot be tokenised are reported."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

from onebase.base.folder import LoadedBase
from onebase.data.bad_rows import Rows, Samples
from onebase.data.labelled import Make
from onebase.data.lines import Problem
from onebase.engine.features import long_tokens
from onebase.errors import DataError
from onebase.modality.text.long import Long
from onebase.modality.text.sample import Tokens
from onebase.modality.text.tokenizer import Tokenizer
from onebase.tasks.options import AdaptOptions

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RowReader:
    """Settings for reading rows. tokens: the limit of a text; taken: virtual tokens of an adapter before it; columns: the required columns;
    long: the treatment of texts beyond the limit; folder: where relative paths in the rows begin."""

    base: LoadedBase
    tokens: int
    taken: int = 0
    columns: tuple[str, ...] = ()
    options: AdaptOptions = field(default_factory=AdaptOptions)
    long: Long = "refuse"
    folder: Path = Path()

    def too_long(self, size: int, what: str = "", more: str = "", things: str = "samples") -> Problem | None:
        """What is wrong with a text of `size` tokens, if anything."""
        if size <= self.tokens:
            return None
        after = f" after the adapter's {self.taken} virtual tokens" if self.taken else ""
        return Problem(
            f"{what}has {size} tokens{more}, the limit is {self.tokens}{after}",
            f"shorten or remove it, or raise max_length: {things} are never cut"
            if self.cuts is None
            else f"use -o long={self.cuts}, shorten or remove it, or raise max_length",
        )

    @property
    def cuts(self) -> str | None:
        """The values of the task's option `long` besides "refuse"; None where it has no such option."""
        own = self.options.of_task
        if own is None or (hint := get_type_hints(type(own)).get("long")) is None:
            return None
        return " or ".join(x for x in get_args(hint) if x != "refuse")

    def refused(self, texts: Sequence[Tokens]) -> Problem | None:
        """What is wrong with these texts, if one of them has no token or too many."""
        if not all(map(len, texts)):
            return Problem("has no token", "give a text that is not empty")
        return None if any(t.windows for t in texts) else self.too_long(max(map(len, texts)))


def long_of(options: AdaptOptions) -> Long:
    """The task's option `long`; tasks without it refuse long texts."""
    long: Long = getattr(options.of_task, "long", "refuse")
    return long


def no_samples(reader: RowReader) -> Make:
    """`Task.samples` where rows are not texts, or have none yet."""
    return lambda rows: [()] * len(rows)


def together(make: Make) -> Make:
    """Encode rows as one batch; if that fails, encode each alone to find the bad one."""

    def made(rows: Sequence[dict[str, Any]]) -> Sequence[Samples | Problem]:
        try:
            return make(rows)
        except DataError as e:
            return [Problem(e.cause, e.remedy)] if len(rows) == 1 else [x for r in rows for x in made([r])]

    return made


def each_row(sample: Callable[[Row], Samples | Problem]) -> Make:
    """Apply `sample` to each row; errors that it raises are reported for the row."""
    batch = together(lambda rows: [sample(row) for row in rows])
    return lambda rows: [x for row in rows for x in batch([row])]


def one_sample(reader: RowReader, sample: Callable[[LoadedBase, Row], Tokens]) -> Make:
    """One sample per row, no longer than the limit."""

    def checked(row: Row) -> Samples | Problem:
        tokens = sample(reader.base, row)
        return reader.too_long(len(tokens)) or (tokens,)

    return each_row(checked)


def whole_texts(
    reader: RowReader, texts: Callable[[Row], Sequence[str]] = lambda row: (row["text"],)
) -> Make:
    """Each text of a row as the base reads whole texts, without a loss."""
    tok = reader.base.codec.tokenizer

    def made(rows: Sequence[Row]) -> list[Samples | Problem]:
        each = [texts(row) for row in rows]
        ids = iter(tok.encode_batch([t for of_row in each for t in of_row]))
        limit, long = reader.tokens, reader.long
        return [
            reader.refused(read) or read
            for read in (
                tuple(long_tokens(tok, next(ids), 0, limit, long) for _ in of_row) for of_row in each
            )
        ]

    return together(made)


def samples_in(rows: Rows) -> list[Tokens]:
    """The samples of rows that have one each, with their numbers from 1 as ids."""
    return [sample for (sample,) in rows.named()]


def special_ids(tokens: Sequence[Tokens], tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids of the special tokens in the samples: LoRA trains their embedding rows, since pretraining on plain text may not have. BOS, which
    every text begins with, counts only where it has a loss: some bases have one token for both ends of a text."""
    ids, loss = (np.concatenate([getattr(t, name) for t in tokens]) for name in ("ids", "loss"))
    used, with_loss = set(np.unique(ids).tolist()), set(np.unique(ids[loss]).tolist())
    return tuple(sorted(set(tokenizer.specials.values()) & used - ({tokenizer.bos} - with_loss)))
