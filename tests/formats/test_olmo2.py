"""OLMo 2: what transformers says."""

from pathlib import Path
from typing import Any

import pytest
import torch

from onebase.errors import ConfigError
from onebase.formats.families import family_of
from onebase.formats.family import written
from tests.formats.parity import check_decoder, imported, shaken
from tests.formats.sizes import LLAMA3, SMALL

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"tie_word_embeddings": True, "num_key_value_heads": 4},
        {"attention_bias": True, "rms_norm_eps": 1e-3},
        {"rope_parameters": LLAMA3},
    ],
)
def test_olmo2(more: dict[str, Any], tmp_path: Path) -> None:
    model = check_decoder(transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**SMALL | more)), tmp_path)
    block = model.cfg.trunks["text"].blocks[0]
    assert block.norms.where == "out" and block.attn.qk_norm_whole
    k_norm = dict(model.named_parameters())["trunks.text.blocks.0.attn.k_norm.weight"]
    assert k_norm.shape == (block.attn.kv_heads * block.attn.head_dim,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_decoded_one_by_one_are_those_of_the_whole_row(dtype: torch.dtype, tmp_path: Path) -> None:
    """The fast decode path says what the modules say."""
    theirs = shaken(transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**SMALL)))
    theirs.save_pretrained(tmp_path)
    model = imported(tmp_path)[1].to(dtype)
    model.compute_dtype = dtype
    ids = torch.arange(3, 15)[None]
    with torch.no_grad():
        whole, cache = model.logits(ids), model.new_cache(1, 12)
        each = [
            model.text.logits(model.hidden(ids[:, i : i + 1], _cols(i), cache=cache).hidden)
            for i in range(12)
        ]
    far = (torch.cat(each, 1) - whole).abs().max() / whole.abs().max()
    assert far < (1e-5 if dtype == torch.float32 else 0.05)


def _cols(i: int) -> Any:
    from onebase.model.mask import Cols

    return Cols.simple(1, 1, start=i)


def test_llama_cannot_say_it(tmp_path: Path) -> None:
    transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**SMALL)).save_pretrained(tmp_path)
    _, model = imported(tmp_path)
    with pytest.raises(ConfigError, match="the llama layout cannot express"):
        written(family_of("llama", ""), model.cfg)
