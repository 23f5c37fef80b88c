"""BERT: what transformers says."""

from pathlib import Path
from typing import Any

import pytest
import torch

from onebase.errors import ArtifactError, ConfigError
from onebase.formats.hf.folder import HFFolder, save_folder
from tests.formats.encoders import check_encoder
from tests.formats.parity import imported, shaken

transformers = pytest.importorskip("transformers")
SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 20,
}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3},
        {"hidden_act": "relu", "type_vocab_size": 3},
        {"tie_word_embeddings": False},
    ],
)
def test_with_a_head(more: dict[str, Any], tmp_path: Path) -> None:
    cfg = transformers.BertConfig(**SMALL | more)
    check_encoder(transformers.BertForMaskedLM(cfg), tmp_path)


@pytest.mark.parametrize("pooler", [True, False])
def test_bare(pooler: bool, tmp_path: Path) -> None:
    bare = transformers.BertModel(transformers.BertConfig(**SMALL), add_pooling_layer=pooler)
    model = check_encoder(bare, tmp_path)
    assert not model.cfg.text.head


def test_of_pretraining_the_sentence_head_is_left_out(tmp_path: Path) -> None:
    there = shaken(transformers.BertForPreTraining(transformers.BertConfig(**SMALL)))
    there.save_pretrained(tmp_path)
    _, model = imported(tmp_path)
    ids = torch.arange(3, 15)[None]
    torch.testing.assert_close(
        model.logits(ids), there(input_ids=ids).prediction_logits, atol=1e-5, rtol=1e-5
    )


def test_a_head_for_another_task_is_refused_by_name(tmp_path: Path) -> None:
    cfg = transformers.BertConfig(**SMALL)
    transformers.BertForSequenceClassification(cfg).save_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match=r"no rule reads tensor 'classifier\.bias'"):
        imported(tmp_path)


def test_counted_positions_are_looked_at(tmp_path: Path) -> None:
    bare = transformers.BertModel(transformers.BertConfig(**SMALL))
    bare.save_pretrained(tmp_path)
    source = HFFolder(tmp_path)
    tensors = {name: source.read(name).clone() for name in source.shapes()}
    counted = torch.arange(20)[None]
    save_folder(tmp_path, source.config, tensors | {"embeddings.position_ids": counted})
    imported(tmp_path)
    save_folder(tmp_path, source.config, tensors | {"embeddings.position_ids": counted.flip(1)})
    with pytest.raises(ArtifactError, match="position_ids"):
        imported(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("is_decoder", True),
        ("add_cross_attention", True),
        ("position_embedding_type", "relative_key"),
        ("hidden_act", "mish"),
        ("type_vocab_size", 0),
        ("num_hidden_layers", 10**6),
    ],
)
def test_what_the_trunk_lacks_is_refused_by_name(key: str, value: Any, tmp_path: Path) -> None:
    transformers.BertModel(transformers.BertConfig(**SMALL)).save_pretrained(tmp_path)
    source = HFFolder(tmp_path)
    tensors = {name: source.read(name).clone() for name in source.shapes()}
    save_folder(tmp_path, source.config | {key: value}, tensors)
    with pytest.raises(ConfigError, match=key):
        imported(tmp_path)


def test_old_names_of_norms(tmp_path: Path) -> None:
    there = shaken(transformers.BertForMaskedLM(transformers.BertConfig(**SMALL)))
    there.save_pretrained(tmp_path)
    source = HFFolder(tmp_path)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): (
            source.read(name).clone()
        )
        for name in source.shapes()
    }
    assert sum(name.endswith("gamma") for name in old) == 6
    save_folder(tmp_path, source.config, old)
    _, model = imported(tmp_path)
    ids = torch.arange(3, 15)[None]
    torch.testing.assert_close(model.logits(ids), there(input_ids=ids).logits, atol=1e-5, rtol=1e-5)
