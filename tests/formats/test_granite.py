"""Granite: what transformers says."""

from pathlib import Path
from typing import Any

import pytest
import torch

from onebase.errors import ConfigError
from onebase.formats.families import family_of
from onebase.formats.reader import ConfigReader
from onebase.model.mask import Cols
from tests.formats.parity import check_decoder, close, imported, shaken
from tests.formats.sizes import SMALL

transformers = pytest.importorskip("transformers")
ALL = {
    "embedding_multiplier": 12.0,
    "logits_scaling": 8.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.015625,
}


@pytest.mark.parametrize(
    "more",
    [{}, ALL, {"logits_scaling": 3.0, "tie_word_embeddings": True}, {"attention_multiplier": 8**-0.5}]
    + [{key: value} for key, value in ALL.items()]
    + [ALL | {"attention_bias": True, "mlp_bias": True}],
)
def test_granite(more: dict[str, Any], tmp_path: Path) -> None:
    check_decoder(transformers.GraniteForCausalLM(transformers.GraniteConfig(**SMALL | more)), tmp_path)


def test_every_multiplier_is_read() -> None:
    cfg = family_of("granite", "").read(ConfigReader(SMALL | ALL, "config.json"))
    block = cfg.trunks["text"].blocks[1]
    assert (cfg.text.scale, cfg.text.divisor) == (12.0, 8.0)
    assert (block.residual, block.attn.scale) == (0.22, 0.015625)
    plain = family_of("granite", "").read(ConfigReader(SMALL, "config.json"))
    assert (plain.text.scale, plain.text.divisor) == (None, None)
    assert plain.trunks["text"].blocks[0].attn.scale == 1.0  # what a missing key means


@pytest.mark.parametrize("key", ALL)
@pytest.mark.parametrize("value", [0, -1.0, "x", float("nan")])
def test_values_that_are_none_are_named(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        family_of("granite", "").read(ConfigReader(SMALL | {key: value}, "config.json"))


def test_tokens_one_by_one_and_losses_know_the_multipliers(tmp_path: Path) -> None:
    theirs = shaken(transformers.GraniteForCausalLM(transformers.GraniteConfig(**SMALL | ALL)))
    theirs.save_pretrained(tmp_path)
    model = imported(tmp_path)[1]
    ids = torch.arange(3, 15)[None]
    with torch.no_grad():
        want, cache = theirs(input_ids=ids).logits, model.new_cache(1, 12)
        each = [
            model.text.logits(model.hidden(ids[:, i : i + 1], Cols.simple(1, 1, start=i), cache=cache).hidden)
            for i in range(12)
        ]
    close(torch.cat(each, 1), want)
    ends = model.text
    ((_, head),) = ends.head_weights(None, 1)
    from onebase.objective.cross_entropy import token_nll

    h_ND = ends.ready(model.hidden(ids).hidden)[0, :-1]
    found = -token_nll(h_ND, head, ids[0, 1:])
    close(found, want.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0])


def test_a_divisor_beside_a_bias_is_refused() -> None:
    from onebase.modality.text.config import TextCodecConfig

    with pytest.raises(ConfigError, match="head_bias True"):
        TextCodecConfig(vocab_size=9, context=9, divisor=2.0, head_bias=True)
