"""Batches prompts: left padding, deduplication of equal prompts, and adapter routing for a subset of rows. B rows, T time."""

from collections.abc import Sequence

import torch
from torch import Tensor

from onebase.model.mask import Cols
from onebase.model.proj import AdapterRouting


def read_once(
    prompts: Sequence[Sequence[int]], routing: AdapterRouting | None
) -> tuple[list[int], list[int]] | None:
    """Find equal prompts under the same adapters (several answers to one question): (the rows to read, and for each row the index of its copy among
    them). None if all differ."""
    groups = () if routing is None else routing.groups
    seen: dict[tuple[object, ...], int] = {}
    first: list[int] = []
    copies: list[int] = []
    for i, prompt in enumerate(prompts):
        key = (tuple(prompt), *(rows is None or i in rows for _, rows in groups))
        if key not in seen:
            seen[key] = len(first)
            first.append(i)
        copies.append(seen[key])
    return (first, copies) if len(first) < len(copies) else None


def rows_of(routing: AdapterRouting | None, index: Sequence[int]) -> AdapterRouting | None:
    """The routing for a batch of the rows `index` of the batch that `routing` is for."""
    if routing is None:
        return None
    groups = []
    for name, rows in routing.groups:
        here = None if rows is None else tuple(i for i, old in enumerate(index) if old in rows)
        if here is None or here:
            groups.append((name, here))
    return AdapterRouting(tuple(groups))


def left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Cols]:
    """ids [B, T] and their columns, T the longest prompt's length. Padding has id 0: it is masked, and not every tokenizer has a padding token."""
    lengths = [len(p) for p in prompts]
    T = max(lengths, default=0)
    ids_BT = torch.tensor(
        [[0] * (T - len(p)) + list(p) for p in prompts], dtype=torch.long, device=device
    ).view(-1, T)
    if all(n == T for n in lengths):
        return ids_BT, Cols.simple(len(prompts), T, device)
    pos_BT = torch.arange(T, device=device) - torch.tensor([[T - n] for n in lengths], device=device)
    doc_BT = torch.where(pos_BT < 0, -1, 0)
    return ids_BT, Cols(pos_BT.clamp(min=0), doc_BT)
