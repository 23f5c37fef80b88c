from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.errors import ArtifactError, ConfigError, DataError
from onebase.modality.text import SPECIALS, Tokenizer

texts = st.lists(st.one_of(st.sampled_from(SPECIALS), st.text(max_size=12)), max_size=6).map("".join)


@settings(deadline=None)
@given(text=texts)
def test_every_text_survives_and_none_becomes_special(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(tokenizer.bytes_of(i) for i in ids) == text.encode()
    assert not set(ids) & set(tokenizer.specials.values())


@settings(deadline=None, max_examples=20)
@given(batch=st.lists(texts, max_size=5))
def test_a_batch_is_its_texts(tokenizer: Tokenizer, batch: list[str]) -> None:
    assert tokenizer.encode_batch(batch) == [tokenizer.encode(t) for t in batch]


def test_specials_only_where_asked(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a", bos=True, eos=True)
    assert (ids[0], ids[-1]) == (tokenizer.bos, tokenizer.eos)
    assert tokenizer.decode(ids) == "a"
    assert tokenizer.decode(ids, skip_special=False) == "<|bos|>a<|eos|>"
    assert tokenizer.bytes_of(tokenizer.eos) == b"<|eos|>"
    assert list(tokenizer.specials) == list(SPECIALS)
    assert tokenizer.encode("") == []


def test_numbers_are_cut_into_one_or_two_digits(tokenizer: Tokenizer) -> None:
    assert all(len(tokenizer.bytes_of(i)) <= 2 for i in tokenizer.encode("1234123412341234"))


def test_training_repeats_and_does_not_depend_on_the_order_of_texts() -> None:
    lines = [f"line {i % 7} of some text and {i}" for i in range(200)]
    digest = Tokenizer.train(iter(lines), 350).digest
    random.Random(0).shuffle(lines)
    assert Tokenizer.train(lines, 350).digest == digest
    assert Tokenizer.train([*lines, "other words " * 50], 350).digest != digest


def test_saved_and_read_it_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert again.digest == tokenizer.digest
    assert again.vocab_size == tokenizer.vocab_size <= 400
    assert again.encode("the fox <|eos|>") == tokenizer.encode("the fox <|eos|>")


def test_mistakes_are_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="vocab_size 200 cannot hold"):
        Tokenizer.train(["a"], 200)
    with pytest.raises(DataError, match="lone surrogate at character 1"):
        tokenizer.encode("a\ud800")
    with pytest.raises(DataError, match="lone surrogate"):
        tokenizer.encode_batch(["ok", "a\ud800"])
    with pytest.raises(DataError, match="lone surrogate"):
        Tokenizer.train(["a\ud800"], 400)
    with pytest.raises(DataError, match="expected a text, got int"):
        tokenizer.encode(3)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="token id 9999"):
        tokenizer.decode([9999])
    with pytest.raises(DataError, match="no special token '<.nope.>'"):
        tokenizer.id_of("<|nope|>")
    with pytest.raises(ArtifactError, match="no tokenizer at"):
        Tokenizer.from_file(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ArtifactError, match="not a tokenizer file"):
        Tokenizer.from_file(tmp_path / "x.json")


def test_bytes_that_are_no_text_do_not_break_decoding(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("\U0001f9e0")  # not in the training text: several byte tokens
    assert len(ids) > 1
    assert tokenizer.decode(ids[:-1]) == "\ufffd"
