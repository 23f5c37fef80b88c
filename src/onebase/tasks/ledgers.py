"""The token ledger of a job: always logged before step 1, stops the job at findings that are not allowed, and enters the record."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onebase.artifact.files import canonical_json
from onebase.errors import DataError
from onebase.modality.text.ledger import Ledger, label_ledger, token_ledger
from onebase.modality.text.sample import Tokens
from onebase.tasks.job import Adapting, Facts, data_facts


def check_written(
    job: Adapting, tokens: Sequence[Tokens], test: Sequence[Tokens] | None, *, chats: bool
) -> Facts:
    """Log the ledger of a task that trains on written answers, and refuse its findings. chats: some samples use the chat template.
    Returns facts for the record."""
    base = job.base
    used = base.codec.template.digest
    # A base that was never saved has no other template than the one in memory.
    own = base.record.hashes.get("template", used)
    ledger = token_ledger(
        tokens,
        base.codec.tokenizer,
        limit=job.options.max_length or base.model.cfg.text.context,
        test=test,
        templates=(used, own) if chats else None,
    )
    facts = _decide(job, ledger)
    if not ledger.supervised:
        raise DataError(
            f"none of the {ledger.samples} samples has a token with a loss, so there is nothing to train on",
            "give completions or assistant messages",
        )
    return facts


def check_samples(job: Adapting, tokens: Sequence[Tokens], test: Sequence[Tokens] | None) -> Facts:
    """The same for samples of several kinds of rows, and for documents, which may have any length."""
    return _decide(job, token_ledger(tokens, job.base.codec.tokenizer, test=test))


def check_rows(
    job: Adapting,
    rows: Sequence[Mapping[str, Any]] | None = None,
    says: Callable[[Mapping[str, Any]], str] | None = None,
) -> Facts:
    """The same for rows by their text; the only finding that stops the job is a test row among them. rows: default: those of the job.
    says: returns the text of a row; default: the columns by which rows are compared, one per line."""
    says = says or (lambda row: "\n".join(_text(row[c]) for c in job.compared if c in row))
    rows = job.rows if rows is None else rows
    ledger = label_ledger(
        [says(r) for r in rows],
        [str(r["label"]) for r in rows if "label" in r],
        None if job.test is None else [says(r) for r in job.test],
    )
    return _decide(job, ledger)


def _text(value: object) -> str:
    return value if isinstance(value, str) else canonical_json(value)


def _decide(job: Adapting, ledger: Ledger) -> Facts:
    allow = job.options.allow
    job.log(ledger.text())
    ledger.refuse(allow)
    facts: Facts = {"ledger": (ledger.numbers(), "counted before step 1")}
    if allow:
        facts["ledger.allowed"] = (list(allow), "stated by the user")
    if job.test is not None:
        facts |= {f"test.{k}": v for k, v in data_facts(job.test).items()}
        job.bind("test", job.test.name, facts["test.data.fingerprint"][0])
    return facts
