"""GPT-2: what transformers says, and the buffers of old checkpoints."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from onebase.artifact.tensors import save_tensors
from onebase.errors import ArtifactError, ConfigError
from tests.formats.parity import check_decoder, close, imported, shaken, weights_of

transformers = pytest.importorskip("transformers")
TINY: dict[str, Any] = {"vocab_size": 50, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 20}


def made(**more: Any) -> Any:
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**TINY | tokens | more))


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"tie_word_embeddings": False},
        {"n_inner": 48, "activation_function": "relu", "layer_norm_epsilon": 1e-3},
        {"activation_function": "quick_gelu"},
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True, "activation_function": "gelu"},
        {"scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": False},
    ],
)
def test_gpt2(more: dict[str, Any], tmp_path: Path) -> None:
    check_decoder(made(**more), tmp_path)


def test_the_whole_table_of_positions(tmp_path: Path) -> None:
    check_decoder(made(), tmp_path, length=20)


def test_a_second_sequence_is_refused(tmp_path: Path) -> None:
    made(add_cross_attention=True).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="add_cross_attention"):
        imported(tmp_path)


def old(folder: Path, **buffers: torch.Tensor) -> Any:
    """A trunk saved without its head and prefix, with the buffers that older versions kept: as the first GPT-2 is."""
    model = shaken(made())
    model.transformer.save_pretrained(folder)
    tensors = weights_of(folder)
    assert "h.0.attn.c_attn.weight" in tensors
    triangle = torch.ones(20, 20).tril()[None, None]
    for i in range(3):
        tensors[f"h.{i}.attn.bias"] = buffers.get("bias", triangle)
        tensors[f"h.{i}.attn.masked_bias"] = buffers.get("masked_bias", torch.tensor(-1e4))
    save_tensors(folder / "model.safetensors", tensors)
    return model


def test_an_old_checkpoint(tmp_path: Path) -> None:
    theirs = old(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"n_ctx": 20}))
    _, model = imported(tmp_path)
    ids = torch.arange(3, 15)[None]
    with torch.no_grad():
        close(model.logits(ids), theirs(input_ids=ids).logits)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bias", torch.ones(1, 1, 20, 20)),
        ("bias", torch.ones(20)),
        ("masked_bias", torch.tensor(0.0)),
    ],
)
def test_buffers_that_say_something_else(name: str, value: torch.Tensor, tmp_path: Path) -> None:
    old(tmp_path, **{name: value})
    with pytest.raises(ArtifactError, match=rf"h\.0\.attn\.{name}"):
        imported(tmp_path)
