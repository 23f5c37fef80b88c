"""What heads say of texts: numbers, and spans. N texts, T tokens, D width, P pooled features, C outputs."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from onebase.adapt.folder import Attached
from onebase.adapt.head import Head
from onebase.adapt.spans import Span, spans_of, token_places
from onebase.api.texts import batch_tokens, features, text_tokens
from onebase.base.folder import LoadedBase
from onebase.codec.text.sample import Tokens
from onebase.generate.score import batches
from onebase.model.proj import Active
from onebase.objective.pooled import text_batch


def token_states(base: LoadedBase, texts: Sequence[Tokens], active: Active | None) -> list[Tensor]:
    """The hidden state of each token of each text, fp32 [T, D] on the CPU: 4 D bytes a token."""
    return _each(base, texts, active, lambda h_BTD: h_BTD.float())


@torch.no_grad()
def _each(
    base: LoadedBase, texts: Sequence[Tokens], active: Active | None, of: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """`of` the states of each text, [T, ...] on the CPU, in the order given. Texts of like length share a batch."""
    device = base.model.device
    out: list[Tensor] = [torch.empty(0)] * len(texts)
    for part in batches([len(t) for t in texts], batch_tokens(device)):
        read = text_batch([texts[j] for j in part])
        h_BTD = base.model.hidden(read.ids_BT.to(device), read.cols.to(device), active=active).hidden
        for j, row in zip(part, of(h_BTD).cpu(), strict=True):
            out[j] = row[: len(texts[j])].clone()
    return out


def _head(on: Attached) -> Head:
    head = on.base.model.heads[on.name]
    assert isinstance(head, Head)
    return head


@torch.no_grad()
def values(on: Attached, texts: Sequence[str]) -> list[float]:
    """The number of each text, in the units of the data that the adapter learnt from."""
    cfg, base = on.config.head, on.base
    assert cfg is not None
    if not texts:
        return []
    read = text_tokens(base, texts, before=base.model.leading(on.active, 1)[0])
    head = _head(on)
    z_N1 = head(features(base, read, cfg.pooling, on.active).to(head.weight_CP.device))
    return (cfg.mean + cfg.scale * z_N1[:, 0].cpu().double()).tolist()


def spans(on: Attached, texts: Sequence[str]) -> list[list[Span]]:
    """The spans of each text, in its order."""
    cfg, base = on.config.head, on.base
    assert cfg is not None
    read = text_tokens(base, texts, before=base.model.leading(on.active, 1)[0])
    first = len(base.codec.tokenizer.begun([]))
    out = []
    for text, tags_T in zip(texts, _each(base, read, on.active, _likeliest(_head(on))), strict=True):
        places = token_places(base.codec.tokenizer, text)
        tags = tags_T[first : first + len(places)].tolist()
        out.append(spans_of(tags, places, cfg.labels, text))
    return out


def _likeliest(head: Head) -> Callable[[Tensor], Tensor]:
    return lambda h_BTD: head(h_BTD).argmax(-1)
