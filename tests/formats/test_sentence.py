"""Folders of sentence-transformers: what they say of a text's vector, and what is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

import onebase
from onebase.errors import ArtifactError, ConfigError
from onebase.formats.hf.sentence import read_sentence, write_sentence
from onebase.modality.text.pooling import EmbeddingConfig
from tests.formats.parity import shaken
from tests.formats.words import KINDS, write_words

CLASS = "sentence_transformers.models."


def folder(path: Path, pooling: dict[str, Any], *more: str, **files: Any) -> Path:
    kinds = ["Transformer", "Pooling", *more]
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{k}" if i else "", "type": CLASS + k}
        for i, k in enumerate(kinds)
    ]
    for module in modules[1:]:
        (path / str(module["path"])).mkdir()
    put(path / "modules.json", modules)
    put(path / "1_Pooling" / "config.json", pooling)
    for name, tree in files.items():
        put(path / f"{name}.json", tree)
    return path


def put(file: Path, tree: Any) -> None:
    file.write_text(json.dumps(tree), encoding="utf-8")


def found(path: Path) -> EmbeddingConfig:
    sentence = read_sentence(path)
    assert sentence is not None
    return sentence.embedding


def test_another_folder_is_none_of_these(tmp_path: Path) -> None:
    assert read_sentence(tmp_path) is None


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "max", "embedding_dimension": 8}, "max"),
        ({"pooling_mode": ["lasttoken"]}, "last"),
        ({}, "mean"),
    ],
)
def test_pooling_old_and_new(config: dict[str, Any], pooling: str, tmp_path: Path) -> None:
    assert found(folder(tmp_path, config)) == EmbeddingConfig(pooling=pooling)  # type: ignore[arg-type]


def test_normalise_and_the_limit(tmp_path: Path) -> None:
    limit = {"max_seq_length": 256, "do_lower_case": False}
    path = folder(
        tmp_path, {}, "Normalize", sentence_bert_config=limit, tokenizer_config={"model_max_length": 512}
    )
    assert found(path) == EmbeddingConfig(normalise=True, limit=256)


@pytest.mark.parametrize(("length", "limit"), [(512, 512), (10**30, None)])
def test_the_tokenizer_limits_where_nothing_else_does(length: int, limit: int | None, tmp_path: Path) -> None:
    assert found(folder(tmp_path, {}, tokenizer_config={"model_max_length": length})).limit == limit


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "max"])
@pytest.mark.parametrize("normalise", [True, False])
def test_written_reads_back(pooling: Any, normalise: bool, tmp_path: Path) -> None:
    cfg = EmbeddingConfig(pooling=pooling, normalise=normalise, limit=128)
    write_sentence(tmp_path, cfg, 32)
    assert found(tmp_path) == cfg


@pytest.mark.parametrize(
    ("pooling", "name"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, r"cls.*mean"),
        ({"pooling_mode": "weightedmean"}, "weightedmean"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean_sqrt_len_tokens"),
        ({"pooling_mode": 3}, "3"),
    ],
)
def test_other_pooling_is_refused_by_name(pooling: dict[str, Any], name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=name):
        read_sentence(folder(tmp_path, pooling))


@pytest.mark.parametrize("kind", ["Dense", "LayerNorm", "Dropout"])
def test_other_modules_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=kind):
        read_sentence(folder(tmp_path, {}, kind))


def test_code_of_its_own_is_not_run(tmp_path: Path) -> None:
    put(tmp_path / "modules.json", [{"path": "", "type": "custom_st.Transformer"}])
    with pytest.raises(ConfigError, match=r"custom_st\.Transformer"):
        read_sentence(tmp_path)


@pytest.mark.parametrize("where", ["../elsewhere", "/etc", "a/b", ".."])
def test_a_module_lies_in_the_folder(where: str, tmp_path: Path) -> None:
    put(
        tmp_path / "modules.json",
        [{"path": "", "type": CLASS + "Transformer"}, {"path": where, "type": CLASS + "Pooling"}],
    )
    with pytest.raises(ArtifactError, match="has the folder"):
        read_sentence(tmp_path)


@pytest.mark.parametrize(
    ("file", "tree", "name"),
    [
        ("sentence_bert_config", {"do_lower_case": "yes"}, "do_lower_case"),
        ("sentence_bert_config", {"processing_kwargs": {"text": {"padding": True}}}, "processing_kwargs"),
        ("sentence_bert_config", {"query_length": 32}, "query_length"),
        ("sentence_roberta_config", {"max_seq_length": -1}, "max_seq_length"),
        (
            "config_sentence_transformers",
            {"prompts": {"query": "query: "}, "default_prompt_name": "query"},
            "default_prompt_name",
        ),
    ],
)
def test_settings_that_change_the_vector_are_refused(file: str, tree: Any, name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=name):
        read_sentence(folder(tmp_path, {}, **{file: tree}))


@pytest.mark.parametrize("text", ["{", "{}", "[1]", "[" * 100000])
def test_damaged_lists_are_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"modules\.json"):
        read_sentence(tmp_path)


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize(
    "kind", ["bert", "cased", "gpt2", "llama2", "unigram", "Lowercase", "NFC, Lowercase"]
)
def test_lower_case_is_that_of_sentence_transformers(kind: str, lower: bool, tmp_path: Path) -> None:
    """Whatever the tokenizer does itself: BGE's published card says it beside a tokenizer that lower-cases already."""
    theirs = pytest.importorskip("sentence_transformers")
    import torch
    import transformers

    own = {"Lowercase": [{"type": "Lowercase"}], "NFC, Lowercase": [{"type": "NFC"}, {"type": "Lowercase"}]}
    inner = write_words(tmp_path, kind if kind in KINDS else "bert")
    tree = json.loads((tmp_path / "tokenizer.json").read_text())
    if kind in own:
        tree["normalizer"] = {"type": "Sequence", "normalizers": own[kind]}
    if kind == "cased":
        tree["normalizer"]["lowercase"] = False
    put(tmp_path / "tokenizer.json", tree)
    said = json.loads((tmp_path / "tokenizer_config.json").read_text())
    pad = {} if said.get("pad_token") else {"pad_token": said.get("unk_token")}
    put(tmp_path / "tokenizer_config.json", said | pad)
    cfg = transformers.BertConfig(
        vocab_size=inner.get_vocab_size(), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=40, max_position_embeddings=64,
    )  # fmt: skip
    shaken(transformers.BertModel(cfg, add_pooling_layer=False)).save_pretrained(tmp_path)
    card = {"max_seq_length": 32, "do_lower_case": lower}
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    folder(tmp_path, pooling, "Normalize", sentence_bert_config=card)
    texts = ["The QUICK brown fox", "Grüße aus KÖLN, İstanbul ẞ ΣΑΣ", "naïve CAFÉ", "abc 12"]
    want = theirs.SentenceTransformer(str(tmp_path), device="cpu").encode(texts, batch_size=1)
    base = onebase.load(tmp_path)
    assert torch.allclose(base.embed(texts), torch.from_numpy(want), atol=1e-6, rtol=0)
    if kind == "cased":
        base.export(tmp_path / "back")
        assert torch.equal(onebase.load(tmp_path / "back").embed(texts), base.embed(texts))
        again = theirs.SentenceTransformer(str(tmp_path / "back"), device="cpu").encode(texts, batch_size=1)
        assert torch.allclose(base.embed(texts), torch.from_numpy(again), atol=1e-6, rtol=0)


def test_settings_that_say_nothing_are_no_settings(tmp_path: Path) -> None:
    folder(tmp_path, {}, sentence_bert_config={"processing_kwargs": {}, "query_expansion": None})
    assert found(tmp_path) == EmbeddingConfig()
