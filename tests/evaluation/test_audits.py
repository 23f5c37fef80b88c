"""Scoring of audits by hand-made numbers, and the masked likelihoods beside a loop that hides one token at a time."""

from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import torch

import onebase
from onebase.errors import DataError, UserError
from onebase.evaluation.audits import (
    Control,
    Figure,
    ScoredText,
    grouped_share,
    half_way,
    mc1,
    mc2,
    preferences,
    share,
    stands_out,
)
from onebase.evaluation.bootstrap import Score
from onebase.evaluation.masked import masked_score
from tests.audited import encoder


def control(kind: str, value: float, low: float, high: float, expected: float = 0.5) -> str:
    return Control(kind, Score("", value, low, high, 9), expected).verdict  # type: ignore[arg-type]


def test_wilson_s_interval_is_where_the_score_test_stops_rejecting() -> None:
    z = NormalDist().inv_cdf(0.975)
    for k, n in ((0, 10), (1, 10), (7, 10), (10, 10), (400, 1018)):
        s = share("x", [1.0] * k + [0.0] * (n - k))
        assert (s.value, s.n) == (k / n, n)
        for edge in {s.low, s.high} - {s.value}:  # |k/n - p| = z sqrt(p (1 - p) / n) at both ends
            assert abs(k / n - edge) == pytest.approx(z * np.sqrt(edge * (1 - edge) / n), abs=1e-9)
    assert share("x", [1.0] * 10).low == pytest.approx(0.7225, abs=1e-4)  # 10 of 10 is no certainty
    with pytest.raises(DataError, match="no examples"):
        share("x", [])


def test_examples_that_are_alike_count_as_one_group() -> None:
    values, groups = [1.0] * 90 + [0.0] * 10, ["a"] * 90 + [str(i) for i in range(10)]
    s = grouped_share("x", values, groups)
    assert (s.value, s.n) == (0.9, 11)
    assert s.low < 0.2 < share("x", values).low  # one word in 90 pairs says little about words


def test_a_type_stands_out_only_where_it_does_among_all_types() -> None:
    values = [1.0] * 65 + [0.0] * 35
    assert stands_out(values, 0.5, 1) and stands_out(values, 0.5, 9)
    some = [1.0] * 61 + [0.0] * 39  # outside the 95% interval, not outside that of 9 comparisons
    assert stands_out(some, 0.5, 1) and not stands_out(some, 0.5, 9)


def test_verdicts_of_controls() -> None:
    assert control("negative", 0.52, 0.48, 0.56) == "holds"
    assert control("negative", 0.58, 0.54, 0.62) == "fails"
    assert control("negative", 0.60, 0.30, 0.80) == "too few rows to tell"
    assert control("positive", 0.95, 0.90, 0.97, 0.75) == "holds"
    assert control("positive", 0.70, 0.60, 0.80, 0.75) == "fails"
    assert control("positive", 0.90, 0.60, 0.97, 0.75) == "too few rows to tell"
    assert half_way(0.5) == 0.75 and half_way(0.2) == pytest.approx(0.6)
    good = Control("negative", Score("", 0.5, 0.45, 0.55, 9), 0.5)
    bad = Control("positive", Score("", 0.5, 0.45, 0.55, 9), 0.75)
    assert Figure(good.score, 0.5, (good, good)).speaks and not Figure(good.score, 0.5, (good, bad)).speaks


def test_the_three_readings_of_a_pair() -> None:
    a = ScoredText([1, 7, 3], np.array([-1.0, -9.0, -1.0]))  # the differing token is rare, what follows fits
    b = ScoredText([1, 8, 9, 3], np.array([-1.0, -2.0, -2.0, -1.5]))
    found = preferences([(a, b), (b, a), (a, a)])
    assert found["shared"].tolist() == [1.0, 0.0, 0.5]  # -2 against -2.5
    assert found["sentence"].tolist() == [0.0, 1.0, 0.5]  # -11 against -6.5
    assert found["per_token"].tolist() == [0.0, 1.0, 0.5]  # -3.7 against -1.6
    noise = ScoredText([1, 7, 3], a.logp + 1e-6)
    assert all(v.tolist() == [0.5] for v in preferences([(noise, a)]).values())  # rounding is no preference


def test_mc1_and_mc2() -> None:
    assert mc1(-1.0, [-2.0, -1.5]) == 1.0 and mc1(-1.0, [-2.0, -0.5]) == 0.0 and mc1(-1.0, [-1.0]) == 0.0
    right, wrong = np.log([0.1, 0.2]).tolist(), np.log([0.3, 0.4]).tolist()
    assert mc2(right, wrong) == pytest.approx(0.3)
    assert mc2([-2000.0], [-2001.0]) == pytest.approx(1 / (1 + np.exp(-1)))  # no underflow


def test_masked_scores_are_those_of_one_hidden_token_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    loaded = onebase.load(encoder(tmp_path)).loaded
    tok, model = loaded.codec.tokenizer, loaded.model
    texts = [tok.encode(t) for t in ("the quick brown fox", "is this a question", "no")]
    found = masked_score(loaded, texts)
    for ids, logp in zip(texts, found, strict=True):
        for t, wanted in enumerate(ids):
            whole = tok.framed(ids)
            at = len(tok.begun([])) + t
            whole[at] = tok.specials["[MASK]"]
            with torch.no_grad():
                one = model.logits(torch.tensor([whole]))[0, at].log_softmax(-1)[wanted]
            assert logp[t] == pytest.approx(float(one), abs=1e-5)
    with pytest.raises(UserError, match="the base reads"):
        masked_score(loaded, [texts[0] * 200])
