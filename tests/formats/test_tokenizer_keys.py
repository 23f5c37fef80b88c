"""Keys of tokenizer_config.json beside a tokenizer.json: the ids are those of transformers' AutoTokenizer, or the folder is refused."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.errors import ConfigError
from onebase.formats.hf.tokenizer_files import read_codec
from tests.formats.words import write_words

transformers = pytest.importorskip("transformers")
TEXTS = [
    "The QUICK brown fox",
    "quick",
    "Grüße aus KÖLN, naïve CAFÉ: is this one?",
    "a 中文 b 😀",
    "",
    "def add(a, b):\n    return a + b\n",
]
# (tokenizer of tests/formats/hf/tokenizer_files.py, model_type, tokenizer_class)
CLASSES = [
    ("bert", "bert", "BertTokenizer"),
    ("bert", "bert", "BertTokenizerFast"),
    ("bert", "distilbert", "DistilBertTokenizerFast"),
    ("bert", "bert", "ElectraTokenizerFast"),
    ("bert", "bert", None),
    ("bert", "bert", "PreTrainedTokenizerFast"),
    ("bert", None, None),
    ("gpt2", "gpt2", "GPT2Tokenizer"),
    ("gpt2", "gpt2", "GPT2TokenizerFast"),
    ("gpt2", "gpt2", None),
    ("gpt2", "llama", "GPT2TokenizerFast"),
    ("gpt2", "roberta", "RobertaTokenizerFast"),
    ("gpt2", "roberta", None),
    ("gpt2", "whisper", "WhisperTokenizer"),
    ("gpt2", "modernbert", "PreTrainedTokenizerFast"),
    ("qwen", "qwen2", "Qwen2Tokenizer"),
    ("qwen", "qwen3", "Qwen2TokenizerFast"),
    ("qwen", "qwen2", None),
    ("llama3", "llama", "PreTrainedTokenizerFast"),
    ("llama2", "llama", "LlamaTokenizer"),
    ("llama2", "llama", "LlamaTokenizerFast"),
    ("llama2", "llama", None),
    ("llama2", "mistral", "LlamaTokenizerFast"),
    ("mistral", "llama", "LlamaTokenizerFast"),
    ("mistral", "mistral", "LlamaTokenizerFast"),
    ("phi3", "phi3", "LlamaTokenizer"),
    ("gemma", "gemma2", "GemmaTokenizer"),
    ("unigram", "xlm-roberta", "XLMRobertaTokenizer"),
]
FLAG = st.sampled_from([True, False])
KEYS: dict[str, st.SearchStrategy[Any]] = {
    "do_lower_case": FLAG,
    "strip_accents": st.sampled_from([True, False, None]),
    "tokenize_chinese_chars": FLAG,
    "add_prefix_space": FLAG,
    "legacy": FLAG,
    "clean_up_tokenization_spaces": FLAG,
    "split_special_tokens": FLAG,
    "model_max_length": st.sampled_from([4, 512]),
    "padding_side": st.sampled_from(["left", "right"]),
    "add_bos_token": FLAG,
    "add_eos_token": FLAG,
    "use_fast": FLAG,
    "errors": st.just("replace"),
}


def put(folder: Path, kind: str, model: str | None, cls: str | None, said: dict[str, Any]) -> None:
    """A folder with a tokenizer.json, the keys `said` beside it, and perhaps a class and a model."""
    write_words(folder, kind)
    if kind == "unigram":  # words apart first, as in XLM-R's own file
        words = folder / "tokenizer.json"
        steps = json.loads(words.read_text())
        steps["pre_tokenizer"] = {
            "type": "Sequence",
            "pretokenizers": [{"type": "WhitespaceSplit"}, steps["pre_tokenizer"]],
        }
        words.write_text(json.dumps(steps))
    file = folder / "tokenizer_config.json"
    tree = json.loads(file.read_text()) | said
    del tree["tokenizer_class"]
    tree |= {} if cls is None else {"tokenizer_class": cls}
    file.write_text(json.dumps(tree))
    (folder / "config.json").unlink(missing_ok=True)
    if model is not None:
        (folder / "config.json").write_text(json.dumps({"model_type": model}))


def theirs(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def same(folder: Path, texts: list[str] = TEXTS) -> None:
    peer, tok = theirs(folder), read_codec(folder, 10_000).tokenizer
    for text in texts:
        assert tok.encode(text) == peer(text, add_special_tokens=False)["input_ids"], text


@settings(deadline=None, max_examples=120)
@given(data=st.data(), which=st.sampled_from(CLASSES))
def test_keys_change_ids_as_in_transformers(
    data: st.DataObject, which: tuple[str, str | None, str | None], tmp_path_factory: Any
) -> None:
    said = data.draw(st.fixed_dictionaries({}, optional=KEYS))
    folder = tmp_path_factory.mktemp("keys")
    put(folder, *which, said)
    same(folder)


@pytest.mark.parametrize("which", CLASSES)
@pytest.mark.parametrize("key", ["do_lower_case", "add_prefix_space", "strip_accents"])
@pytest.mark.parametrize("value", [True, False])
def test_each_key_of_each_class(
    which: tuple[str, str | None, str | None], key: str, value: bool, tmp_path: Path
) -> None:
    put(tmp_path, *which, {key: value})
    same(tmp_path)


def test_the_keys_change_something(tmp_path: Path) -> None:
    """So that the tests above compare more than the file."""
    for kind, cls, key, text in (
        ("bert", "BertTokenizer", "do_lower_case", "The FOX"),
        ("gpt2", "GPT2Tokenizer", "add_prefix_space", "fox"),
        ("llama2", "LlamaTokenizer", "add_prefix_space", "fox"),
        ("unigram", "XLMRobertaTokenizer", "add_prefix_space", "fox"),
    ):
        found = []
        for value in (True, False):
            put(tmp_path, kind, None, cls, {key: value})
            tok = read_codec(tmp_path, 10_000).tokenizer
            found.append(tok.encode(text))
            if kind != "bert":
                assert tok.decode(found[-1]).strip() == text
        assert found[0] != found[1]


def test_a_class_lower_cases_by_default(tmp_path: Path) -> None:
    """A BERT whose file does not lower-case and whose config does not say: its class says yes, in versions 4 and 5."""
    put(tmp_path, "bert", "bert", "BertTokenizerFast", {})
    tree = json.loads((tmp_path / "tokenizer.json").read_text())
    tree["normalizer"]["lowercase"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree))
    same(tmp_path)
    assert read_codec(tmp_path, 10_000).tokenizer.encode("FOX") == read_codec(
        tmp_path, 10_000
    ).tokenizer.encode("fox")


def test_a_bert_with_steps_of_its_own(tmp_path: Path) -> None:
    put(tmp_path, "bert", "bert", "BertTokenizerFast", {"do_lower_case": True})
    tree = json.loads((tmp_path / "tokenizer.json").read_text())
    inner = tree["normalizer"] | {"lowercase": False}
    tree["normalizer"] = {"type": "Sequence", "normalizers": [inner]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree))
    same(tmp_path)
    tree["normalizer"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree))
    same(tmp_path)
    tree["normalizer"] = {"type": "NFC"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree))
    with pytest.raises(ConfigError, match="'do_lower_case' is True, which contradicts the normalizer"):
        read_codec(tmp_path, 10_000)


def test_a_key_that_a_generic_class_does_not_read_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(
        tmp_path,
        "bert",
        "bert",
        "PreTrainedTokenizerFast",
        {"do_lower_case": False, "add_prefix_space": True},
    )
    with caplog.at_level(logging.WARNING):
        read_codec(tmp_path, 10_000)
    said = caplog.text
    assert "do_lower_case is False: PreTrainedTokenizer ignores it" in said
    assert "add_prefix_space is True" in said


@pytest.mark.parametrize("value", ["yes", 1, [], {}])
def test_a_key_of_another_type_is_refused(value: Any, tmp_path: Path) -> None:
    put(tmp_path, "bert", "bert", "BertTokenizer", {"do_lower_case": value})
    with pytest.raises(ConfigError, match="do_lower_case"):
        read_codec(tmp_path, 10_000)


def test_a_prefix_that_no_step_can_put_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "llama2", "llama", "LlamaTokenizer", {"add_prefix_space": True})
    tree = json.loads((tmp_path / "tokenizer.json").read_text()) | {"normalizer": None}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree))
    with pytest.raises(ConfigError, match="add_prefix_space"):
        read_codec(tmp_path, 10_000)


def test_steps_nested_too_deep_are_refused(tmp_path: Path) -> None:
    from onebase.errors import ArtifactError

    put(tmp_path, "bert", "bert", "BertTokenizer", {})
    text = json.dumps(json.loads((tmp_path / "tokenizer.json").read_text()) | {"normalizer": "HERE"})
    deep = '{"normalizers": [' * 400 + "{}" + "]}" * 400
    (tmp_path / "tokenizer.json").write_text(text.replace('"HERE"', deep))
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        read_codec(tmp_path, 10_000)


@pytest.mark.parametrize("model", ["bert", "distilbert", None])
@pytest.mark.parametrize("named", ["config.json", None])
def test_a_list_of_word_pieces_without_a_class(model: str | None, named: str | None, tmp_path: Path) -> None:
    """As vocab.json is: by the class that config.json names, else by the model."""
    vocab = write_words(tmp_path, "bert").get_vocab()
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.txt").write_text("\n".join(sorted(vocab, key=vocab.get)) + "\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").unlink()
    tree = {} if model is None else {"model_type": model}
    tree |= {} if named is None else {"tokenizer_class": "BertTokenizer"}
    (tmp_path / "config.json").write_text(json.dumps(tree))
    if model is None and named is None:
        from onebase.errors import ArtifactError

        with pytest.raises(ArtifactError, match=r"as vocab\.txt"):
            read_codec(tmp_path, 10_000)
        return
    peer = transformers.BertTokenizer.from_pretrained(tmp_path, local_files_only=True)
    tok = read_codec(tmp_path, 10_000).tokenizer
    for text in TEXTS:
        assert tok.framed(tok.encode(text)) == peer(text)["input_ids"]
