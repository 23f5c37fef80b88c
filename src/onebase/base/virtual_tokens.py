"""Virtual tokens of an adapter before the first token of a row: a soft prompt (input vectors) or a prefix (keys and values in the cache).

Code that builds ids does not handle them: `BaseModel.hidden` inserts them and removes their positions from its result. B batch, T time,
P virtual tokens, D width, G key heads, H head features.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from onebase.errors import UserError
from onebase.modality.text.modules import TextStem
from onebase.model.cache import Cache
from onebase.model.mask import Cols
from onebase.model.proj import AdapterRouting


class SoftPrompt(nn.Module):
    """Vectors [P, D] in place of the embeddings of P tokens (Lester et al., 2104.08691)."""

    def __init__(self, vectors_PD: Tensor) -> None:
        super().__init__()
        self.vectors_PD = nn.Parameter(vectors_PD)

    @property
    def count(self) -> int:
        return len(self.vectors_PD)


class Prefix(nn.Module):
    """Keys and values [P, G, H] of each block, as if P tokens were in the cache (Li and Liang, 2101.00190)."""

    def __init__(self, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        super().__init__()
        self.keys, self.values = nn.ParameterList(keys), nn.ParameterList(values)

    @property
    def count(self) -> int:
        return len(self.keys[0])


VirtualTokens = SoftPrompt | Prefix


class BatchVirtualTokens:
    """The virtual tokens of one kind that act on a batch, and which of them each row has, if any."""

    def __init__(
        self, virtual: nn.ModuleDict, kind: type[VirtualTokens], routing: AdapterRouting | None, batch: int
    ) -> None:
        self.found: list[VirtualTokens] = []
        self.which_B = [-1] * batch
        for name, rows in routing.groups if routing is not None else ():
            if name not in virtual or not isinstance(tokens := virtual[name], kind):
                continue
            for b in range(batch) if rows is None else rows:
                assert self.which_B[b] < 0, "at most one soft prompt and one prefix per row"
                self.which_B[b] = len(self.found)
            self.found.append(tokens)

    @property
    def counts_B(self) -> list[int]:
        """Number of virtual tokens before each row."""
        return [self.found[i].count if i >= 0 else 0 for i in self.which_B]

    def rows(self, parts: Sequence[Tensor]) -> Tensor:
        """[B, P, ...]: the tensor [p, ...] of each row, selected from one tensor per item of `found`; zero padded, zeros for no item."""
        P = max(map(len, parts))
        wide = [torch.cat((t, t.new_zeros(P - len(t), *t.shape[1:]))) for t in parts]
        wide.append(torch.zeros_like(wide[0]))  # index -1
        return torch.stack(wide)[self.which_B]

    def cols(self, start_B: Sequence[int], device: torch.device) -> Cols:
        """Columns [B, P] of the virtual tokens, positions from `start` on. Missing ones are padding."""
        places_B1 = torch.tensor(self.counts_B, device=device)[:, None]
        step_P = torch.arange(int(max(self.counts_B)), device=device)
        here_BP = step_P < places_B1
        pos_BP = torch.where(here_BP, step_P + torch.tensor(start_B, device=device)[:, None], 0)
        return Cols(pos_BP, torch.where(here_BP, 0, -1))


def acting(
    virtual: nn.ModuleDict, routing: AdapterRouting | None, batch: int
) -> tuple[BatchVirtualTokens, BatchVirtualTokens]:
    """The prefixes and the soft prompts that act on a batch."""
    return BatchVirtualTokens(virtual, Prefix, routing, batch), BatchVirtualTokens(
        virtual, SoftPrompt, routing, batch
    )


def shifted(cols: Cols, before_B: Sequence[int], context: int | None) -> Cols:
    """The columns of tokens, shifted past the virtual tokens of their rows. context: the base's, where these are the first tokens of
    their rows. Raises UserError where both do not fit in it."""
    pos_BT = cols.pos + torch.tensor(before_B, device=cols.pos.device)[:, None]
    pos_BT = torch.where(cols.doc >= 0, pos_BT, 0)
    if context is not None:
        assert int(cols.doc.max()) <= 0, "virtual tokens need rows of one document"
        if (longest := int(pos_BT.max()) + 1) > context:
            raise UserError(
                f"{longest} tokens, {max(before_B)} of them virtual tokens of the adapter, exceed the context of {context}",
                "shorten the text",
            )
    return replace(cols, pos=pos_BT, single=False)


def with_soft_prompts(
    x_BTD: Tensor, cols: Cols, softs: BatchVirtualTokens, start_B: Sequence[int], stem: TextStem
) -> tuple[Tensor, Cols]:
    """The input and columns of a trunk with the soft prompts prepended, their positions from `start` on."""
    front = softs.cols(start_B, x_BTD.device)
    prompt_BPD = softs.rows([s.vectors_PD for s in softs.found if isinstance(s, SoftPrompt)])
    return torch.cat((stem.placed(prompt_BPD, front.pos).to(x_BTD.dtype), x_BTD), 1), Cols.cat((front, cols))


def fill_cache(cache: Cache, front: BatchVirtualTokens, dtype: torch.dtype, device: torch.device) -> None:
    """Write the prefixes into an empty cache; gradients reach them."""
    prefixes = [p for p in front.found if isinstance(p, Prefix)]
    cache.extend(front.cols([0] * len(front.which_B), device))
    for i, layer in enumerate(cache.layers):
        k_BPGH, v_BPGH = (
            front.rows(list(parts)).to(dtype) for parts in zip(*((p.keys[i], p.values[i]) for p in prefixes))
        )
        layer.append(k_BPGH.transpose(1, 2), v_BPGH.transpose(1, 2))
