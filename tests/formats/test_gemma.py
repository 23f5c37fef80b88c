"""Gemma 2 and 3: what transformers says."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from onebase.artifact.tensors import save_tensors
from onebase.errors import ConfigError
from onebase.formats.families import family_of
from onebase.formats.reader import Reader
from tests.formats.parity import check_decoder, close, imported, shaken, weights_of
from tests.formats.sizes import SMALL

transformers = pytest.importorskip("transformers")
BASE: dict[str, Any] = SMALL | {
    "num_hidden_layers": 3,
    "head_dim": 8,
    "query_pre_attn_scalar": 12,
    "sliding_window": 4,
}
FULL, SLIDING = "full_attention", "sliding_attention"
ROPES = {
    FULL: {"rope_type": "linear", "rope_theta": 5e5, "factor": 8.0},
    SLIDING: {"rope_type": "default", "rope_theta": 2e4},
}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"tie_word_embeddings": False, "query_pre_attn_scalar": 8},
        {"attn_logit_softcapping": None, "final_logit_softcapping": None},
        {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        {"attention_bias": True, "hidden_activation": "gelu"},
        {"layer_types": [FULL, FULL, SLIDING], "head_dim": 12},
        {"layer_types": [FULL] * 3},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 5e4, "factor": 2.0}},
    ],
)
def test_gemma2(more: dict[str, Any], tmp_path: Path) -> None:
    check_decoder(transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**BASE | more)), tmp_path)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"tie_word_embeddings": False, "query_pre_attn_scalar": 8},
        {"final_logit_softcapping": 3.0, "attention_bias": True},
        {"rope_parameters": ROPES},
        {"sliding_window_pattern": 2},
        {"layer_types": [FULL, SLIDING, FULL], "rope_parameters": ROPES},
        {"layer_types": [FULL] * 3},
    ],
)
def test_gemma3(more: dict[str, Any], tmp_path: Path) -> None:
    cfg = transformers.Gemma3TextConfig(**BASE | more)
    check_decoder(transformers.Gemma3ForCausalLM(cfg), tmp_path)


def older(folder: Path, change: dict[str, Any], drop: tuple[str, ...]) -> Any:
    """A saved Gemma 3 whose config is written as before transformers 5."""
    more = {"layer_types": [SLIDING, FULL, SLIDING], "rope_parameters": ROPES}
    theirs = shaken(transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**BASE | more)))
    theirs.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config = {k: v for k, v in config.items() if k not in drop} | change
    (folder / "config.json").write_text(json.dumps(config))
    return theirs


def same(theirs: Any, folder: Path) -> None:
    _, model = imported(folder)
    ids = torch.arange(3, 15)[None]
    with torch.no_grad():
        close(model.logits(ids), theirs(input_ids=ids).logits)


OLD: dict[str, Any] = {
    "rope_theta": 5e5,
    "rope_local_base_freq": 2e4,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    "sliding_window_pattern": 2,
}


def test_gemma3_before_transformers_5(tmp_path: Path) -> None:
    dropped = ("rope_parameters", "layer_types", "_sliding_window_pattern")
    theirs = older(tmp_path, OLD, dropped)
    same(theirs, tmp_path)
    ids = torch.arange(3, 15)[None]
    again = transformers.Gemma3ForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():  # they understand the old spelling so, too
        close(again(input_ids=ids).logits, theirs(input_ids=ids).logits)


@pytest.mark.parametrize("form", ["model.language_model.", "language_model.model."])
def test_gemma3_inside_a_config_for_text_and_images(form: str, tmp_path: Path) -> None:
    theirs = older(tmp_path, {}, ())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": config}))
    tensors = weights_of(tmp_path)
    tensors = {form + name.removeprefix("model."): x for name, x in tensors.items()}
    save_tensors(tmp_path / "model.safetensors", tensors)
    same(theirs, tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, "rope_theta"),
        ({"hidden_activation": "relu"}, "hidden_activation"),
        ({"model_type": "gemma3", "text_config": {}, "vision_config": {"hidden_size": 8}}, "vision_config"),
    ],
)
def test_what_the_trunk_lacks_is_named(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    older(tmp_path, change, ())
    with pytest.raises(ConfigError, match=named):
        imported(tmp_path)


def test_a_config_inside_itself_is_refused() -> None:
    config: dict[str, Any] = {"model_type": "gemma3"}
    for _ in range(5000):
        config = {"text_config": config}
    with pytest.raises(ConfigError, match="hidden_size"):
        family_of("gemma3", "").read(Reader(config, "config.json"))
