"""How GGUF names the splitting of texts: every name reads as llama.cpp reads it, and a tokenizer gets the name of what it does."""

import gc
import json
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

pytest.importorskip("gguf")

import onebase
from onebase.errors import ConfigError
from onebase.formats.gguf.header import open_file, read_header
from onebase.formats.gguf.splits import SPLITS, TextSplit, alike
from onebase.formats.gguf.vocab_out import vocabulary
from onebase.formats.tokenizer_equality import TEXTS as TEXTS_OF_ALIKE
from onebase.modality.text.roles import Roles
from onebase.modality.text.tokenizer import Tokenizer
from tests.formats.gguf_files import with_keys
from tests.formats.llama_cpp import CORPUS, TEXTS, LlamaCpp, base_of, some_texts
from tests.formats.test_gguf_write import TEXTS as FEW
from tests.formats.test_gguf_write import byte_level, config, round_trip

UNMERGED = "qqq"


SAME = {
    "smollm": lambda: byte_level("smollm"),
    "llama-bpe": lambda: byte_level("llama-bpe"),
    "gpt-2": lambda: byte_level("gpt-2"),
    "qwen2": lambda: byte_level("qwen2"),
    "llama-bpe, of ours": lambda: Tokenizer.train(["hello 12345 there 123"] * 4, 300, portable=True).inner,
}


@pytest.mark.parametrize("kind", SAME)
def test_the_name_of_the_splitting_follows_from_the_tokenizer(kind: str, tmp_path: Path) -> None:
    """However its file spells the same: offsets that no id depends on, contractions in three ways, classes that give nothing back."""
    tree = json.loads(SAME[kind]().to_str())
    text = json.dumps(tree["pre_tokenizer"])
    for spelt in (
        text.replace('"trim_offsets": true', '"trim_offsets": false'),
        text.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'(?i:[sdmt]|ll|ve|re)"),
        text.replace(r"{L}\\p{N}]?", r"{L}\\p{N}]?+").replace(r"\\s*[\\r\\n]+", r"\\s*[\\r\\n]"),
        text.replace(
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
        ),
    ):
        inner = tokenizers.Tokenizer.from_str(json.dumps(tree | {"pre_tokenizer": json.loads(spelt)}))
        assert vocabulary(inner, Roles(), None, 310)["tokenizer.ggml.pre"] == kind.split(",")[0]


def test_texts_that_are_not_normalised_first_have_a_name_of_their_own() -> None:
    tree = json.loads(byte_level("qwen2").to_str())
    assert [name_of(tree | {"normalizer": n}) for n in ({"type": "NFC"}, None)] == ["qwen2", "hunyuan"]


def test_the_tokenizer_of_the_models_has_the_name_where_its_ids_are_those_of_the_kind(tmp_path: Path) -> None:
    """DeepSeek LLM cuts numbers digit by digit, llama.cpp leaves them whole: alike where no merge joins digits."""
    for digits, accepted in ((["1", "2"], True), (["1", "2", "12"], False)):
        tree = json.loads(byte_level("deepseek-llm").to_str())
        steps = tree["pre_tokenizer"]["pretokenizers"]
        steps[-2] = {"type": "Digits", "individual_digits": True}
        joined = {t for t in tree["model"]["vocab"] if sum(c.isdigit() for c in t) > 1}
        tree["model"]["merges"] = [m for m in tree["model"]["merges"] if "".join(m) not in joined]
        if "12" in digits:
            tree["model"]["vocab"].setdefault("12", len(tree["model"]["vocab"]))
            tree["model"]["merges"].append(["1", "2"])
        assert name_of(tree) == "deepseek-llm"
        inner = tokenizers.Tokenizer.from_str(json.dumps(tree))
        if accepted:
            _, opened = round_trip(config(), tmp_path / "a.gguf", inner=inner)
            assert [opened.tokenizer.encode(t).ids for t in FEW] == [inner.encode(t).ids for t in FEW]
        else:
            with pytest.raises(ConfigError, match="would not read text"):
                round_trip(config(), tmp_path / "b.gguf", inner=inner)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(SPLITS), st.text("aBéÉ中か12½ ²'sT.,(\t\n\r_̀한😀", max_size=30))
def test_every_kind_cuts_a_text_into_what_it_is_made_of(split: TextSplit, text: str) -> None:
    inner = byte_level(split.names[0])
    wanted = unicodedata.normalize("NFC", text) if split.nfc else text
    assert inner.decode(inner.encode(text).ids) == wanted
    assert split in alike(json.loads(inner.to_str()))


