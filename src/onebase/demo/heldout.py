"""The demo's first measurement: how well the base predicts held-out text, compared with an n-gram."""

from collections.abc import Callable

import numpy as np

from onebase.api.base import Base
from onebase.data import Dataset
from onebase.demo.results import Size
from onebase.evaluation.bootstrap import Score
from onebase.evaluation.likelihood import DocumentIds, by_source, document_ids, nats_of
from onebase.evaluation.metrics import bits_per_byte
from onebase.evaluation.ngram import NGram


def heldout(
    base: Base, untrained: Base, ngram: NGram, dataset: Dataset, size: Size, log: Callable[[str], None]
) -> dict[str, dict[str, Score]]:
    """Bits per byte of held-out text by source and system: the base, its untrained twin, the n-gram."""
    documents, prefix = list[DocumentIds](), len(base.tokenizer.begun([]))
    for source in dataset.stats:
        used = 0
        for d in dataset.documents("holdout", source):
            documents += document_ids(base.loaded, [d])
            used += len(documents[-1].ids) - prefix - 1  # without the tokens that begin and end it
            if used > size.heldout_tokens // len(dataset.stats):
                break
    nats = ngram.totals([d.ids[prefix:].astype(np.int64) for d in documents])
    ours = by_source(nats_of(base.loaded, documents))
    start = by_source(nats_of(untrained.loaded, documents))
    scores: dict[str, dict[str, Score]] = {}
    for source, score in ours.items():
        indices = [i for i, d in enumerate(documents) if d.source == source]
        rival = bits_per_byte([nats[i] for i in indices], [documents[i].bytes for i in indices])
        scores[source] = {"base": score, "5-gram": rival, "untrained base": start[source]}
        log(f"{source}: {score.value:.3f} bits per byte, 5-gram {rival.value:.3f}")
    return scores
