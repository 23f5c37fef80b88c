"""The label-free rival: an n-gram asked which mark comes next gives the odds of its own distribution."""

import numpy as np
import pytest

from onebase.api.base import Base
from onebase.demo.measure import mark_odds
from onebase.evaluation.ngram import NGram
from tests.helpers import tiny_base


def test_odds_of_the_marks_are_those_of_the_distribution() -> None:
    base = Base(tiny_base())
    told = ["are you here ?", "are you well ?", "i am here .", "you are well .", "am i here ?"]
    ngram = NGram(base.config.text.vocab_size, 5).fit([base.tokenizer.encode(t) for t in told])
    prompts = ["are you", "i am", "well then: are you all of you here, are you here"]
    question, statement = (base.tokenizer.encode(m) for m in "?.")
    assert len(question) == len(statement) == 1
    for prompt, odds in zip(prompts, mark_odds(base, ngram, prompts), strict=True):
        p = ngram.distribution(base.tokenizer.encode(prompt))
        assert odds == pytest.approx(np.log(p[question[0]]) - np.log(p[statement[0]]), abs=1e-9)
