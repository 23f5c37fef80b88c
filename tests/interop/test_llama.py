"""Llama and Mistral: what transformers says."""

from pathlib import Path
from typing import Any

import pytest

from tests.interop.parity import check_decoder

transformers = pytest.importorskip("transformers")
SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"tie_word_embeddings": True},
        {"rope_parameters": LLAMA3},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0}},
        {"attention_bias": True, "mlp_bias": True, "head_dim": 16},
    ],
)
def test_llama(more: dict[str, Any], tmp_path: Path) -> None:
    cfg = transformers.LlamaConfig(**SMALL | more)
    check_decoder(transformers.LlamaForCausalLM(cfg), tmp_path)


@pytest.mark.parametrize("window", [4, None])
def test_mistral_beyond_its_window(window: int | None, tmp_path: Path) -> None:
    cfg = transformers.MistralConfig(**SMALL, sliding_window=window)
    check_decoder(transformers.MistralForCausalLM(cfg), tmp_path)
