"""How well a base predicts texts: scored, not learnt."""

from onebase.data import Document, read_rows
from onebase.evaluation.likelihood import document_nats
from onebase.evaluation.predictions import Documents
from onebase.tasks.base import ScoreRequest


def likely_texts(request: ScoreRequest) -> Documents:
    """How likely each text is."""
    base, rows = request.base, read_rows(request.data, ("text",))
    documents = (Document(str(r["text"]), "text") for r in rows)
    return Documents(document_nats(base.loaded, documents, active=base.active))
