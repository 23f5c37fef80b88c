"""A key that a config.json leaves out means what transformers takes for it."""

import json
from typing import Any

import pytest

from onebase.formats.families import family_of
from onebase.formats.reader import Reader

transformers = pytest.importorskip("transformers")
LEAN: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 64,
    "intermediate_size": 40,
    "num_hidden_layers": 31,
    "num_attention_heads": 32,
}
ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize(
    ("kind", "name", "more"),
    [
        ("llama", "Llama", {}),
        ("llama", "Llama", {"rope_scaling": ROPE}),
        ("llama", "Llama", {"rope_scaling": ROPE, "original_max_position_embeddings": 64}),
        ("mistral", "Mistral", {}),
        ("qwen2", "Qwen2", {}),
        ("qwen2", "Qwen2", {"use_sliding_window": True}),
        ("qwen3", "Qwen3", {}),
        ("qwen3", "Qwen3", {"use_sliding_window": True}),
        ("gemma2", "Gemma2", {}),
        ("gemma3_text", "Gemma3Text", {}),
        ("gemma3_text", "Gemma3Text", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
        ("gemma3_text", "Gemma3Text", {"sliding_window_pattern": 3, "rope_theta": 5e5}),
        ("phi3", "Phi3", {}),
        ("smollm3", "SmolLM3", {}),
        ("smollm3", "SmolLM3", {"use_sliding_window": True, "sliding_window": 8}),
    ],
)
def test_missing_keys(kind: str, name: str, more: dict[str, Any]) -> None:
    lean = LEAN | more
    full = getattr(transformers, f"{name}Config")(**json.loads(json.dumps(lean)))
    whole = Reader(json.loads(full.to_json_string(use_diff=False)), "full")
    family = family_of(kind, "a test")
    assert family.read(Reader(lean, "lean")) == family.read(whole)


@pytest.mark.parametrize("lean", [{}, {"n_layer": 2}, {"n_inner": 40}])
def test_missing_keys_of_gpt2(lean: dict[str, Any]) -> None:
    full = json.loads(transformers.GPT2Config(**lean).to_json_string(use_diff=False))
    family = family_of("gpt2", "a test")
    assert family.read(Reader(lean, "lean")) == family.read(Reader(full, "full"))
