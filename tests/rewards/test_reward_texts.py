"""What judges texts reads them as people write: numbers of any keyboard, words of any script; and a user's expression gets its time, no more."""

import re
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebase.errors import UserError
from onebase.evaluation.baselines import NearestNeighbour, TfidfLogistic
from onebase.evaluation.metrics import rouge_l_each
from onebase.evaluation.words import words
from onebase.rewards import RewardInput, opened
from onebase.rewards.numbers import MINUS, last_number, number_of
from onebase.sandbox.matching import matches
from tests.helpers import tiny_base


def worth(spec: str, completion: str, **row: Any) -> float:
    with opened(spec, tiny_base()) as reward:
        return reward.scores([RewardInput("p", completion, {"prompt": "p", **row}, "row 1")])[0]


@pytest.mark.parametrize("minus", MINUS)
def test_a_minus_of_any_keyboard_is_one(minus: str) -> None:
    assert worth("number", f"It is {minus}5.", answer=-5) == 1.0
    assert worth("number", f"It is {minus}5.", answer=5) == 0.0
    assert worth("number", "It is -5", answer=f"{minus}5") == 1.0
    assert worth("number", f"pages 3{minus}5", answer=5) == 1.0, "a range has no negative end"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("\uff11\uff0c\uff12\uff13\uff14", "1234"),  # full width
        ("\uff0d\uff13\uff0e\uff15", "-3.5"),
        ("\u0663\u066b\u0665", "3.5"),  # Arabic
        ("\u0967\u0968", "12"),  # Devanagari
        ("1,234", "1234"),
        ("1,23,45,678", "12345678"),  # as in India
        ("1\u202f234\u00a0567.5", "1234567.5"),
        ("1'234", "1234"),
        ("2\u00bd", "2.5"),
        ("-\u00be", "-0.75"),
        ("1e3", "1000"),
        ("-1.5E-2", "-0.015"),
        (".5", "0.5"),
        ("5.", "5"),
        ("12345678901234567890123456789012345", "12345678901234567890123456789012345"),
    ],
)
def test_numbers_are_read_as_they_are_written(text: str, value: str) -> None:
    assert number_of(text) == Decimal(value) == last_number(f"so it is {text}")


@pytest.mark.parametrize("text", ["3,5", "1,2345", "1/2", "5 apples", "", "-", "1 234", "nan", "inf", "5-3"])
def test_what_may_mean_two_things_is_no_answer(text: str) -> None:
    assert number_of(text) is None


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3), st.sampled_from(["{}", "{:,}", "{:e}"]))
def test_every_number_that_python_writes_is_read(value: Decimal, form: str) -> None:
    assert number_of(form.format(value)) == value == last_number(f"= {form.format(value)} ")


def test_reading_many_numbers_takes_no_time() -> None:
    start = time.perf_counter()
    for text in ("1," * 20_000, "9" * 20_000, "-" * 20_000, "1,234" * 5_000, "\u00bd" * 20_000):
        last_number(text)
    assert time.perf_counter() - start < 2


def test_an_expression_that_would_never_end_is_stopped_and_named() -> None:
    start = time.perf_counter()
    with pytest.raises(UserError, match=r"needs more than 2 s at row 1, completion 'aaaa") as e:
        worth(r"format:(\w+\s?)+\.", "a" * 40)
    assert "repeat" in e.value.remedy and time.perf_counter() - start < 20


def test_expressions_match_as_pythons_do() -> None:
    texts = ["ab c.", "", "a\nb.", "\udcff", "1", "é" * 9, "\u2028."]

    for pattern in (r"(\w+\s?)+\.", ".*", r"\d", "(?i)AB C.", r"[^.]*\."):
        assert matches(pattern, texts) == [re.fullmatch(pattern, t, re.DOTALL) is not None for t in texts]
    assert matches("a", []) == []
    assert matches("(a+)+b", ["ab", "a" * 40, "ab"], 0.3) == [True, None]


# words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("Grüße, cafe\u0301!", ["grüße", "café"]),
        ("می\u200cروم", ["می\u200cروم"]),
        ("بِسْمِ", ["بِسْمِ"]),
        ("你好 abc", ["你", "好", "abc"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("x_y 3D", ["x", "y", "3d"]),
        ("👍\ufe0f ok", ["ok"]),
    ],
)
def test_words_have_their_marks(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_rouge_tells_words_of_hindi_apart() -> None:
    assert rouge_l_each(["हिन्दी"], ["हिन्दी"])[0] == 1.0
    assert rouge_l_each(["हिन्दी"], ["हान्दा"])[0] == 0.0, "one word, and another one"
    assert rouge_l_each(["café"], ["cafe\u0301"])[0] == 1.0
    assert rouge_l_each(["今天天气好"], ["今天天气不好"])[0] > 0.8


def test_baselines_take_words_with_their_marks() -> None:
    texts, labels = ["की की", "कि कि"] * 3, ["a", "b"] * 3
    fitted = NearestNeighbour().fit(texts, labels)
    terms = {t for _, part in fitted._vectors.transformer_list[:1] for t in part.vocabulary_}
    assert terms == {"की", "कि", "की की", "कि कि"}
    assert TfidfLogistic().fit(texts, labels).predict(["की", "कि"]) == ["a", "b"]
