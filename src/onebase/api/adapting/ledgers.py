"""The token ledger of a job: always told before step 1; it stops the job at what was not allowed, and enters the record."""

from collections.abc import Sequence
from typing import Any

from onebase.api.adapting.job import Adapting, Facts, data_facts
from onebase.api.images import file_hash, image_paths
from onebase.api.texts import chat_rows, completion_rows
from onebase.codec.text.ledger import Ledger, label_ledger, token_ledger
from onebase.codec.text.sample import Tokens
from onebase.data import read_rows
from onebase.errors import DataError

COLUMNS = {"complete": ("prompt", "completion"), "chat": ("messages",)}
"""What a row of a generating task has."""


def written(job: Adapting, rows: Sequence[dict[str, Any]]) -> list[Tokens]:
    """Rows of a generating task as tokens."""
    return completion_rows(job.base, rows) if job.task == "complete" else chat_rows(job.base, rows)


def check_written(job: Adapting, tokens: Sequence[Tokens]) -> Facts:
    """Tell the ledger of a generating task, and refuse what it finds. Returns facts for the record."""
    base = job.base
    test = None if job.test is None else read_rows(job.test, COLUMNS[job.task])
    made = base.codec.template.digest
    # Of a base that was never saved, the template in memory is its own.
    own = base.record.hashes.get("template", made)
    found = token_ledger(
        tokens,
        base.codec.tokenizer,
        limit=job.options.max_length or base.model.cfg.text.context,
        test=None if test is None else written(job, test),
        templates=(made, own) if job.task == "chat" else None,
    )
    facts = _decide(job, found, test)
    if not found.supervised:
        raise DataError(
            f"no token of {found.samples} samples is learnt, and without any there is nothing to do",
            "give completions or assistant messages",
        )
    return facts


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
    return facts
