"""How rows become tokens, once, as they are read: what is too long or cannot be tokenised is said of its row."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onebase.base.folder import LoadedBase
from onebase.codec.text.sample import Tokens
from onebase.data.bad_rows import Rows, Samples
from onebase.data.labelled import Make
from onebase.data.row_files import Flaw
from onebase.engine.features import given_tokens
from onebase.errors import DataError
from onebase.tasks.options import AdaptOptions

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Reader:
    """What reads rows: the base; the tokens that a text may have, and how many of the context an adapter takes before it; the columns that rows must
    have, and the options."""

    base: LoadedBase
    tokens: int
    taken: int = 0
    columns: tuple[str, ...] = ()
    options: AdaptOptions = field(default_factory=AdaptOptions)

    def too_long(self, size: int, what: str = "", more: str = "", things: str = "samples") -> Flaw | None:
        """What is wrong with a text of so many tokens, if anything; it is never cut."""
        if size <= self.tokens:
            return None
        behind = f" behind the {self.taken} of the adapter" if self.taken else ""
        return Flaw(
            f"{what}has {size} tokens{more}, the limit is {self.tokens}{behind}",
            f"shorten it, leave it out or raise max_length: {things} are never cut",
        )


def no_samples(reader: Reader) -> Make:
    """`Task.samples` where rows are no texts, or none yet."""
    return lambda rows: [()] * len(rows)


def whole_texts(reader: Reader, texts: Callable[[Row], Sequence[str]] = lambda row: (row["text"],)) -> Make:
    """Each text of a row as the base reads a whole one, nothing of it learnt; all of some rows are encoded together."""
    tok = reader.base.codec.tokenizer

    def encoded(each: Sequence[Sequence[str]]) -> list[Samples | Flaw]:
        try:
            ids = iter(tok.encode_batch([t for found in each for t in found]))
        except DataError as e:
            if len(each) == 1:
                return [Flaw(e.cause, e.remedy)]
            return [x for found in each for x in encoded([found])]  # which row is it?
        return [_sound(reader, [tok.framed(next(ids)) for _ in found]) for found in each]

    return lambda rows: encoded([texts(row) for row in rows])


def _sound(reader: Reader, framed: Sequence[Sequence[int]]) -> Samples | Flaw:
    if not all(framed):
        return Flaw("has no token", "give a text that is not empty")
    long = reader.too_long(max(map(len, framed)))
    return long or tuple(given_tokens(ids, i) for i, ids in enumerate(framed))


def each_row(reader: Reader, sample: Callable[[Row], Tokens]) -> Make:
    """One sample a row, as `sample` makes it; what it refuses is said of the row."""

    def one(row: Row) -> Samples | Flaw:
        try:
            made = sample(row)
        except DataError as e:
            return Flaw(e.cause, e.remedy)
        return reader.too_long(len(made)) or (made,)

    return lambda rows: [one(row) for row in rows]


def samples_in(rows: Rows) -> list[Tokens]:
    """The samples of rows that have one each, called by number from 1."""
    return [sample for (sample,) in rows.named()]
