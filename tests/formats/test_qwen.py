"""Qwen 2 and 3: what transformers says."""

import json
from pathlib import Path
from typing import Any

import pytest

from onebase.errors import ConfigError
from tests.formats.parity import check_decoder, imported
from tests.formats.sizes import LLAMA3, SMALL

transformers = pytest.importorskip("transformers")
SMALL = SMALL | {"num_hidden_layers": 3}
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
VARIANTS: list[dict[str, Any]] = [
    {},
    {"tie_word_embeddings": True, "sliding_window": 4, "use_sliding_window": False},
    {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    {"use_sliding_window": True, "sliding_window": 4, "layer_types": MIXED},
    {"use_sliding_window": True, "sliding_window": None},
    {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e6, "factor": 2.0}},
    {"rope_parameters": LLAMA3, "num_key_value_heads": 1},
]


@pytest.mark.parametrize("more", [*VARIANTS, {"head_dim": 12}])
def test_qwen2(more: dict[str, Any], tmp_path: Path) -> None:
    model = check_decoder(transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SMALL | more)), tmp_path)
    assert model.cfg.trunks["text"].blocks[0].attn.bias == ("q", "k", "v")


@pytest.mark.parametrize("more", [*VARIANTS, {"attention_bias": True}])
def test_qwen3(more: dict[str, Any], tmp_path: Path) -> None:
    cfg = transformers.Qwen3Config(**SMALL | {"head_dim": 12} | more)
    check_decoder(transformers.Qwen3ForCausalLM(cfg), tmp_path)


@pytest.mark.parametrize(
    ("kind", "more", "windows"),
    [
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}, [None, 4, 4]),
        ("qwen2", {"use_sliding_window": False, "sliding_window": 4, "max_window_layers": 1}, [None] * 3),
        ("qwen3", {"use_sliding_window": True, "max_window_layers": 2}, [None, None, 4096]),
        ("qwen3", {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0}, [None] * 3),
    ],
)
def test_windows_of_older_configs(
    kind: str, more: dict[str, Any], windows: list[int | None], tmp_path: Path
) -> None:
    """Configs from before `layer_types`: a switch, a size, and the first block that has it."""
    from onebase.formats.families import family_of
    from onebase.formats.reader import Reader

    cfg = family_of(kind, "").read(Reader(SMALL | more, "config.json"))
    assert [b.attn.window for b in cfg.trunks["text"].blocks] == windows


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"layer_types": MIXED[:2]}, "layer_types"),
        ({"layer_types": ["chunked_attention"] * 3}, "layer_types"),
        ({"layer_types": MIXED, "use_sliding_window": False}, "sliding_window"),
        ({"rope_parameters": {"rope_type": "ntk", "rope_theta": 1e4, "factor": 4.0}}, "rope_type"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
    ],
)
def test_what_the_trunk_lacks_is_named(wrong: dict[str, Any], named: str, tmp_path: Path) -> None:
    transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SMALL)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | wrong))
    with pytest.raises(ConfigError, match=named):
        imported(tmp_path)
