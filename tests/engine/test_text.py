"""Text from tokens while they come: letters and stop strings that span tokens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.engine.stream import TextStream
from onebase.modality.text.tokenizer import Tokenizer
from tests.helpers import tiny_base


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny_base().codec.tokenizer


def spell(tokenizer: Tokenizer, text: str) -> list[int]:
    """One token a byte: the finest cut there is."""
    single = {
        tokenizer.bytes_of(i): i for i in range(tokenizer.vocab_size) if len(tokenizer.bytes_of(i)) == 1
    }
    return [single[bytes([b])] for b in text.encode()]


def read(tokenizer: Tokenizer, ids: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    stream = TextStream(tokenizer, stop)
    out = [stream.push(i) for i in ids]
    return [*out, stream.flush()], stream.stopped


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=12), st.booleans())
def test_pieces_joined_are_the_text_and_never_half_letters(text: str, fine: bool) -> None:
    tokenizer = tiny_tokenizer()
    pieces, _ = read(tokenizer, spell(tokenizer, text) if fine else tokenizer.encode(text))
    assert "".join(pieces) == text
    assert all("\ufffd" not in p for p in pieces) or "\ufffd" in text


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 265), max_size=15))
def test_any_ids_read_as_the_tokenizer_decodes_them(ids: list[int]) -> None:
    tokenizer = tiny_tokenizer()
    assert "".join(read(tokenizer, ids)[0]) == tokenizer.decode(ids)


def test_a_letter_of_four_bytes_appears_when_it_is_whole(tokenizer: Tokenizer) -> None:
    pieces, _ = read(tokenizer, spell(tokenizer, "a😀b"))
    assert pieces == ["a", "", "", "", "😀", "b", ""]


def test_a_letter_cut_at_the_end_is_a_replacement(tokenizer: Tokenizer) -> None:
    assert read(tokenizer, spell(tokenizer, "中")[:2])[0] == ["", "", "\ufffd"]


def test_special_tokens_have_no_text(tokenizer: Tokenizer) -> None:
    a = tokenizer.encode("a")
    assert "".join(read(tokenizer, [*a, tokenizer.pad, tokenizer.id_of("<|user|>"), *a])[0]) == "aa"


def test_what_may_begin_a_stop_string_is_held_back(tokenizer: Tokenizer) -> None:
    pieces, stopped = read(tokenizer, spell(tokenizer, "x\n\ny\n\nUser"), ("\n\nUser",))
    assert pieces[:5] == ["x", "", "", "\n\ny", ""]
    assert "".join(pieces) == "x\n\ny"
    assert stopped


def test_held_text_is_shown_when_the_answer_ends(tokenizer: Tokenizer) -> None:
    assert read(tokenizer, spell(tokenizer, "ab"), ("abc",)) == (["", "", "ab"], False)


def test_nothing_comes_after_a_stop_string(tokenizer: Tokenizer) -> None:
    assert "".join(read(tokenizer, spell(tokenizer, "one. two"), (".",))[0]) == "one"


@settings(max_examples=200, deadline=None)
@given(
    st.text("ab", max_size=12),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    st.data(),
)
def test_the_text_does_not_depend_on_how_it_was_cut(text: str, stops: list[str], data: st.DataObject) -> None:
    tokenizer = tiny_tokenizer()
    cut = data.draw(st.integers(0, len(text)))
    fine = read(tokenizer, spell(tokenizer, text), tuple(stops))
    coarse = read(tokenizer, tokenizer.encode(text[:cut]) + tokenizer.encode(text[cut:]), tuple(stops))
    assert ("".join(fine[0]), fine[1]) == ("".join(coarse[0]), coarse[1])
    # The stop string that is whole first, found by brute force.
    ends = [(i + len(s), i) for s in stops for i in range(len(text)) if text.startswith(s, i)]
    assert "".join(fine[0]) == (text[: min(ends)[1]] if ends else text)


_KEPT: list[Tokenizer] = []


def tiny_tokenizer() -> Tokenizer:
    if not _KEPT:
        _KEPT.append(Tokenizer.train(["abab ab the 中文 é 😀 " * 4], 290))
    return _KEPT[0]
