"""Phi 3: what transformers says, and LongRoPE on both sides of the context first trained on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from onebase.errors import ConfigError
from tests.formats.parity import check_decoder, close, imported, shaken
from tests.formats.sizes import SMALL

transformers = pytest.importorskip("transformers")
LONG: dict[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.3, 1.7],
    "long_factor": [1.0, 2.5, 4.0, 8.0],
}
HALF = LONG | {"partial_rotary_factor": 0.5, "short_factor": [1.0, 1.2], "long_factor": [1.5, 6.0]}


def made(**more: Any) -> Any:
    return transformers.Phi3ForCausalLM(transformers.Phi3Config(**SMALL | more))


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"tie_word_embeddings": True, "sliding_window": 4},
        {"num_key_value_heads": None},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    ],
)
def test_phi3(more: dict[str, Any], tmp_path: Path) -> None:
    check_decoder(made(**more), tmp_path)


@pytest.mark.parametrize("rope", [LONG, HALF, LONG | {"attention_factor": 1.25}, LONG | {"factor": 3.0}])
@pytest.mark.parametrize(
    ("original", "length", "cuts"),
    [
        (16, 16, (5, 6)),  # short divisors: up to `original` tokens
        (16, 17, (17,)),  # long ones: from the next token on
        (6, 16, (8, 9)),  # a cache filled with more than `original` tokens at once
    ],
)
def test_longrope(
    rope: dict[str, Any], original: int, length: int, cuts: tuple[int, ...], tmp_path: Path
) -> None:
    rope = dict(rope)  # they write into it
    theirs = made(rope_parameters=rope, original_max_position_embeddings=original)
    model = check_decoder(theirs, tmp_path, length, tuple(c for c in cuts if c < length))
    attn = model.cfg.trunks["text"].blocks[0].attn
    assert attn.rope is not None and attn.rope.scaling is not None
    assert attn.rope.scaling.attention == theirs.model.rotary_emb.attention_scaling


@pytest.mark.parametrize("kind", ["longrope", "su"])
def test_an_older_config(kind: str, tmp_path: Path) -> None:
    """`rope_theta`, `rope_scaling` with "type", and the part that turns at the top."""
    scaling = {"type": kind, "short_factor": HALF["short_factor"], "long_factor": HALF["long_factor"]}
    theirs = shaken(made(rope_parameters=dict(HALF), original_max_position_embeddings=8))
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["rope_parameters"]
    config |= {"rope_theta": 10000.0, "rope_scaling": scaling, "partial_rotary_factor": 0.5}
    (tmp_path / "config.json").write_text(json.dumps(config))
    _, model = imported(tmp_path)
    for length in (8, 12):
        ids = torch.arange(3, 3 + length)[None]
        with torch.no_grad():
            close(model.logits(ids), theirs(input_ids=ids).logits)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rope_parameters": LONG | {"short_factor": [1.0]}}, "short_factor"),
        ({"rope_parameters": LONG | {"long_factor": [1.0, 2.0, 0.0, 4.0]}}, "long_factor"),
        ({"rope_parameters": LONG | {"long_mscale": 1.2}}, "long_mscale"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "rope_parameters"),
        ({"partial_rotary_factor": 0.01}, "partial_rotary_factor"),
        ({"attention_bias": True}, "attention_bias"),
    ],
)
def test_what_the_trunk_lacks_is_named(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    made().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    if "partial_rotary_factor" in change:
        del config["rope_parameters"]
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ConfigError, match=named):
        imported(tmp_path)
