"""Llama and Mistral: what transformers says."""

import copy
from pathlib import Path
from typing import Any

import pytest

from onebase.errors import ConfigError
from onebase.formats.families import family_of
from onebase.formats.reader import ConfigReader
from tests.formats.parity import check_decoder
from tests.formats.sizes import LLAMA3, SMALL

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"tie_word_embeddings": True},
        {"rope_parameters": LLAMA3},
        {"rope_parameters": LLAMA3, "original_max_position_embeddings": 8},  # this one wins there
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0}},
        {"attention_bias": True, "mlp_bias": True, "head_dim": 16},
    ],
)
def test_llama(more: dict[str, Any], tmp_path: Path) -> None:
    cfg = transformers.LlamaConfig(**copy.deepcopy(SMALL | more))
    check_decoder(transformers.LlamaForCausalLM(cfg), tmp_path)


@pytest.mark.parametrize("window", [4, None])
def test_mistral_beyond_its_window(window: int | None, tmp_path: Path) -> None:
    cfg = transformers.MistralConfig(**SMALL, sliding_window=window)
    check_decoder(transformers.MistralForCausalLM(cfg), tmp_path)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"pretraining_tp": 2}, "pretraining_tp"),
        ({"rope_interleaved": True}, "rope_interleaved"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"rope_scaling": {"type": "ntk", "factor": 2.0}}, "'type' is 'ntk'"),
        ({"rope_scaling": {"rope_type": "proportional", "factor": 2.0}}, "'rope_type' is 'proportional'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0.0}}, "factor"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor"),
        ({"rope_scaling": LLAMA3 | {"high_freq_factor": 1.0}}, "high_freq_factor"),
        ({"rope_scaling": 8}, "rope_scaling"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "full_attention"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"num_key_value_heads": 3}, "4 query heads cannot share 3"),
        ({"head_dim": 7}, "need an even number"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"rope_theta": -1.0}, "rope_theta"),
        ({"vocab_size": None}, "vocab_size"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ],
)
def test_what_the_trunk_lacks_is_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as e:
        family_of("llama", "").read(ConfigReader(SMALL | wrong, "config.json"))
    assert named in e.value.cause and e.value.cause.startswith("config.json")


def test_windows_that_differ_between_blocks_are_no_mistral() -> None:
    with pytest.raises(ConfigError, match="layer_types"):
        family_of("mistral", "").read(
            ConfigReader(SMALL | {"layer_types": ["full_attention"] * 2}, "config.json")
        )
