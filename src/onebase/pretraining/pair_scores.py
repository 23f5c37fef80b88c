"""The scores of contrastive pretraining on held-out documents: how often a picture finds its caption among all of its source."""

import numpy as np
import torch
from numpy.typing import NDArray

from onebase.base.folder import LoadedBase
from onebase.data.captions import caption, caption_tokens
from onebase.engine.image_search import text_vectors, the_pair
from onebase.errors import DataError
from onebase.evaluation.bootstrap import Score, mean_score
from onebase.evaluation.retrieval import relevant_ranks
from onebase.pretraining.heldout import Heldout

BATCH = 64
"""Pictures read at a time."""


def recall(base: LoadedBase, held: Heldout, most: int) -> dict[str, Score]:
    """The share of held-out pictures of each source whose caption is among the `most` nearest of that source's held-out captions. Pictures with one
    caption share it; pictures that cannot be read are left out, as in training. The pool is all held-out documents that the run keeps."""
    scores = {}
    for source in held.documents:
        if source not in held.ranks:
            held.ranks[source] = _ranks(base, held, source)
        if len(ranks := held.ranks[source]):
            scores[source] = mean_score(f"recall_at_{most}", (ranks <= most).astype(np.float64))
    return scores


@torch.no_grad()
def _ranks(base: LoadedBase, held: Heldout, source: str) -> NDArray[np.int64]:
    """The rank, from 1, of each picture's caption among the captions of the source."""
    model, pair, codec = base.model, the_pair(base), base.model.cfg.image
    known = held.media.setdefault(source, {})
    texts, pixels, vectors = list[str](), list[torch.Tensor](), list[torch.Tensor]()
    for n, document in enumerate(held.documents[source]):
        if n not in known:
            try:
                known[n] = caption_tokens(document, base.codec.tokenizer, codec)
            except DataError:
                known[n] = None  # left out of training, too
        if (tokens := known[n]) is not None:
            texts.append(caption(document))
            pixels.append(torch.from_numpy(tokens.media[0].content.load()[0]))
        if pixels and (len(pixels) == BATCH or n + 1 == len(held.documents[source])):
            read = torch.stack(pixels).to(model.device)
            pooled_BD = model.image.pooled(model.states("image", read).hidden)
            vectors.append(pair.placed(pooled_BD, "src").cpu())
            pixels = []
    if not vectors:
        return np.zeros(0, np.int64)
    different = list(dict.fromkeys(texts))
    cosines_NC = torch.cat(vectors) @ text_vectors(base, different).T
    place = {text: i for i, text in enumerate(different)}
    return np.array([r[0] for r in relevant_ranks(cosines_NC.numpy(), [[place[t]] for t in texts])])
