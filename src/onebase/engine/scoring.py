"""Log-probabilities of given tokens. B rows, T time, D width."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.engine.batching import rows_of
from onebase.engine.request import check_prompts
from onebase.model.mask import Cols
from onebase.model.proj import AdapterRouting
from onebase.objective.cross_entropy import per_token_nll

LOGITS = 256  # rows of logits in memory at once
SPARSE = 1.25  # largest ratio of tokens with padding to tokens


@torch.inference_mode()
def score(
    base: LoadedBase,
    ids_list: Sequence[Sequence[int]],
    routing: AdapterRouting | None = None,
    *,
    tokens: int | None = None,
) -> list[NDArray[np.float32]]:
    """Log-probabilities in nats, fp32: for n ids an array of n - 1, [t] = log p(ids[t + 1] | ids[: t + 1]).

    The same numbers as training's loss and the engine's `logprobs`; the logits are never all in memory. Raises PromptTooLong for ids beyond the
    context, UserError for empty lists or unknown ids.
    """
    check_prompts(base, ids_list, room=0, routing=routing)
    ends = base.model.text
    out: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(ids_list)
    for index, h_BTD, here in _read(base, ids_list, routing, tokens):
        T = h_BTD.shape[1]
        targets_BT = torch.full((len(index), T), -100)
        for b, i in enumerate(index):
            targets_BT[b, : len(ids_list[i]) - 1] = torch.as_tensor(np.asarray(ids_list[i], np.int64))[1:]
        logp_BT = np.zeros((len(index), T), np.float32)
        for rows, head in ends.head_weights(here, len(index)):
            wanted_N = targets_BT[rows].to(h_BTD.device).flatten()
            h_ND = ends.ready(h_BTD[rows].flatten(0, 1))
            nll_N = per_token_nll(h_ND, head.weight_VD, wanted_N, ends.cfg.softcap, bias=ends.head.bias)
            logp_BT[rows] = -nll_N.view(-1, T).float().cpu().numpy()
        for b, i in enumerate(index):
            out[i] = logp_BT[b, : len(ids_list[i]) - 1].copy()
    return out


@torch.inference_mode()
def score_ends(
    base: LoadedBase,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    routing: AdapterRouting | None = None,
    *,
    tokens: int | None = None,
) -> list[tuple[float, bool]]:
    """(log p(end | start) in nats, whether greedy decoding would give that end) for each pair of start and end (token ids, at least one each).
    The last token is predicted, not read: start and end may have one token more than the context.

    Raises PromptTooLong, UserError.
    """
    rows = [[*start, *end][:-1] for start, end in pairs]
    check_prompts(base, rows, room=0, routing=routing)
    out: list[tuple[float, bool]] = [(0.0, True)] * len(rows)
    for index, h_BTD, here in _read(base, rows, routing, tokens):
        for b, i in enumerate(index):
            end_N = torch.as_tensor(np.asarray(pairs[i][1], np.int64)).to(h_BTD.device)
            first = len(rows[i]) - len(end_N)
            total, greedy = 0.0, True
            for n in range(0, len(end_N), LOGITS):
                wanted_N = end_N[n : n + LOGITS]
                h_1ND = h_BTD[b : b + 1, first + n : first + n + len(wanted_N)]
                logp_NV = base.model.text.logits(h_1ND, rows_of(here, [b]))[0].log_softmax(-1)
                total += float(logp_NV.gather(-1, wanted_N[:, None]).sum())
                greedy = greedy and bool((logp_NV.argmax(-1) == wanted_N).all())
            out[i] = total, greedy
    return out


def _read(
    base: LoadedBase, ids_list: Sequence[Sequence[int]], routing: AdapterRouting | None, tokens: int | None
) -> Iterator[tuple[list[int], Tensor, AdapterRouting | None]]:
    """Batches of rows: their indices, last hidden states [B, T, D], and adapter routing."""
    model = base.model
    for index in batches([len(ids) for ids in ids_list], tokens or batch_tokens(model.device)):
        T = max(len(ids_list[i]) for i in index)
        ids_BT = torch.zeros(len(index), T, dtype=torch.long)
        for b, i in enumerate(index):
            ids_BT[b, : len(ids_list[i])] = torch.as_tensor(np.asarray(ids_list[i], np.int64))
        # Padding is after the last token of its row, which a causal mask hides, so no row needs a mask of its own.
        cols = Cols.simple(len(index), T, model.device)
        here = rows_of(routing, index)
        if any(model.virtual_counts(here, len(index))):  # their positions must not exceed the context
            lengths = torch.tensor([len(ids_list[i]) for i in index], device=model.device)
            cols = Cols.padded(lengths, T)
        yield index, model.hidden(ids_BT.to(model.device), cols, routing=here).hidden, here


def batch_tokens(device: torch.device) -> int:
    """Padded tokens per forward. On CPUs batches that fit in the caches are faster: bases of 3M to 135M parameters take the same time between 1,024
    and 4,096, and half as much again at 8,192."""
    return 2048 if device.type == "cpu" else 32768


def batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Group rows of similar length into batches of at most `tokens` with padding (a longer row is a batch of its own). An eighth of that keeps a device
    busy: such a batch takes no longer row that would make more than a fifth of it padding."""
    batch: list[int] = []
    real = 0
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        padded = (len(batch) + 1) * lengths[i]
        sparse = real >= tokens // 8 and padded > SPARSE * (real + lengths[i])
        if batch and (padded > tokens or sparse):
            yield batch
            batch, real = [], 0
        batch.append(i)
        real += lengths[i]
    if batch:
        yield batch
