"""Vectors of texts by pooling: against sums by hand, padding on either side."""

import pytest
import torch
from torch import Tensor

from onebase.errors import ConfigError
from onebase.modality.text.pooling import EmbeddingConfig, Pooling, pooled


def by_hand(texts: list[Tensor], pooling: Pooling) -> Tensor:
    made = {
        "mean": lambda x: x.mean(0),
        "cls": lambda x: x[0],
        "last": lambda x: x[-1],
        "max": lambda x: x.max(0).values,
    }[pooling]
    return torch.stack([made(x) for x in texts])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "max"])
def test_padding_is_not_looked_at(pooling: Pooling, side: str) -> None:
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randn(n, 6, generator=generator) for n in (5, 1, 3)]
    hidden, live = torch.full((3, 5, 6), 9.0), torch.zeros(3, 5, dtype=torch.bool)
    for i, text in enumerate(texts):
        at = slice(0, len(text)) if side == "right" else slice(5 - len(text), 5)
        hidden[i, at], live[i, at] = text, True
    found = pooled(hidden, live, EmbeddingConfig(pooling=pooling))
    torch.testing.assert_close(found, by_hand(texts, pooling))
    unit = pooled(hidden, live, EmbeddingConfig(pooling=pooling, normalise=True))
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(unit * found.norm(dim=-1, keepdim=True), found)


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="limit"):
        EmbeddingConfig(limit=0)
