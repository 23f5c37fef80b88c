"""ModernBERT: what transformers says, in windows and beyond them."""

from pathlib import Path
from typing import Any

import pytest

from onebase.errors import ConfigError
from onebase.formats.families import modernbert
from onebase.formats.reader import Reader
from tests.formats.encoders import check_encoder

transformers = pytest.importorskip("transformers")
SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "local_attention": 8,
    "pad_token_id": 1,
}
ROPES = {
    "full_attention": {"rope_type": "default", "rope_theta": 500.0},
    "sliding_attention": {"rope_type": "linear", "rope_theta": 20.0, "factor": 2.0},
}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True},
        {"decoder_bias": False, "classifier_activation": "relu", "hidden_activation": "silu"},
        {"rope_parameters": ROPES, "local_attention": 5},
        {"layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]},
        {"tie_word_embeddings": False},
    ],
)
def test_with_a_head(more: dict[str, Any], tmp_path: Path) -> None:
    cfg = transformers.ModernBertConfig(**SMALL | more)
    check_encoder(transformers.ModernBertForMaskedLM(cfg), tmp_path, length=24)


def test_bare(tmp_path: Path) -> None:
    check_encoder(transformers.ModernBertModel(transformers.ModernBertConfig(**SMALL)), tmp_path, length=24)


def test_the_keys_of_transformers_4() -> None:
    old = SMALL | {
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 300.0,
        "local_rope_theta": None,
        "local_attention": 128,
    }
    blocks = modernbert.FAMILY.read(Reader(old, "config.json")).trunks["text"].blocks
    assert [b.attn.window for b in blocks] == [None, 65, None, 65]
    assert {b.attn.rope.base for b in blocks if b.attn.rope} == {300.0}
    assert [b.norms.attn for b in blocks] == [False, True, True, True]


def test_a_kind_of_block_that_is_not_known_is_refused() -> None:
    odd = SMALL | {"layer_types": ["full_attention"] * 3 + ["chunked_attention"]}
    with pytest.raises(ConfigError, match="layer_types"):
        modernbert.FAMILY.read(Reader(odd, "config.json"))
