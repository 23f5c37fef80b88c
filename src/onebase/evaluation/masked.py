"""Pseudo-likelihood of texts for encoders: each token masked in turn, given all others. B rows, T time, D width, V vocabulary.

Salazar et al., "Masked Language Model Scoring", 1910.14659: the sum over a text is its pseudo-log-likelihood.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from onebase.base.folder import LoadedBase
from onebase.engine.scoring import batch_tokens, batches
from onebase.errors import UserError
from onebase.modality.text.tokenizer import Tokenizer
from onebase.model.mask import Cols
from onebase.model.proj import AdapterRouting

MASKS = ("[MASK]", "<mask>")
"""Names of the mask token in vocabularies."""


def mask_id(tokenizer: Tokenizer) -> int:
    """The id of the mask token. Raises UserError if there is none."""
    for name in MASKS:
        if name in tokenizer.specials:
            return tokenizer.specials[name]
    raise UserError(
        f"the vocabulary of this base has no mask token ({' or '.join(MASKS)})",
        "use a base trained with masked language modelling, or a decoder",
    )


@torch.inference_mode()
def masked_score(
    base: LoadedBase, texts: Sequence[Sequence[int]], routing: AdapterRouting | None = None
) -> list[NDArray[np.float64]]:
    """Log-probability of each id of each text in nats, given the others of its text; texts are ids without special tokens ([CLS], [SEP]).

    A text of T tokens costs T rows. Raises UserError for a base without a language model head or mask token, or a text beyond its context.
    """
    tok, model = base.codec.tokenizer, base.model
    _ = model.text.head_weight_VD  # raises if there is none
    mask, front = mask_id(tok), len(tok.begun([]))
    context = model.cfg.text.context
    positions: list[tuple[int, int]] = []
    framed = [tok.framed(ids) for ids in texts]
    for n, (ids, whole) in enumerate(zip(texts, framed, strict=True)):
        if len(whole) > context:
            raise UserError(
                f"text {n + 1} has {len(whole)} tokens, the base reads {context}", "shorten or drop it"
            )
        positions += [(n, front + t) for t in range(len(ids))]
    out = [np.zeros(len(ids)) for ids in texts]
    for index in batches([len(framed[n]) for n, _ in positions], batch_tokens(model.device)):
        rows = [positions[i] for i in index]
        lengths = torch.tensor([len(framed[n]) for n, _ in rows], device=model.device)
        ids_BT = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
        for b, (n, t) in enumerate(rows):
            ids_BT[b, : len(framed[n])] = torch.tensor(framed[n])
            ids_BT[b, t] = mask
        cols = Cols.padded(lengths, ids_BT.shape[1])
        h_BTD = model.hidden(ids_BT.to(model.device), cols, routing=routing).hidden
        at_B = torch.tensor([t for _, t in rows], device=model.device)
        h_BD = h_BTD[torch.arange(len(rows), device=model.device), at_B]
        logp_BV = model.text.logits(h_BD[:, None], routing)[:, 0].log_softmax(-1)
        target_B = torch.tensor([framed[n][t] for n, t in rows], device=model.device)
        for (n, t), logp in zip(rows, logp_BV.gather(-1, target_B[:, None])[:, 0].tolist(), strict=True):
            out[n][t - front] = logp
    return out
