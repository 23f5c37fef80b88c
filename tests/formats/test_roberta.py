"""RoBERTa and XLM-RoBERTa: what transformers says."""

from pathlib import Path
from typing import Any

import pytest

from onebase.errors import ConfigError
from onebase.formats.families import roberta
from onebase.formats.reader import Reader
from tests.formats.encoders import check_encoder
from tests.formats.test_bert import SMALL

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"pad_token_id": 2, "type_vocab_size": 1},
        {"hidden_act": "relu"},
        {"tie_word_embeddings": False},
    ],
)
def test_roberta(more: dict[str, Any], tmp_path: Path) -> None:
    cfg = transformers.RobertaConfig(**SMALL | more)
    model = check_encoder(transformers.RobertaForMaskedLM(cfg), tmp_path, pad=cfg.pad_token_id)
    assert model.cfg.text.first_position == cfg.pad_token_id + 1


def test_the_context_is_what_the_table_leaves(tmp_path: Path) -> None:
    cfg = transformers.RobertaConfig(**SMALL)
    model = check_encoder(transformers.RobertaModel(cfg), tmp_path, length=18)
    assert model.cfg.text.context == 18 and not model.cfg.text.head


def test_a_padding_token_below_0_is_refused() -> None:
    cfg = transformers.RobertaConfig(**SMALL).to_dict() | {"pad_token_id": -3}
    with pytest.raises(ConfigError, match="pad_token_id"):
        roberta.FAMILY.read(Reader(cfg, "config.json"))


@pytest.mark.parametrize("name", ["XLMRobertaForMaskedLM", "XLMRobertaModel"])
def test_xlm(name: str, tmp_path: Path) -> None:
    check_encoder(getattr(transformers, name)(transformers.XLMRobertaConfig(**SMALL)), tmp_path)
