"""MPNet: what transformers says."""

from pathlib import Path
from typing import Any

import pytest
import torch

from onebase.base.config import base_parameters
from onebase.errors import ConfigError
from onebase.formats.families import family_of
from onebase.formats.family import written
from onebase.formats.reader import Reader
from onebase.model.config import RelativeConfig
from onebase.model.mask import Cols
from tests.formats.encoders import check_encoder
from tests.formats.parity import close, imported, shaken
from tests.formats.test_bert import SMALL

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("more", [{}, {"hidden_act": "relu"}, {"tie_word_embeddings": False}])
def test_with_a_head(more: dict[str, Any], tmp_path: Path) -> None:
    cfg = transformers.MPNetConfig(**SMALL | more)
    model = check_encoder(transformers.MPNetForMaskedLM(cfg), tmp_path)
    assert model.cfg.trunks["text"].relative == RelativeConfig()
    assert base_parameters(model.cfg) == sum(p.numel() for p in model.parameters())


def test_distances_of_every_bucket(tmp_path: Path) -> None:
    """Beyond the largest distance too; and the bucket's number is learnt."""
    cfg = transformers.MPNetConfig(**SMALL | {"max_position_embeddings": 182})
    model = check_encoder(transformers.MPNetModel(cfg), tmp_path, length=180)
    assert model.trunk.relative is not None and model.trunk.relative.grad is not None
    assert int((model.trunk.relative.grad.abs().sum(1) > 0).sum()) == 31  # no key is 0 away and ahead


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_kernels_say_the_same(dtype: torch.dtype, tmp_path: Path) -> None:
    """The one that learns, and the one that does not; alone and padded."""
    shaken(transformers.MPNetModel(transformers.MPNetConfig(**SMALL))).save_pretrained(tmp_path)
    model = imported(tmp_path)[1].to(dtype)
    model.compute_dtype = dtype
    ids = torch.randint(3, 31, (2, 12), generator=torch.Generator().manual_seed(1))
    for cols in (None, Cols.padded(torch.tensor([12, 7]), 12)):
        plain = model.hidden(ids, cols, impl="plain").hidden
        with torch.no_grad():
            quick = model.hidden(ids, cols).hidden
        live = slice(None) if cols is None else cols.doc >= 0
        scale = float(plain.abs().max())
        torch.testing.assert_close(
            quick[live], plain[live], atol=scale * (1e-5 if dtype == torch.float32 else 0.03), rtol=0
        )


def test_a_row_is_the_same_alone_and_in_a_batch(tmp_path: Path) -> None:
    shaken(transformers.MPNetModel(transformers.MPNetConfig(**SMALL))).save_pretrained(tmp_path)
    model = imported(tmp_path)[1]
    ids = torch.arange(3, 15)[None]
    both = torch.cat((ids, torch.cat((torch.zeros(1, 5, dtype=torch.long), ids[:, :7]), 1)))
    steps = torch.arange(12)
    cols = Cols(
        torch.stack((steps, (steps - 5).clamp(min=0))), torch.stack((steps * 0, (steps >= 5).long() - 1))
    )
    with torch.no_grad():
        close(model.hidden(both, cols).hidden[1, 5:], model.hidden(ids[:, :7]).hidden[0])


def test_what_cannot_be_is_named() -> None:
    with pytest.raises(ConfigError, match="relative_attention_num_buckets"):
        tree = transformers.MPNetConfig(**SMALL).to_dict() | {"relative_attention_num_buckets": 16}
        family_of("mpnet", "").read(Reader(tree, "config.json"))
    with pytest.raises(ConfigError, match="30 buckets"):
        RelativeConfig(buckets=30)
    cfg = family_of("mpnet", "").read(Reader(transformers.MPNetConfig(**SMALL).to_dict(), "config.json"))
    with pytest.raises(ConfigError, match="the roberta layout cannot express"):
        written(family_of("roberta", ""), cfg)


def test_published_models_have_their_size() -> None:
    tree = transformers.MPNetConfig(max_position_embeddings=514).to_dict() | {
        "architectures": ["MPNetForMaskedLM"]
    }
    cfg = family_of("mpnet", "").read(Reader(tree, "mpnet-base"))
    assert base_parameters(cfg) == sum(
        p.numel() for p in _meta(transformers.MPNetForMaskedLM, tree).parameters()
    )


def _meta(kind: Any, tree: dict[str, Any]) -> Any:
    with torch.device("meta"):
        return kind(transformers.MPNetConfig(**{k: v for k, v in tree.items() if k != "model_type"}))