def test_a_name_that_nobody_knows_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.ggml\.pre.*of-tomorrow") as e:
        round_trip(config(), tmp_path / "a.gguf", inner=byte_level(), pre="of-tomorrow")
    assert "deepseek-v3" in e.value.remedy and not list(tmp_path.iterdir())


def test_a_splitting_that_is_nearly_one_has_no_name() -> None:
    ours = Tokenizer.train(["hello 12345 there 123"] * 4, 300).inner  # numbers in twos
    folded = byte_level("qwen2")
    folded.normalizer = normalizers.NFKC()
    for inner in (ours, folded):
        with pytest.raises(ConfigError, match="portable: true"):
            vocabulary(inner, Roles(), None, 310)


def test_a_token_that_its_merges_do_not_make_decides_the_name_or_is_named() -> None:
    """Under llama-bpe a word that is a token is that token, under dbrx and smollm merges decide: it matters where the two differ."""
    for pre, whole, other in (("llama-bpe", False, "dbrx"), ("smollm", True, None)):
        tree = json.loads(byte_level(pre).to_str())
        tree["model"]["ignore_merges"] = whole
        assert name_of(tree) == pre
        tree["model"]["vocab"]["xyz"] = 305
        if other is None:
            with pytest.raises(ConfigError, match="'xyz'"):
                name_of(tree)
        else:
            assert name_of(tree) == other
        tree["model"]["ignore_merges"] = not whole
        assert name_of(tree) == pre


def name_of(tree: dict[str, Any]) -> Any:
    inner = tokenizers.Tokenizer.from_str(json.dumps(tree))
    return vocabulary(inner, Roles(), None, 310)["tokenizer.ggml.pre"]


@cache
def unsplit() -> str:
    """A tokenizer whose merges cross every place where any kind splits, so that ids show each cut, and which has a token that no merge
    makes."""
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=[tokenizers.AddedToken(t, special=True, normalized=False) for t in ("<s>", "</s>")],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([CORPUS, *TEXTS, *some_texts()] * 2, trainer)
    tree = json.loads(inner.to_str())
    tree["model"]["vocab"][UNMERGED] = len(tree["model"]["vocab"])
    return json.dumps(tree)


def splitting(split: TextSplit) -> Tokenizer:
    tree = json.loads(unsplit())
    tree["model"]["ignore_merges"] = split.whole
    inner = tokenizers.Tokenizer.from_str(json.dumps(tree))
    if split.normalizer is not None:
        inner.normalizer = split.normalizer
    inner.pre_tokenizer, inner.decoder = split.pre_tokenizer, tokenizers.decoders.ByteLevel()
    return Tokenizer(inner, Roles(bos="<s>", eos="</s>", stop=("</s>",)))


def same_there(split: TextSplit, text: str) -> bool:
    """llama.cpp normalises no text, and of some kinds has a pattern that is no other for texts without marks and without capitals
    beyond ASCII."""
    odd = any(c > "\x7f" and (unicodedata.category(c) in ("Lu", "Lt") or c.isupper()) for c in text)
    marks = any(unicodedata.category(c)[0] == "M" for c in text)
    return not (split.nfc and unicodedata.normalize("NFC", text) != text) and not (
        split.near and (odd or marks)
    )


@pytest.mark.slow
@pytest.mark.parametrize("split", SPLITS, ids=lambda s: s.names[0])
def test_every_kind_of_splitting_gives_the_same_ids_under_all_its_names(
    split: TextSplit, tmp_path: Path
) -> None:
    base = base_of(splitting(split))
    base.export(tmp_path / "a.gguf", format="gguf")
    head = read_header(open_file(tmp_path / "a.gguf"), "a").metadata
    assert head["tokenizer.ggml.pre"] == split.names[0]
    again = onebase.load(tmp_path / "a.gguf")
    texts = [UNMERGED, *TEXTS, *some_texts(), *TEXTS_OF_ALIKE]
    texts = [t for t in texts if same_there(split, t)]
    assert len(texts) > 100
    ids = [base.tokenizer.encode(t) for t in texts]
    assert [again.tokenizer.encode(t) for t in texts] == ids
    for name in split.names:
        file = with_keys(tmp_path / "a.gguf", tmp_path / f"{name}.gguf", {"tokenizer.ggml.pre": name})
        there = LlamaCpp(file)
        some = texts if name == split.names[0] else texts[:80]
        assert not [(name, t) for t, i in zip(some, ids, strict=False) if there.ids(t) != i]
        del there
        gc.collect()
