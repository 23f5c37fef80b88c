"""Task classify with many labels: each is decided by itself, from 0.5 on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import onebase
from onebase.api.base import Base
from onebase.assess.gating import against_classical
from onebase.base.folder import load_base, save_base
from onebase.errors import DataError, UserError
from onebase.methods.head import fit_head
from onebase.methods.logistic import solve
from tests.helpers import tiny_base

ROWS = [
    {"text": f"{text} {i}", "labels": labels}
    for i in range(5)
    for text, labels in (
        ("Is it so?", ["question"]),
        ("Is it the fox?", ["question", "animal"]),
        ("The quick fox", ["animal"]),
        ("def add(a, b)", ["code"]),
    )
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    path = tmp_path_factory.mktemp("bases") / "base"
    save_base(path, tiny_base())
    return Base(load_base(path))


def test_each_label_has_the_logistic_regression_of_sklearn() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 8, generator=g).double()
    y = (x[:, :3] + torch.randn(60, 3, generator=g) > 0.3).double()
    w, b = solve(x, y, 3, 0.1)
    for c in range(3):
        # Ours: mean loss + 0.5 * s / 4 * |w|^2; scikit-learn's: C * sum of losses + 0.5 * |w|^2.
        sk = LogisticRegression(C=1 / (60 * 0.1 / 4), tol=1e-10, max_iter=5000).fit(
            x.numpy(), y[:, c].numpy()
        )
        assert np.allclose(w[c].numpy(), sk.coef_[0], atol=2e-3)
        assert float(b[c]) == pytest.approx(float(sk.intercept_[0]), abs=2e-3)
    assert fit_head(x, y, 3).held_out is not None
    assert fit_head(x[:6], y[:6], 3).held_out is None


@pytest.mark.parametrize("method", ["head", "lora", "full"])
def test_labels_are_decided_each_by_itself(base: Base, method: str, tmp_path: Path) -> None:
    adapter = base.adapt(ROWS, task="classify", method=method, epochs=2)
    on = base.with_adapter(adapter)
    both, none = on.classify(["Is it the fox? 2", "def add(a, b) 1"])
    assert set(both.labels) == {"question", "animal"}
    assert both.label == both.labels[0] == max(both.scores, key=both.scores.__getitem__)
    assert none.labels == ("code",)
    assert sum(both.scores.values()) > 1.2, "probabilities of their own, which do not add up to 1"
    again = Base(base.loaded).with_adapter(adapter.save(tmp_path / "a"))
    assert again.classify(["Is it the fox? 2", "def add(a, b) 1"]) == [both, none]
    scores = onebase.evaluate(on, ROWS)
    assert scores.keys() == {"micro_f1", "macro_f1", "auroc"}
    assert all(s.value > 0.9 and s.low <= s.value <= s.high for s in scores.values())
    assert adapter.record.get("data.labels") == ["animal", "code", "question"]
    verdict = against_classical(on, ROWS, ROWS)
    assert verdict.classical == "TF-IDF + one-vs-rest logistic regression"
    assert "micro" in verdict.line and verdict.line.lower().startswith(verdict.answer)


def test_one_label_of_a_plain_adapter_is_its_only_one(base: Base) -> None:
    rows = [{"text": r["text"], "label": str(r["labels"][0])} for r in ROWS]
    on = base.with_adapter(base.adapt(rows, task="classify", method="head"))
    (found,) = on.classify(["Is it so? 1"])
    assert found.labels == (found.label,) == ("question",)
    scores = onebase.evaluate(on, rows)
    assert scores.keys() == {"accuracy", "macro_f1", "auroc", "ece"}
    assert 0 <= scores["ece"].low <= scores["ece"].value <= scores["ece"].high <= 1
    assert onebase.evaluate(on, rows[:1]).keys() == {"accuracy", "macro_f1", "ece"}
    with pytest.raises(UserError, match="the rows are multilabel"):
        onebase.evaluate(on, ROWS)


def test_mistakes(base: Base) -> None:
    def refused(row: dict[str, Any], says: str) -> None:
        with pytest.raises(DataError, match=says):
            base.adapt([*ROWS, row], task="classify", method="head")

    refused({"text": "x", "labels": []}, "row 21: 'labels' is empty")
    refused({"text": "x", "labels": "code"}, "row 21: 'labels' is 'code', expected a list of texts")
    refused({"text": "x", "labels": [1]}, "row 21: 'labels' is")
    refused({"text": "x", "labels": ["code", " "]}, "row 21: 'labels' is")
    with pytest.raises(DataError, match="all 2 rows have the label 'a'"):
        base.adapt([{"text": t, "labels": ["a"]} for t in "xy"], task="classify", method="lora")
    on = base.with_adapter(base.adapt(ROWS, task="classify", method="head"))
    with pytest.raises(DataError, match="row 2 has the label 'new'"):
        onebase.evaluate(on, [ROWS[0], {"text": "x", "labels": ["new"]}])
