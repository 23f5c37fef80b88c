"""Rotary positions stretched by YaRN, dynamically, and by LongRoPE behind a cache: what transformers says, or a refusal."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import onebase
from onebase.base.folder import LoadedBase
from onebase.engine.decoder import generate
from onebase.engine.sampler import Sampling
from onebase.errors import ConfigError, UserError
from onebase.modality.text.codec import TextCodec
from onebase.model.mask import Cols
from tests.formats.parity import check_decoder, close, imported, shaken
from tests.formats.sizes import SMALL
from tests.formats.test_hf import make
from tests.formats.test_phi3 import LONG, made
from tests.helpers import tiny_base

transformers = pytest.importorskip("transformers")
YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}
KINDS = {"llama": ("LlamaConfig", "LlamaForCausalLM"), "qwen2": ("Qwen2Config", "Qwen2ForCausalLM")}


def model_of(kind: str, **more: Any) -> Any:
    config, model = KINDS[kind]
    sizes = {k: v for k, v in SMALL.items() if k != "original_max_position_embeddings"}
    return getattr(transformers, model)(
        getattr(transformers, config)(**sizes | {"max_position_embeddings": 64} | more)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"beta_fast": 4.0, "beta_slow": 0.5},
        {"attention_factor": 1.3},
        {"mscale": 1.2, "mscale_all_dim": 0.7},
        {"truncate": False},
        {"factor": 0.5},
        {"original_max_position_embeddings": 48, "factor": 1.25, "rope_theta": 100.0},
    ],
)
def test_yarn(kind: str, more: dict[str, Any], tmp_path: Path) -> None:
    theirs = model_of(kind, rope_parameters=YARN | more)
    model = check_decoder(theirs, tmp_path, 40, (17, 18))
    rope = model.cfg.trunks["text"].blocks[0].attn.rope
    assert rope is not None and rope.scaling is not None and rope.scaling.kind == "yarn"
    assert rope.scaling.attention == theirs.model.rotary_emb.attention_scaling


def test_yarn_changes_angles_and_their_size(tmp_path: Path) -> None:
    """So that the tests above compare more than plain rotary positions."""
    plain = shaken(model_of("llama"))
    ids = torch.arange(3, 33)[None]
    for more in ({}, {"attention_factor": 1.0}):
        other = model_of("llama", rope_parameters=YARN | more)
        other.load_state_dict(plain.state_dict())
        with torch.no_grad():
            assert (plain(input_ids=ids).logits - other.eval()(input_ids=ids).logits).abs().max() > 1e-3


def test_yarn_in_an_older_config(tmp_path: Path) -> None:
    """As Qwen 2.5's instructions have it: `rope_scaling` with "type"."""
    theirs = shaken(model_of("qwen2", rope_parameters=dict(YARN)))
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["rope_parameters"]
    config |= {
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    ids = torch.arange(3, 43)[None]
    with torch.no_grad():
        close(imported(tmp_path)[1].logits(ids), theirs(input_ids=ids).logits)


def test_dynamic_is_plain_up_to_the_context_and_refused_beyond(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 3.0}
    model = check_decoder(
        model_of("llama", rope_parameters=rope, max_position_embeddings=24), tmp_path, 24, (9, 10)
    )
    with pytest.raises(UserError, match="at most 24 tokens"):
        model.logits(torch.zeros(1, 25, dtype=torch.long))
    scaling = model.cfg.trunks["text"].blocks[0].attn.rope.scaling
    assert (scaling.kind, scaling.factor, scaling.original) == ("dynamic", 3.0, 24)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"factor": 0.0}, "factor"),
        ({"beta_fast": 1.0, "beta_slow": 2.0}, "beta_fast"),
        ({"truncate": 3}, "truncate"),
        ({"attention_factor": -1.0}, "attention_factor"),
        ({"mscale": "x"}, "mscale"),
        ({"ramp": 2}, "ramp"),
        ({"rope_type": "llama3", "mscale": 1.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}, "mscale"),
        ({"rope_type": "dynamic", "factor": math.inf}, "factor"),
        ({"rope_type": "ntk"}, "ntk"),
    ],
)
def test_values_that_are_none_are_named(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    model_of("llama", rope_parameters=dict(YARN)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["rope_parameters"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=named):
        imported(tmp_path)


IDLE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (YARN, {"attn_factor": 1.0}),
    (YARN, {"attn_factor": 2.5, "extrapolation_factor": 1.0}),
    (YARN, {"finetuned": True}),
    (YARN, {"type": "yarn", "finetuned": False}),
    (YARN, {"type": "linear"}),
    (YARN, {"low_freq_factor": 1.0, "short_factor": [1.0]}),
    ({"rope_type": "linear", "factor": 2.0}, {"original_max_position_embeddings": 16, "finetuned": True}),
    ({"rope_type": "linear", "factor": 2.0}, {"beta_fast": 32, "beta_slow": 1, "attention_factor": 3.0}),
    ({"rope_type": "dynamic", "factor": 2.0}, {"attn_factor": 1, "beta_fast": 32, "truncate": False}),
    ({"rope_type": "default"}, {"factor": 4.0, "mrope_section": [2, 1, 1], "type": "mrope"}),
    (
        {
            "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
        {"attn_factor": 1.5, "attention_factor": 2.0},
    ),
]  # fmt: skip


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize(("rope", "more"), IDLE)
def test_keys_that_nothing_reads_are_passed_over(
    rope: dict[str, Any], more: dict[str, Any], new: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """DeepSeek-R1#684, Yarn-Llama-2: what transformers makes of such a config is what is made of it here."""
    model_of("llama", rope_parameters={"rope_theta": 10000.0} | rope).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    key = "rope_parameters" if new else "rope_scaling"
    config |= {"rope_theta": 10000.0, "rope_parameters": None} | {key: rope | more | {"rope_theta": 10000.0}}
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.arange(3, 43)[None]
    with caplog.at_level(logging.WARNING, "onebase"), torch.no_grad():
        close(imported(tmp_path)[1].logits(ids), theirs(input_ids=ids).logits)
    for name in more.keys() - {"type"}:
        assert f"{key}: {name} is" in caplog.text


def test_what_was_passed_over_is_in_the_record(tmp_path: Path) -> None:
    make(tmp_path, "qwen", rope_parameters=dict(YARN))
    config = json.loads((tmp_path / "config.json").read_text())
    config["rope_parameters"] |= {"attn_factor": 1.0, "finetuned": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = onebase.load(tmp_path).record.get("imported.unread")
    assert {"rope_parameters: attn_factor", "rope_parameters: finetuned"} <= set(found)


def longrope(tmp_path: Path, original: int) -> tuple[Any, Any]:
    theirs = shaken(
        made(rope_parameters=dict(LONG), original_max_position_embeddings=original, vocab_size=300)
    )
    theirs.save_pretrained(tmp_path)
    return theirs, imported(tmp_path)[1]


def test_a_cache_that_would_cross_is_refused(tmp_path: Path) -> None:
    _, model = longrope(tmp_path, 8)
    ids = torch.arange(3, 15)[None]
    cache = model.new_cache(1, 12)
    model.hidden(ids[:, :7], Cols.simple(1, 7), cache=cache)
    model.hidden(ids[:, 7:8], Cols.simple(1, 1, start=7), cache=cache)
    with pytest.raises(UserError, match="from token 9 on"):
        model.hidden(ids[:, 8:9], Cols.simple(1, 1, start=8), cache=cache)
    whole = model.new_cache(1, 12)
    model.hidden(ids[:, :9], Cols.simple(1, 9), cache=whole)
    model.hidden(ids[:, 9:10], Cols.simple(1, 1, start=9), cache=whole)


def test_rows_on_both_sides_are_each_as_alone(tmp_path: Path) -> None:
    theirs, model = longrope(tmp_path, 8)
    ids = torch.arange(3, 15)[None]
    alone = model.logits(ids[:, :6])
    both = torch.cat((ids, torch.cat((torch.zeros(1, 6, dtype=torch.long), ids[:, :6]), 1)))
    steps = torch.arange(12)
    cols = Cols(
        torch.stack((steps, (steps - 6).clamp(min=0))), torch.stack((steps * 0, (steps >= 6).long() - 1))
    )
    found = model.text.logits(model.hidden(both, cols).hidden)
    close(found[1, 6:], alone[0])
    with torch.no_grad():
        close(found[0], theirs(input_ids=ids).logits[0])
        close(alone, theirs(input_ids=ids[:, :6]).logits)


def test_an_answer_ends_where_positions_begin_to_turn_otherwise(tmp_path: Path) -> None:
    """As at the end of a context; a prompt beyond that place goes on to the end of the context."""
    _, model = longrope(tmp_path, 24)
    base = LoadedBase(model.eval(), TextCodec(tiny_base().codec.tokenizer))
    prompts = [list(range(70, 90)), list(range(70, 100))]
    both = generate(base, prompts, Sampling(max_tokens=30, temperature=0.0))
    alone = [generate(base, [p], Sampling(max_tokens=30, temperature=0.0))[0] for p in prompts]
    assert [c.ids for c in both] == [c.ids for c in alone]
    assert (len(alone[0].ids), alone[0].finish) == (4, "length") or alone[0].finish == "stop"
    for prompt, answer in zip(prompts, alone, strict=True):
        ids = torch.tensor([[*prompt, *answer.ids]])
        logits = model.logits(ids[:, :-1])[0, len(prompt) - 1 :, : base.codec.tokenizer.vocab_size]
        assert logits.argmax(-1).tolist() == list(answer.ids)
