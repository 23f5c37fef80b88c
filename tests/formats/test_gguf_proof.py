"""A tokenizer goes into a GGUF file whole or is refused: what is read back, by us and by llama.cpp, gives the same ids."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers

gguf = pytest.importorskip("gguf")

import onebase  # noqa: E402
from onebase.base.folder import LoadedBase  # noqa: E402
from onebase.base.model import BaseModel  # noqa: E402
from onebase.errors import ConfigError  # noqa: E402
from onebase.formats.gguf.vocab import read_tokenizer  # noqa: E402
from onebase.formats.gguf.vocab_out import prove, vocabulary  # noqa: E402
from onebase.formats.reader import ConfigReader  # noqa: E402
from onebase.modality.text.codec import TextCodec  # noqa: E402
from onebase.modality.text.roles import Roles  # noqa: E402
from onebase.modality.text.template import ChatTemplate  # noqa: E402
from onebase.modality.text.tokenizer import Tokenizer  # noqa: E402
from tests.formats.parity import shaken  # noqa: E402
from tests.formats.test_gguf_write import ROLES, byte_level, config, sentence_piece  # noqa: E402

TALK = "{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}"
Change = Callable[[tokenizers.Tokenizer], object]


def metaspace(scheme: str, split: bool) -> tokenizers.Tokenizer:
    """A Llama-like tokenizer as transformers writes it today: the space before a text is put there by the pre-tokenizer."""
    inner = sentence_piece(False)
    inner.normalizer = None
    inner.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=scheme, split=split)
    back = tokenizers.decoders
    strip = [back.Strip(" ", 1, 0)] if scheme != "never" else []
    inner.decoder = back.Sequence([back.Replace("▁", " "), back.ByteFallback(), back.Fuse(), *strip])
    return inner


def base_of(inner: tokenizers.Tokenizer, roles: Roles = ROLES, template: str = "") -> onebase.Base:
    cfg = config()
    tokenizer = Tokenizer(inner, roles)
    cfg = replace(cfg, codecs={"text": replace(cfg.codecs["text"], vocab_size=tokenizer.vocab_size + 2)})
    model = shaken(BaseModel(cfg)).requires_grad_(False).eval()
    chat = ChatTemplate(template, tuple(tokenizer.specials), "template", roles)
    return onebase.Base(LoadedBase(model, TextCodec(tokenizer, chat)))


def same_ids(base: onebase.Base, path: Path) -> None:
    again = onebase.load(path)
    for text in ("hello hell  lol", "ab\n é 中 ▁x", ""):
        assert again.tokenizer.encode(text) == base.tokenizer.encode(text), text


@pytest.mark.parametrize("scheme", ["first", "always"])
def test_a_llama_like_tokenizer_of_today_is_refused_unless_the_nearest_is_named(
    scheme: str, tmp_path: Path
) -> None:
    """It puts no space before a text that begins with one, llama.cpp does."""
    base = base_of(metaspace(scheme, split=False))
    with pytest.raises(ConfigError, match="would not read text like this tokenizer: ' '"):
        base.export(tmp_path / "a.gguf", format="gguf")
    assert not list(tmp_path.iterdir())
    base.export(tmp_path / "a.gguf", format="gguf", pre="default")
    same_ids(base, tmp_path / "a.gguf")


def test_one_that_puts_no_space_there_gives_the_same_ids(tmp_path: Path) -> None:
    base = base_of(metaspace("never", split=False), template=TALK)
    base.export(tmp_path / "a.gguf", format="gguf")
    same_ids(base, tmp_path / "a.gguf")


def test_words_that_are_cut_where_there_they_are_not_are_refused(tmp_path: Path) -> None:
    tree = json.loads(metaspace("always", split=True).to_str())
    tree["model"]["vocab"]["l▁"] = len(tree["model"]["vocab"])
    tree["model"]["merges"].append(["l", "▁"])
    with pytest.raises(ConfigError, match="would not read"):
        base_of(tokenizers.Tokenizer.from_str(json.dumps(tree))).export(tmp_path / "a.gguf", format="gguf")
    assert not list(tmp_path.iterdir())


def without_bytes(inner: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    tree = json.loads(inner.to_str())
    vocab = [t for t in tree["model"]["vocab"] if not t.startswith("<0x")]
    tree["model"]["vocab"] = {t: i for i, t in enumerate(vocab)}
    for added in tree["added_tokens"]:
        added["id"] = vocab.index(added["content"])
    return tokenizers.Tokenizer.from_str(json.dumps(tree))


def with_model(inner: tokenizers.Tokenizer, **more: Any) -> tokenizers.Tokenizer:
    tree = json.loads(inner.to_str())
    tree["model"] |= more
    return tokenizers.Tokenizer.from_str(json.dumps(tree))


@pytest.mark.parametrize(
    ("inner", "roles", "template", "named"),
    [
        (without_bytes(sentence_piece(True)), ROLES, "", "<0x00>"),
        (with_model(byte_level(), dropout=0.5), ROLES, "", "dropout"),
        (with_model(byte_level(), end_of_word_suffix="</w>"), ROLES, "", "end_of_word_suffix"),
        (byte_level(), replace(ROLES, before=("<end>",)), "", "add BOS before"),
        (byte_level(), replace(ROLES, after=("<end>",)), "", "EOS after"),
    ],
)
def test_what_the_format_has_no_word_for_is_refused_by_name(
    inner: tokenizers.Tokenizer, roles: Roles, template: str, named: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=named):
        base_of(inner, roles, template).export(tmp_path / "a.gguf", format="gguf")
    assert not list(tmp_path.iterdir())


def test_a_fourth_token_that_ends_a_generation_is_refused(tmp_path: Path) -> None:
    inner = byte_level()
    inner.add_special_tokens(["<e3>", "<e4>"])
    for names, ok in ((("<end>", "<e3>"), True), (("<end>", "<e3>", "<e4>"), False)):
        base = base_of(inner, replace(ROLES, stop=("</s>", *names)))
        if ok:
            base.export(tmp_path / "a.gguf", format="gguf")
            assert onebase.load(tmp_path / "a.gguf").tokenizer.stop_ids == base.tokenizer.stop_ids
        else:
            with pytest.raises(ConfigError, match="<e4>"):
                base.export(tmp_path / "b.gguf", format="gguf")


def test_a_special_token_that_takes_white_space_is_refused_where_a_conversation_has_it(
    tmp_path: Path,
) -> None:
    inner = byte_level()
    inner.add_special_tokens([AddedToken("<say>", special=True, rstrip=True, normalized=False)])
    base_of(inner).export(tmp_path / "a.gguf", format="gguf")
    template = "{% for m in messages %}<say>\n{{ m.content }}</s>{% endfor %}"
    with pytest.raises(ConfigError, match="conversation"):
        base_of(inner, template=template).export(tmp_path / "b.gguf", format="gguf")


STEPS: dict[str, Change] = {
    "lower": lambda t: setattr(t, "normalizer", normalizers.Lowercase()),
    "nfc": lambda t: setattr(t, "normalizer", normalizers.NFC()),
    "prepend": lambda t: setattr(t, "normalizer", normalizers.Prepend("▁")),
    "strip": lambda t: setattr(t, "normalizer", normalizers.Strip()),
    "first": lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Metaspace(prepend_scheme="first")),
    "always": lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Metaspace(prepend_scheme="always")),
    "digits": lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Digits(individual_digits=True)),
    "words": lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Whitespace()),
    "split": lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Split(Regex(" "), "merged_with_next")),
    "prefix": lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "user": lambda t: t.add_tokens([AddedToken("ll", normalized=False)]),
    "single": lambda t: t.add_tokens([AddedToken("he", single_word=True, normalized=False)]),
    "stripped": lambda t: t.add_tokens([AddedToken("lo", lstrip=True, rstrip=True)]),
    "none": lambda t: setattr(t, "normalizer", None),
}


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["bytes", "spm", "spm-", "first", "always"]),
    st.lists(st.sampled_from(sorted(STEPS)), max_size=3),
    st.booleans(),
    st.lists(st.text("helo tr1 \n▁é中", max_size=12), max_size=20),
)
def test_it_comes_back_or_is_refused(kind: str, steps: list[str], chat: bool, texts: list[str]) -> None:
    inner = {
        "bytes": byte_level,
        "spm": lambda: sentence_piece(True),
        "spm-": lambda: sentence_piece(False),
        "first": lambda: metaspace("first", False),
        "always": lambda: metaspace("always", True),
    }[kind]()
    for step in steps:
        STEPS[step](inner)
    template = TALK if chat else None
    ours = Tokenizer(tokenizers.Tokenizer.from_str(inner.to_str()), ROLES)
    try:
        words = vocabulary(inner, ROLES, template, ours.vocab_size)
        prove(words, inner, ROLES, template)
    except ConfigError:
        return
    found, roles = read_tokenizer(ConfigReader(words, "a"))
    theirs = Tokenizer(found, roles)
    for text in texts:
        assert theirs.encode(text) == ours.encode(text), (text, steps)
        if chat:
            assert theirs.encode(text, follows="special") == ours.encode(text, follows="special"), text
