"""How well a base predicts texts."""

from onebase.data import Document, read_rows
from onebase.evaluation.bootstrap import Score
from onebase.evaluation.likelihood import by_source, document_nats
from onebase.tasks.scoring.asked import Asked


def text_scores(asked: Asked) -> dict[str, Score]:
    """bits_per_byte."""
    base, rows = asked.base, read_rows(asked.data, ("text",))
    documents = (Document(str(r["text"]), "text") for r in rows)
    nats = document_nats(base.loaded, documents, active=base.active)
    return {"bits_per_byte": by_source(nats, seed=asked.seed)["text"]}
