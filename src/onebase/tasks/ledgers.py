"""The token ledger of a job: always told before step 1; it stops the job at what was not allowed, and enters the record."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onebase.codec.text.ledger import Ledger, label_ledger, token_ledger
from onebase.codec.text.sample import Tokens
from onebase.data import read_rows
from onebase.data.bad_rows import once
from onebase.engine.features import chat_rows, completion_rows, samples_of
from onebase.engine.image_features import file_hash, image_paths
from onebase.errors import DataError
from onebase.tasks.job import Adapting, Facts, data_facts
from onebase.tasks.preferences import SIDES, has_chats, pair_tokens, refuse_pairs

COLUMNS = {"complete": ("prompt", "completion"), "chat": ("messages",), "prefer": SIDES, "reward": SIDES}
"""What a row has of a task whose samples are written answers."""


def written(job: Adapting, rows: Sequence[dict[str, Any]]) -> list[Tokens]:
    """Rows of such a task as tokens; of a pair of answers one after the other."""
    if job.task in ("prefer", "reward"):
        refuse_pairs(job.base, rows, job.base.model.cfg.text.context)
        return [t for pair in pair_tokens(job.base, rows) for t in pair]
    make = completion_rows if job.task == "complete" else chat_rows
    return once(rows, samples_of(job.base, job.task), lambda: make(job.base, rows))


def check_written(job: Adapting, tokens: Sequence[Tokens]) -> Facts:
    """Tell the ledger of a task whose samples are written answers, and refuse what it finds. Returns facts for the record."""
    base = job.base
    chats = job.task == "chat" or (job.task in ("prefer", "reward") and has_chats(job.data))
    test = None if job.test is None else read_rows(job.test, COLUMNS[job.task])
    made = base.codec.template.digest
    # Of a base that was never saved, the template in memory is its own.
    own = base.record.hashes.get("template", made)
    found = token_ledger(
        tokens,
        base.codec.tokenizer,
        limit=job.options.max_length or base.model.cfg.text.context,
        test=None if test is None else written(job, test),
        templates=(made, own) if chats else None,
    )
    facts = _decide(job, found, test)
    if not found.supervised:
        raise DataError(
            f"no token of {found.samples} samples is learnt, and without any there is nothing to do",
            "give completions or assistant messages",
        )
    return facts


def check_samples(
    job: Adapting,
    tokens: Sequence[Tokens],
    test: Sequence[dict[str, Any]] | None,
    test_tokens: Sequence[Tokens] | None,
) -> Facts:
    """The same for samples whose rows may be of several kinds, and for documents, which may be of any length. test: rows, and as tokens."""
    found = token_ledger(tokens, job.base.codec.tokenizer, test=test_tokens)
    return _decide(job, found, test)


def check_labelled(job: Adapting, rows: Sequence[dict[str, Any]], column: str = "text") -> Facts:
    """The same for labelled rows, which only a test row among them speaks against. column: `text`, or `image` with the hash of the
    picture (the test rows still have its path)."""
    test: Sequence[dict[str, Any]] | None = None
    if job.test is not None:
        test = read_rows(job.test, (column,))
        if column == "image":
            test = [{"image": file_hash(path)} for path in image_paths(test, job.test)]
    found = label_ledger(
        [r[column] for r in rows],
        [str(r["label"]) for r in rows if "label" in r],
        None if test is None else [r[column] for r in test],
    )
    return _decide(job, found, test)


def check_pairs(job: Adapting, rows: Sequence[dict[str, Any]]) -> Facts:
    """The same for pairs of texts: a test pair counts as seen where both of its texts stand together in a training row."""
    test = None if job.test is None else read_rows(job.test, ("anchor", "positive"))
    found = label_ledger([_both(r) for r in rows], [], None if test is None else [_both(r) for r in test])
    return _decide(job, found, test)


def check_asked(
    job: Adapting,
    rows: Sequence[dict[str, Any]],
    asks: tuple[Sequence[str], Callable[[Mapping[str, Any]], str]],
) -> Facts:
    """The same for rows of a saved prompt, by what they ask: the columns that it is read from, and what makes a text of them."""
    columns, ask = asks
    test = None if job.test is None else read_rows(job.test, columns)
    labels = [str(r["label"]) for r in rows if "label" in r]
    found = label_ledger([ask(r) for r in rows], labels, None if test is None else [ask(r) for r in test])
    return _decide(job, found, test)


def _both(row: dict[str, Any]) -> str:
    return f"{row['anchor']}\n{row['positive']}"


def _decide(job: Adapting, found: Ledger, test: Sequence[dict[str, Any]] | None) -> Facts:
    allow = job.options.allow
    job.tell(found.text())
    found.refuse(allow)
    facts: Facts = {"ledger": (found.numbers(), "counted before step 1")}
    if allow:
        facts["ledger.allowed"] = (list(allow), "stated by the user")
    if test is not None:
        facts |= {f"test.{k}": v for k, v in data_facts(test).items()}
        job.bind("test", job.test, facts["test.data.fingerprint"][0])
    return facts
