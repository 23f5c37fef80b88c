"""Scores of written texts: sacrebleu's own numbers, and JSON compared by what it says."""

import random
import sys

import pytest
import sacrebleu

from onebase.errors import DataError, UserError
from onebase.evaluation import written
from onebase.evaluation.metrics import METRICS
from onebase.evaluation.written import all_json, bleu, chrf, json_match, json_match_each, json_valid, parsed

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "then", "sleeps"]


def texts(seed: int, n: int = 40) -> tuple[list[str], list[str]]:
    """Targets, and predictions that have some of their words."""
    draw = random.Random(seed)
    targets = [" ".join(draw.choices(WORDS, k=draw.randint(4, 12))) + "." for _ in range(n)]
    said = [" ".join(w if draw.random() < 0.7 else draw.choice(WORDS) for w in t.split()) for t in targets]
    return targets, said


@pytest.mark.parametrize("seed", range(3))
def test_chrf_and_bleu_are_sacrebleus(seed: int) -> None:
    targets, said = texts(seed)
    for score, theirs in ((chrf, sacrebleu.CHRF()), (bleu, sacrebleu.BLEU())):
        ours = score(targets, said)
        assert ours.value == pytest.approx(theirs.corpus_score(said, [targets]).score, abs=1e-9)
        assert ours.how == str(theirs.get_signature()) and f"version:{sacrebleu.__version__}" in ours.how
        assert ours.low < ours.value < ours.high and ours.n == 40


def test_the_interval_is_that_of_scores_of_drawn_texts() -> None:
    """By brute force: texts drawn anew, scored by the library."""
    targets, said = texts(7, 30)
    ours, theirs, draw = bleu(targets, said), sacrebleu.BLEU(), random.Random(0)
    found = []
    for _ in range(300):
        at = [draw.randrange(30) for _ in range(30)]
        found.append(theirs.corpus_score([said[i] for i in at], [[targets[i] for i in at]]).score)
    found.sort()
    assert ours.low == pytest.approx(found[7], abs=2.5) and ours.high == pytest.approx(found[292], abs=2.5)


def test_the_same_texts_have_all_of_it() -> None:
    targets, _ = texts(1)
    assert chrf(targets, targets).value == pytest.approx(100) == bleu(targets, targets).value
    assert chrf(["abc"], [""]).value == 0 == bleu(["abc"], [""]).value


def test_json_is_compared_by_what_it_says() -> None:
    target = '{"a": 1, "b": [true, null, "x"]}'
    same = ['{"b":[true,null,"\\u0078"],"a":1.0}', ' {"a": 1,\n "b": [true, null, "x"]} ']
    other = [
        '{"a": 1, "b": [1, null, "x"]}',
        '{"a": 1, "b": [null, true, "x"]}',
        '{"a": 1}',
        '{"a": "1", "b": [true, null, "x"]}',
        target[:-1],
        target + " So it is.",
        "NaN",
        "",
    ]
    assert json_match_each([target] * 10, same + other).tolist() == [1.0] * 2 + [0.0] * 8
    assert json_match([target] * 10, same + other).value == 0.2
    assert json_valid(same + other).value == 0.6
    assert json_match_each(["no JSON"], ["no JSON"]).tolist() == [0.0]


@pytest.mark.parametrize(
    "text", ["NaN", "[Infinity]", "{'a': 1}", '{"a": 1,}', "[" * 100_000, "[" * 500 + "]" * 500]
)
def test_what_is_no_json(text: str) -> None:
    assert parsed(text) is None


def test_numbers_and_names_alone_are_texts() -> None:
    assert all_json(['{"a": 1}', "[]"])
    assert not all_json(['{"a": 1}', "12"]) and not all_json(["true"]) and not all_json(["x"])


def test_they_are_among_the_metrics_and_refuse_lengths_that_differ() -> None:
    for name in ("chrf", "bleu", "json_match"):
        with pytest.raises(DataError):
            METRICS[name](["a"], ["a", "b"])


def test_without_sacrebleu_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    assert not written.has_sacrebleu()
    with pytest.raises(UserError, match="sacrebleu") as e:
        chrf(["a"], ["a"])
    assert "onebase[eval]" in e.value.remedy
