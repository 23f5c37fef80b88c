"""Task rerank: learnt from graded texts, scored by nDCG and MRR."""

from typing import Any

import pytest

import onebase
from onebase.api.base import Base
from onebase.errors import DataError, UserError
from onebase.evaluation.retrieval import graded_each
from onebase.modality.text.pairs import cut_pair, pair_frame
from tests.helpers import tiny_base

WORDS = ["tea", "milk", "bread", "jam"]
ROWS: list[dict[str, Any]] = [
    {"query": f"{w} please", "texts": [f"some {w}", f"no {o}", "nothing"], "grades": [1, 0, 0]}
    for w, o in zip(WORDS, WORDS[1:] + WORDS[:1], strict=True)
] * 3


@pytest.mark.parametrize("method", ["head", "lora"])
def test_learnt(method: str) -> None:
    base = Base(tiny_base(portable=True))
    more = {} if method == "head" else {"epochs": 1, "batch_size": 24}
    adapter = base.adapt(ROWS, task="rerank", method=method, **more)
    on = base.with_adapter(adapter)
    scores = onebase.evaluate(on, ROWS)
    assert scores["ndcg@10"].value > 0.9 and scores["mrr@10"].value > 0.9
    found = on.rerank("tea please", ["nothing", "some tea"])
    assert [r.text for r in found] == ["some tea", "nothing"] and found[0].index == 1
    assert all(0 < r.score < 1 for r in found)
    assert adapter.record.get("data.texts") == 36


def test_bad_rows_and_calls() -> None:
    base = Base(tiny_base())
    for row, said in [
        ({"grades": [1, 0]}, "a number for each text"),
        ({"grades": [0, 0, 0]}, "no text has a grade"),
        ({"grades": [1, -1, 0]}, "numbers of at least 0"),
        ({"texts": "some tea"}, "a list of texts is expected"),
    ]:
        with pytest.raises(DataError, match=said):
            base.adapt([*ROWS, {**ROWS[0], **row}], task="rerank", method="head")
    with pytest.raises(DataError, match="every text has a grade"):
        base.adapt([{**ROWS[0], "grades": [1, 1, 2]}] * 3, task="rerank", method="head")
    with pytest.raises(UserError, match="no adapter that reranks"):
        base.rerank("tea", ["milk"])
    on = base.with_adapter(base.adapt(ROWS, task="rerank", method="head"))
    for texts, top, said in [
        ("tea", None, "a list of texts"),
        ([], None, "a list of texts"),
        (["tea"], 0, "top is 0"),
    ]:
        with pytest.raises(UserError, match=said):
            on.rerank("tea", texts, top=top)


def test_equal_scores_are_the_worst_order() -> None:
    assert graded_each([1, 0], [0.5, 0.5], 10) == (pytest.approx(0.6309, abs=1e-4), 0.5)
    assert graded_each([3, 0, 1], [3, 2, 1], 10) == (pytest.approx(3.5 / 3.6309, abs=1e-4), 1.0)
    assert graded_each([1, *[0] * 10], range(11), 10) == (0.0, 0.0)


def test_cutting_and_framing_without_a_post_processor() -> None:
    assert [cut_pair(4, 20, 10), cut_pair(20, 4, 10), cut_pair(8, 20, 11), cut_pair(20, 8, 11)] == [
        (4, 6),
        (6, 4),
        (5, 6),
        (6, 5),
    ]
    assert cut_pair(3, 4, 7) == (3, 4)
    tokenizer = tiny_base().codec.tokenizer
    frame = pair_frame(tokenizer)
    assert frame.framed([5], [6]) == ([tokenizer.bos, 5, tokenizer.bos, 6], [0, 0, 0, 0])
