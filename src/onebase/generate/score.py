"""How likely given tokens are. B rows, T time, D width."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from onebase.base.folder import LoadedBase
from onebase.generate.engine import rows_of
from onebase.generate.request import check_prompts
from onebase.model.mask import Cols
from onebase.model.proj import Active
from onebase.objective.cross_entropy import per_token_nll

BATCH_TOKENS = 8192  # padded tokens in one forward


@torch.inference_mode()
def score(
    base: LoadedBase,
    ids_list: Sequence[Sequence[int]],
    active: Active | None = None,
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> list[NDArray[np.float32]]:
    """Log-probabilities in nats, fp32: for n ids an array of n - 1, [t] = log p(ids[t + 1] | ids[: t + 1]).

    The same numbers as training's loss and the engine's `logprobs`; all logits are never held. Raises PromptTooLong for ids
    beyond the context, UserError for none or unknown ones.
    """
    check_prompts(base, ids_list, room=0, active=active)
    model, ends = base.model, base.model.text
    out: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(ids_list)
    for index in batches([len(ids) for ids in ids_list], batch_tokens):
        T = max(len(ids_list[i]) for i in index)
        ids_BT = torch.zeros(len(index), T, dtype=torch.long)
        targets_BT = torch.full((len(index), T), -100)
        for b, i in enumerate(index):
            row = torch.as_tensor(np.asarray(ids_list[i], np.int64))
            ids_BT[b, : len(row)] = row
            targets_BT[b, : len(row) - 1] = row[1:]
        # Padding stands behind the last token of its row, where no causal mask looks, so no row needs one of its own.
        cols = Cols.simple(len(index), T, model.device)
        here = rows_of(active, index)
        if any(model.leading(here, len(index))):  # whose positions must not run beyond the context
            lengths = torch.tensor([len(ids_list[i]) for i in index], device=model.device)
            cols = Cols.padded(lengths, T)
        h_BTD = model.hidden(ids_BT.to(model.device), cols, active=here).hidden
        logp_BT = np.zeros((len(index), T), np.float32)
        for rows, weight_VD in ends.head_weights(here, len(index)):
            wanted_N = targets_BT[rows].to(model.device).flatten()
            h_ND = ends.ready(h_BTD[rows].flatten(0, 1))
            nll_N = per_token_nll(h_ND, weight_VD, wanted_N, ends.cfg.softcap, bias=ends.head.bias)
            logp_BT[rows] = -nll_N.view(-1, T).float().cpu().numpy()
        for b, i in enumerate(index):
            out[i] = logp_BT[b, : len(ids_list[i]) - 1].copy()
    return out


def batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Rows of like lengths together, `tokens` at most with padding (a longer row stands alone)."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and (len(batch) + 1) * lengths[i] > tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
