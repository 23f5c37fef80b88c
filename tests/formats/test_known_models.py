"""Configs of models that people use: read, and the parameters counted are as many as the model is known to have.

The values are those of each model's published config.json, less the keys that do not say what it computes.
"""

from typing import Any

import pytest

from onebase.base.config import base_parameters
from onebase.formats.families import family_of
from onebase.formats.reader import Reader

LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def sizes(vocab: int, width: int, ff: int, layers: int, heads: int, kv: int, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": ff,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
    } | more


KNOWN: list[tuple[str, str, dict[str, Any], int]] = [
    ("GPT-2", "gpt2", {"n_ctx": 1024}, 124_439_808),
    (
        "SmolLM2-135M",
        "llama",
        sizes(49152, 576, 1536, 30, 9, 3, tie_word_embeddings=True, rope_theta=100000, is_llama_config=True)
        | {"rope_interleaved": False, "rope_scaling": None, "pretraining_tp": 1, "rms_norm_eps": 1e-5},
        134_515_008,
    ),
    (
        "Llama-3.2-1B",
        "llama",
        sizes(128256, 2048, 8192, 16, 32, 8, head_dim=64, tie_word_embeddings=True, rope_theta=500000.0)
        | {"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 8192}, "mlp_bias": False},
        1_235_814_400,
    ),
    (
        "Mistral-7B-v0.1",
        "mistral",
        sizes(32000, 4096, 14336, 32, 32, 8, sliding_window=4096, tie_word_embeddings=False),
        7_241_732_096,
    ),
    (
        "Qwen2.5-0.5B",
        "qwen2",
        sizes(151936, 896, 4864, 24, 14, 2, tie_word_embeddings=True, rope_theta=1000000.0)
        | {"use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 24},
        494_032_768,
    ),
    (
        "Qwen3-0.6B",
        "qwen3",
        sizes(151936, 1024, 3072, 28, 16, 8, head_dim=128, tie_word_embeddings=True, rope_theta=1000000)
        | {"attention_bias": False, "use_sliding_window": False, "sliding_window": None},
        596_049_920,
    ),
    (
        "gemma-2-2b",
        "gemma2",
        sizes(256000, 2304, 9216, 26, 8, 4, head_dim=256, query_pre_attn_scalar=256, sliding_window=4096)
        | {"hidden_act": "gelu_pytorch_tanh", "attn_logit_softcapping": 50.0, "rope_theta": 10000.0},
        2_614_341_888,
    ),
    (
        "gemma-3-270m",
        "gemma3_text",
        sizes(262144, 640, 2048, 18, 4, 1, head_dim=256, query_pre_attn_scalar=256, sliding_window=512)
        | {"rope_local_base_freq": 10000.0, "rope_theta": 1000000.0, "rope_scaling": None}
        | {"_sliding_window_pattern": 6, "use_bidirectional_attention": False},
        268_098_176,
    ),
    (
        "Phi-3-mini-4k",
        "phi3",
        sizes(32064, 3072, 8192, 32, 32, 32, sliding_window=2047, tie_word_embeddings=False)
        | {"rope_scaling": None, "original_max_position_embeddings": 4096, "attention_bias": False},
        3_821_079_552,
    ),
    (
        "SmolLM3-3B",
        "smollm3",
        sizes(128256, 2048, 11008, 36, 16, 4, rope_theta=5000000.0, use_sliding_window=False),
        3_075_098_624,
    ),
]


@pytest.mark.parametrize(("name", "kind", "config", "parameters"), KNOWN, ids=[k[0] for k in KNOWN])
def test_a_known_model(name: str, kind: str, config: dict[str, Any], parameters: int) -> None:
    cfg = family_of(kind, name).read(Reader(config, name))
    assert base_parameters(cfg) == parameters


def test_gemma_3_sees_the_whole_context_in_every_sixth_block() -> None:
    config = next(c for n, _, c, _ in KNOWN if n == "gemma-3-270m")
    blocks = family_of("gemma3_text", "").read(Reader(config, "")).trunks["text"].blocks
    windows = [b.attn.window for b in blocks]
    assert windows == [512, 512, 512, 512, 512, None] * 3
    assert [b.attn.rope.base for b in blocks if b.attn.rope] == [1e4 if w else 1e6 for w in windows]
