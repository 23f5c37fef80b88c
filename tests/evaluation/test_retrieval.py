"""recall@k and nDCG: against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from onebase.errors import DataError
from onebase.evaluation.retrieval import ndcg_each, recall_each, relevant_ranks, retrieval_scores


def test_ndcg_is_scikit_learn_s() -> None:
    rng = np.random.default_rng(0)
    s_QC = rng.normal(size=(40, 30))
    relevant = [rng.choice(30, size=rng.integers(1, 15), replace=False).tolist() for _ in range(40)]
    y = np.zeros((40, 30))
    for i, mine in enumerate(relevant):
        y[i, mine] = 1
    ranks = relevant_ranks(s_QC, relevant)
    for i in range(40):
        assert ndcg_each(ranks, 10)[i] == pytest.approx(
            ndcg_score(y[i : i + 1], s_QC[i : i + 1], k=10), abs=1e-12
        )
        best = np.argsort(-s_QC[i])[:5]
        assert recall_each(ranks, 5)[i] == pytest.approx(len(set(best) & set(relevant[i])) / len(relevant[i]))


def test_by_hand() -> None:
    found = retrieval_scores([[0.9, 0.1, 0.5], [0.9, 0.1, 0.5]], [[0], [2]])
    assert {k: s.value for k, s in found.items()} == pytest.approx(
        {"recall@1": 0.5, "recall@5": 1.0, "recall@10": 1.0, "ndcg@10": (1 + 1 / np.log2(3)) / 2}
    )
    assert all(s.low <= s.value <= s.high and s.n == 2 for s in found.values())


def test_equal_similarities_are_not_found_by_luck() -> None:
    assert [r.tolist() for r in relevant_ranks(np.ones((2, 4)), [[0], [1, 3]])] == [[4], [3, 4]]


def test_what_is_left_out_takes_no_place() -> None:
    s = [[0.9, 0.8, 0.1]]
    assert relevant_ranks(s, [[1]])[0].tolist() == [2]
    assert relevant_ranks(s, [[1]], [[0]])[0].tolist() == [1]
    assert relevant_ranks(s, [[1]], [[1]])[0].tolist() == [2], "what belongs to the query is never left out"


def test_what_cannot_be_scored_is_refused() -> None:
    for s, relevant in (([[np.nan, 1.0]], [[0]]), ([[0.0, 1.0]], [[]]), ([[0.0, 1.0]], [[0], [1]])):
        with pytest.raises(DataError):
            retrieval_scores(s, relevant)
