"""DistilBERT: what transformers says."""

from pathlib import Path
from typing import Any

import pytest

from tests.formats.encoders import check_encoder

transformers = pytest.importorskip("transformers")
SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "dim": 32,
    "hidden_dim": 40,
    "n_layers": 2,
    "n_heads": 4,
    "max_position_embeddings": 20,
}


@pytest.mark.parametrize(
    "more", [{}, {"activation": "relu"}, {"sinusoidal_pos_embds": True}, {"tie_word_embeddings": False}]
)
def test_with_a_head(more: dict[str, Any], tmp_path: Path) -> None:
    cfg = transformers.DistilBertConfig(**SMALL | more)
    check_encoder(transformers.DistilBertForMaskedLM(cfg), tmp_path)


def test_bare(tmp_path: Path) -> None:
    check_encoder(transformers.DistilBertModel(transformers.DistilBertConfig(**SMALL)), tmp_path)
