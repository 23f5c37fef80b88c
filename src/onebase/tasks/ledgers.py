"""The token ledger of a job: always told before step 1; it stops the job at what was not allowed, and enters the record."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onebase.artifact.files import canonical_json
from onebase.codec.text.ledger import Ledger, label_ledger, token_ledger
from onebase.codec.text.sample import Tokens
from onebase.errors import DataError
from onebase.tasks.job import Adapting, Facts, data_facts


def check_written(
    job: Adapting, tokens: Sequence[Tokens], test: Sequence[Tokens] | None, *, chats: bool
) -> Facts:
    """Tell the ledger of a task whose samples are written answers, and refuse what it finds. chats: some went through the chat template. Returns
    facts for the record."""
    base = job.base
    made = base.codec.template.digest
    # Of a base that was never saved, the template in memory is its own.
    own = base.record.hashes.get("template", made)
    found = token_ledger(
        tokens,
        base.codec.tokenizer,
        limit=job.options.max_length or base.model.cfg.text.context,
        test=test,
        templates=(made, own) if chats else None,
    )
    facts = _decide(job, found)
    if not found.supervised:
        raise DataError(
            f"no token of {found.samples} samples is learnt, and without any there is nothing to do",
            "give completions or assistant messages",
        )
    return facts


def check_samples(job: Adapting, tokens: Sequence[Tokens], test: Sequence[Tokens] | None) -> Facts:
    """The same for samples whose rows may be of several kinds, and for documents, which may be of any length."""
    return _decide(job, token_ledger(tokens, job.base.codec.tokenizer, test=test))


def check_rows(
    job: Adapting,
    rows: Sequence[Mapping[str, Any]] | None = None,
    says: Callable[[Mapping[str, Any]], str] | None = None,
) -> Facts:
    """The same for rows by what they say, which only a test row among them speaks against. rows: where they are not those of the job. says: what
    a row says, where that is not the columns by which rows are compared, one below the other."""
    says = says or (lambda row: "\n".join(_text(row[c]) for c in job.compared if c in row))
    rows = job.rows if rows is None else rows
    found = label_ledger(
        [says(r) for r in rows],
        [str(r["label"]) for r in rows if "label" in r],
        None if job.test is None else [says(r) for r in job.test],
    )
    return _decide(job, found)


def _text(value: object) -> str:
    return value if isinstance(value, str) else canonical_json(value)


def _decide(job: Adapting, found: Ledger) -> Facts:
    allow = job.options.allow
    job.tell(found.text())
    found.refuse(allow)
    facts: Facts = {"ledger": (found.numbers(), "counted before step 1")}
    if allow:
        facts["ledger.allowed"] = (list(allow), "stated by the user")
    if job.test is not None:
        facts |= {f"test.{k}": v for k, v in data_facts(job.test).items()}
        job.bind("test", job.test.name, facts["test.data.fingerprint"][0])
    return facts
