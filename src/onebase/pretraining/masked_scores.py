"""The score of masked language modelling on held-out documents."""

import numpy as np
import torch

from onebase.base.folder import LoadedBase
from onebase.evaluation.bootstrap import Score, mean_score
from onebase.modality.text.sample import Tokens
from onebase.objective.masked import Masked, mask_id, ordinary
from onebase.pretraining.heldout import Heldout


@torch.no_grad()
def nats_per_masked_token(base: LoadedBase, held: Heldout) -> dict[str, Score]:
    """The loss (nats) per hidden token of each source: the mean over documents. 15% of the tokens are replaced by the mask token, the same ones in
    every call; a document is read up to the length of a row."""
    tokenizer = base.codec.tokenizer
    objective = Masked(held.length, mask_id(tokenizer), ordinary(tokenizer), masked=1.0, random=0.0)
    scores = {}
    for source, documents in held.documents.items():
        found, left = list[float](), held.tokens // len(held.documents)
        for n, document in enumerate(documents):
            ids = np.asarray(tokenizer.encode(document.text, bos=True, eos=True)[: held.length], np.int32)
            if found and left < len(ids):
                break
            left -= len(ids)
            batch = objective.batch([[Tokens(ids, np.ones(len(ids), np.bool_))]], n).to(base.model.device)
            if batch.counts["masked"]:
                nats, count = objective.losses(base.model, batch)["masked"]
                found.append(float(nats) / count)
        if found:
            scores[source] = mean_score("nats_per_masked_token", found)
    return scores
