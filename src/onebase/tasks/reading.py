"""How rows become tokens, once, as they are read: what is too long or cannot be tokenised is said of its row."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

from onebase.base.folder import LoadedBase
from onebase.codec.text.long import Long
from onebase.codec.text.sample import Tokens
from onebase.data.bad_rows import Rows, Samples
from onebase.data.labelled import Make
from onebase.data.lines import Problem
from onebase.engine.features import long_tokens
from onebase.errors import DataError
from onebase.tasks.options import AdaptOptions

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RowReader:
    """What reads rows: the base; the tokens that a text may have, and how many of the context an adapter takes before it; the columns that rows must
    have, and the options. long: what is done with texts that have more tokens."""

    base: LoadedBase
    tokens: int
    taken: int = 0
    columns: tuple[str, ...] = ()
    options: AdaptOptions = field(default_factory=AdaptOptions)
    long: Long = "refuse"

    def too_long(self, size: int, what: str = "", more: str = "", things: str = "samples") -> Problem | None:
        """What is wrong with a text of so many tokens, if anything."""
        if size <= self.tokens:
            return None
        behind = f" behind the {self.taken} of the adapter" if self.taken else ""
        return Problem(
            f"{what}has {size} tokens{more}, the limit is {self.tokens}{behind}",
            f"shorten it, leave it out or raise max_length: {things} are never cut"
            if self.cuts is None
            else f"take -o long={self.cuts}, shorten it, leave it out or raise max_length",
        )

    @property
    def cuts(self) -> str | None:
        """The values of `long` that the task has beside "refuse"; None where it has no such option."""
        own = self.options.of_task
        if own is None or (hint := get_type_hints(type(own)).get("long")) is None:
            return None
        return " or ".join(x for x in get_args(hint) if x != "refuse")

    def refused(self, texts: Sequence[Tokens]) -> Problem | None:
        """What is wrong with texts of which one has no token, or too many."""
        if not all(map(len, texts)):
            return Problem("has no token", "give a text that is not empty")
        return None if any(t.windows for t in texts) else self.too_long(max(map(len, texts)))


def long_of(options: AdaptOptions) -> Long:
    """What the task's options say is done with long texts; those of a task without the option are refused."""
    found: Long = getattr(options.of_task, "long", "refuse")
    return found


def no_samples(reader: RowReader) -> Make:
    """`Task.samples` where rows are no texts, or none yet."""
    return lambda rows: [()] * len(rows)


def together(make: Make) -> Make:
    """Of rows that can be encoded as one batch; where that fails, each is tried alone, so that it is known which one it was."""

    def made(rows: Sequence[dict[str, Any]]) -> Sequence[Samples | Problem]:
        try:
            return make(rows)
        except DataError as e:
            return [Problem(e.cause, e.remedy)] if len(rows) == 1 else [x for r in rows for x in made([r])]

    return made


def each_row(sample: Callable[[Row], Samples | Problem]) -> Make:
    """What `sample` makes of each row; what it refuses is said of the row."""
    alone = together(lambda rows: [sample(row) for row in rows])
    return lambda rows: [x for row in rows for x in alone([row])]


def one_sample(reader: RowReader, sample: Callable[[LoadedBase, Row], Tokens]) -> Make:
    """One sample a row, no longer than the limit."""

    def made(row: Row) -> Samples | Problem:
        found = sample(reader.base, row)
        return reader.too_long(len(found)) or (found,)

    return each_row(made)


def whole_texts(
    reader: RowReader, texts: Callable[[Row], Sequence[str]] = lambda row: (row["text"],)
) -> Make:
    """Each text of a row as the base reads a whole one, nothing of it learnt."""
    tok = reader.base.codec.tokenizer

    def made(rows: Sequence[Row]) -> list[Samples | Problem]:
        each = [texts(row) for row in rows]
        ids = iter(tok.encode_batch([t for found in each for t in found]))
        limit, long = reader.tokens, reader.long
        return [
            reader.refused(read) or read
            for read in (tuple(long_tokens(tok, next(ids), 0, limit, long) for _ in found) for found in each)
        ]

    return together(made)


def samples_in(rows: Rows) -> list[Tokens]:
    """The samples of rows that have one each, called by number from 1."""
    return [sample for (sample,) in rows.named()]
