"""Embedding and head of the text codec: ids to vectors, vectors to logits. V vocabulary, D width."""

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.errors import UserError
from onebase.modality.text.config import TextCodecConfig, TransformConfig
from onebase.modality.text.rows import EndDelta, FewRows, HeadMatrix
from onebase.model.config import StorageConfig
from onebase.model.feedforward import ACTIVATIONS
from onebase.model.kernels.packed import PackedLinear, WeightPart, places_of
from onebase.model.kernels.storage import Stored, stored
from onebase.model.kernels.weight_cache import place
from onebase.model.norm import Norm
from onebase.model.proj import AdapterRouting


class TextStem(nn.Module):
    """Token ids and positions [B, T] to vectors [B, T, D]."""

    def __init__(self, cfg: TextCodecConfig, width: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.weight: nn.Parameter | None = nn.Parameter(torch.empty(cfg.vocab_size, width))
        self.store: Stored | None = None
        self.few: FewRows | None = None
        self.positions = nn.Parameter(torch.empty(cfg.positions, width)) if cfg.positions else None
        self.types = nn.Parameter(torch.empty(cfg.types, width)) if cfg.types else None

    def forward(
        self,
        ids_BT: Tensor,
        pos_BT: Tensor,
        doc_BT: Tensor | None = None,
        types_BT: Tensor | None = None,
    ) -> Tensor:
        x_BTD = self.tokens(ids_BT)
        if self.cfg.dropped is not None:
            x_BTD = x_BTD * _shared(ids_BT == self.cfg.dropped, doc_BT)[..., None]
        return self.placed(x_BTD, pos_BT, types_BT)

    def tokens(self, ids_BT: Tensor) -> Tensor:
        """Scaled vectors of tokens, without positions."""
        if self.weight is None:
            assert self.store is not None
            x_BTD = self.store.rows(ids_BT, torch.float32)
        else:
            x_BTD = F.embedding(ids_BT, self.weight) if self.few is None else self.few(ids_BT)
            # What is added later must not be rounded to the dtype in which the matrix is stored.
            x_BTD = x_BTD.to(torch.promote_types(x_BTD.dtype, torch.float32))
        return x_BTD if self.cfg.scale is None else x_BTD * self.cfg.scale

    def placed(self, x_BTD: Tensor, pos_BT: Tensor, types_BT: Tensor | None = None) -> Tensor:
        """Add position and type vectors to token vectors (None: all of type 0; types beyond the table use its last row)."""
        if self.positions is not None:
            x_BTD = x_BTD + F.embedding(pos_BT + self.cfg.first_position, self.positions)
        if self.types is None:
            return x_BTD
        types_BT = None if types_BT is None else types_BT.clamp(max=len(self.types) - 1)
        return x_BTD + (self.types[0] if types_BT is None else F.embedding(types_BT, self.types))


def _shared(dropped_BT: Tensor, doc_BT: Tensor | None) -> Tensor:
    """0 for a dropped token, else (tokens of its text) / (those not dropped). Without `doc` a row is one text."""
    doc_BT = torch.zeros_like(dropped_BT, dtype=torch.long) if doc_BT is None else doc_BT
    same_BTT = doc_BT[:, :, None] == doc_BT[:, None, :]
    kept_BT = (same_BTT & ~dropped_BT[:, None, :]).sum(-1)
    return (same_BTT.sum(-1) / kept_BT.clamp(min=1)).masked_fill(dropped_BT, 0.0)


class Transform(nn.Module):
    """norm(act(dense(h))), see TransformConfig."""

    def __init__(self, cfg: TransformConfig, width: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.weight = nn.Parameter(torch.empty(width, width))
        self.bias = nn.Parameter(torch.zeros(width)) if cfg.bias else None
        self.norm = Norm(cfg.norm, width)

    def forward(self, h: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(h.dtype)
        out: Tensor = self.norm(ACTIVATIONS[self.cfg.activation](F.linear(h, self.weight.to(h.dtype), bias)))
        return out


class TextHead(nn.Module):
    """The head's own matrix (none when tied to the stem), bias and transform."""

    def __init__(self, cfg: TextCodecConfig, width: int) -> None:
        super().__init__()
        own = cfg.head and not cfg.tied
        self.weight = nn.Parameter(torch.empty(cfg.vocab_size, width)) if own else None
        self.store: Stored | None = None
        self.bias = nn.Parameter(torch.zeros(cfg.vocab_size)) if cfg.head_bias else None
        self.transform = Transform(cfg.transform, width) if cfg.transform else None


class TextModule(nn.Module):
    """Stem and head of one text codec. `deltas` are what adapters add to their rows, by adapter name.

    All code that embeds or predicts tokens uses `embed` and `logits` or `head_weights`, which apply the adapters.
    """

    def __init__(self, cfg: TextCodecConfig, width: int) -> None:
        super().__init__()
        self.cfg, self.width = cfg, width
        self.stem = TextStem(cfg, width)
        self.head = TextHead(cfg, width)
        self.deltas = nn.ModuleDict()
        self._joint = PackedLinear(self)

    @property
    def head_weight_VD(self) -> Tensor:
        """The base's output matrix: the head's own, or the stem's when tied. Raises UserError when there is none."""
        if not self.cfg.head:
            raise UserError(
                "this base returns hidden states and predicts no tokens",
                "use embed, hidden, or a head or LoRA that classifies",
            )
        if (store := self._head_store) is not None:
            return store.dense(torch.float32)
        weight = self.stem.weight if self.head.weight is None else self.head.weight
        assert weight is not None
        return weight

    @property
    def part(self) -> WeightPart:
        """The output matrix as it is stored, and its bias."""
        store = self._head_store
        end = self.stem if self.cfg.tied else self.head
        places = (*places_of(end, store), place(self.head, "bias"))
        return WeightPart(self.head_weight_VD if store is None else store, self.head.bias, places)

    @property
    def _head_store(self) -> Stored | None:
        return self.stem.store if self.cfg.tied else self.head.store

    def keep_in(self, cfg: StorageConfig, *, take: bool) -> None:
        """Replace the output matrix by a quantized store (see `Proj.keep_in`); when tied, the embedding reads it too."""
        end = self.stem if self.cfg.tied else self.head
        if cfg.head is None or end.weight is None:
            return
        store = stored(cfg.head, cfg.group, self.width, self.cfg.vocab_size).to(end.weight.device)
        if take:
            store.take(end.weight)
        end.weight, end.store = None, store

    def embed(
        self,
        ids_BT: Tensor,
        pos_BT: Tensor,
        dtype: torch.dtype,
        routing: AdapterRouting | None = None,
        doc_BT: Tensor | None = None,
        types_BT: Tensor | None = None,
    ) -> Tensor:
        """Embed token ids: ids, positions in their documents, document numbers and types, all [B, T], to vectors [B, T, D]."""
        x_BTD: Tensor = self.stem(ids_BT, pos_BT, doc_BT, types_BT)
        for delta, rows in self._acting(routing):
            index = slice(None) if rows is None else torch.tensor(rows, device=ids_BT.device)
            if (added := delta.stem(ids_BT[index], self.cfg.scale)) is None:
                continue
            if isinstance(index, slice):
                x_BTD = x_BTD + added
            else:
                x_BTD = x_BTD.index_add(0, index, added.to(x_BTD.dtype))
        return x_BTD.to(dtype)

    def ready(self, h: Tensor) -> Tensor:
        """Hidden states as the output matrix reads them: after the head's transform, if any, and divided by the logits' divisor."""
        h = h if self.head.transform is None else self.head.transform(h)
        return h if self.cfg.divisor is None else h / self.cfg.divisor

    def logits(self, h: Tensor, routing: AdapterRouting | None = None, *, decoding: bool = False) -> Tensor:
        """fp32 logits [B, ..., V] of hidden states [B, ..., D]. decoding: these are generated tokens (`PackedLinear.ready`)."""
        h = self.ready(h)
        fast = self._joint(h, decoding)
        z = self._dense_logits(h) if fast is None else fast
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        for delta, rows in self._acting(routing):
            if rows is None:
                z = delta.add_logits(z, h)
            else:
                index = torch.tensor(rows, device=h.device)
                z = z.index_copy(0, index, delta.add_logits(z[index], h[index]))
        z, cap = z.float(), self.cfg.softcap
        return z if cap is None else cap * torch.tanh(z / cap)

    def _dense_logits(self, h: Tensor) -> Tensor:
        bias = None if self.head.bias is None else self.head.bias.to(h.dtype)
        if (store := self._head_store) is None:
            return F.linear(h, self.head_weight_VD.to(h.dtype), bias)
        z: Tensor = store(h)
        return z if bias is None else z + bias

    def head_weights(
        self, routing: AdapterRouting | None, batch: int
    ) -> list[tuple[list[int] | slice, HeadMatrix]]:
        """The output matrix [V, D] with adapters merged, for each set of batch rows that shares one; its input is `ready` states.

        For a loss that takes a matrix instead of logits. Rows are a full slice unless adapters differ among them.
        """
        acting = list(self._acting(routing))
        by: dict[tuple[int, ...], list[int]] = {}
        for b in range(batch):
            here = tuple(i for i, (_, rows) in enumerate(acting) if rows is None or b in rows)
            by.setdefault(here, []).append(b)
        out: list[tuple[list[int] | slice, HeadMatrix]] = []
        for here, index in by.items():
            weight_VD, deltas = self.head_weight_VD, [acting[i][0] for i in here]
            for delta in deltas:
                weight_VD = delta.head_added(weight_VD)
            matrix = HeadMatrix(weight_VD, tuple(r for d in deltas for r in d.rows))
            out.append((slice(None) if len(by) == 1 else index, matrix))
        return out

    def _acting(self, routing: AdapterRouting | None) -> Iterator[tuple[EndDelta, tuple[int, ...] | None]]:
        """The active adapters with a delta here, and the batch rows that each acts on (None: all)."""
        for name, rows in routing.groups if routing is not None and self.deltas else ():
            if name in self.deltas:
                delta = self.deltas[name]
                assert isinstance(delta, EndDelta)
                yield delta, rows

    @torch.no_grad()
    def untie(self) -> None:
        """Give the head a matrix of its own, equal to the stem's; logits stay the same."""
        if self.head.weight is None:
            assert self.stem.weight is not None
            self.head.weight = nn.Parameter(self.stem.weight.clone(), self.stem.weight.requires_grad)
            self.cfg = replace(self.cfg, tied=False)

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Initialise the weights."""
        assert self.stem.weight is not None
        nn.init.normal_(self.stem.weight, 0.0, self.cfg.embed_std, generator)
        for table in (self.stem.positions, self.stem.types):
            if table is not None:
                nn.init.normal_(table, 0.0, self.cfg.embed_std, generator)
        if self.head.transform is not None:
            nn.init.normal_(self.head.transform.weight, 0.0, self.width**-0.5, generator)
        if self.head.weight is not None:
            nn.init.normal_(self.head.weight, 0.0, self.cfg.head_std, generator)
