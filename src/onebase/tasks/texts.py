"""How well a base predicts texts: scored, not learnt."""

from onebase.data import Document, read_rows
from onebase.evaluation.bootstrap import Score
from onebase.evaluation.likelihood import by_source, document_nats
from onebase.tasks.base import ScoreRequest


def text_scores(request: ScoreRequest) -> dict[str, Score]:
    """bits_per_byte."""
    base, rows = request.base, read_rows(request.data, ("text",))
    documents = (Document(str(r["text"]), "text") for r in rows)
    nats = document_nats(base.loaded, documents, active=base.active)
    return {"bits_per_byte": by_source(nats, seed=request.seed)["text"]}
