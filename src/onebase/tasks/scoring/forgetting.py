"""Scores of an adapter that read on: bits per byte of the domain and of general text, and what it changed."""

from onebase.data import Document
from onebase.errors import DataError
from onebase.evaluation.bootstrap import Score
from onebase.evaluation.forgetting import DOMAIN, GENERAL, changes
from onebase.evaluation.likelihood import by_source, document_nats
from onebase.tasks.continued import text_rows
from onebase.tasks.scoring.asked import Asked


def continue_scores(asked: Asked) -> dict[str, Score]:
    """`domain_bits_per_byte` and, of rows whose `source` is general, `general_bits_per_byte`. With an adapter also both of the base alone
    (`..._before`) and the paired differences, `domain_change` and `forgetting`."""
    base, documents = asked.base, []
    for i, row in enumerate(text_rows(asked.data), 1):
        source = row.get("source") or DOMAIN
        if source not in (DOMAIN, GENERAL):
            raise DataError(
                f"row {i} has the source {source!r}", f"accepted: {DOMAIN}, {GENERAL}; or none, for {DOMAIN}"
            )
        documents.append(Document(str(row["text"]), source))
    after = document_nats(base.loaded, documents, active=base.active)
    if base.attached is not None:
        return changes(document_nats(base.plain.loaded, documents), after, seed=asked.seed)
    return {f"{k}_bits_per_byte": s for k, s in by_source(after, seed=asked.seed).items()}
