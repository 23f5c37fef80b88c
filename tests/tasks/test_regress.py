"""Task regress: the ridge regression is the exact one, predictions are in the data's units, and what is no number is refused."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

import onebase
from onebase.api.base import Adapter, Base
from onebase.base.folder import load_base, save_base
from onebase.errors import ConfigError, DataError, UserError
from onebase.methods.ridge import _solve, fit_ridge
from tests.helpers import tiny_base

ROWS = [
    {"text": f"{start} {i}", "value": value + i}
    for i in range(6)
    for start, value in (("Is it", 1000.0), ("The quick fox", 900.0))
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    path = tmp_path_factory.mktemp("bases") / "base"
    save_base(path, tiny_base())
    return Base(load_base(path))


def test_the_ridge_is_that_of_sklearn() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 50, generator=g).double(), torch.randn(30, generator=g).double()
    for strength in (0.01, 1.0):
        w_SP, b_S = _solve(x, y, (strength,))
        sk = Ridge(alpha=30 * strength).fit(x.numpy(), y.numpy())
        assert np.allclose(w_SP[0].numpy(), sk.coef_, atol=1e-8)
        assert float(b_S) == pytest.approx(sk.intercept_, abs=1e-8)


def test_the_strength_is_weak_for_a_line_and_strong_for_noise() -> None:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(60, 5, generator=g) * torch.logspace(-2, 2, 5) + 7
    line = (x[:, 0] * 30 + x[:, 3]).double()
    line = (line - line.mean()) / line.std(correction=0)
    fitted = fit_ridge(x, line)
    assert fitted.strength < 0.1 and fitted.held_out is not None and fitted.held_out < 0.01
    torch.testing.assert_close(fitted.head(x)[:, 0].double(), line, atol=0.05, rtol=0)
    assert fit_ridge(x, torch.randn(60, generator=g).double()).strength >= 1
    assert fit_ridge(x[:4], line[:4]).held_out is None


@pytest.mark.parametrize("method", ["head", "lora", "full"])
def test_predictions_are_in_the_units_of_the_data(base: Base, method: str, tmp_path: Path) -> None:
    adapter = base.adapt(ROWS, task="regress", method=method, epochs=2)
    on = base.with_adapter(adapter)
    found = on.predict(["Is it 2", "The quick fox 3"])
    assert all(isinstance(x, float) for x in found)
    assert found == pytest.approx([1002, 903], abs=15)
    head = adapter.parts.config.head
    assert head is not None and head.gives == "value" and head.labels == ()
    assert head.mean == pytest.approx(952.5) and head.scale == pytest.approx(
        np.std([r["value"] for r in ROWS])
    )
    assert (
        Base(base.loaded).with_adapter(adapter.save(tmp_path / "a")).predict(["Is it 2", "The quick fox 3"])
        == found
    )
    assert Adapter.load(tmp_path / "a").fingerprint == adapter.fingerprint
    scores = onebase.evaluate(on, ROWS)
    assert scores.keys() == {"mae", "spearman"}
    assert scores["mae"].value < 15 and scores["spearman"].value > 0.8
    assert scores["mae"].low <= scores["mae"].value <= scores["mae"].high
    assert adapter.record.get("data.mean") == head.mean
    assert onebase.evaluate(on, ROWS[:1]).keys() == {"mae"}
    assert on.predict([]) == []


def test_units_do_not_matter(base: Base) -> None:
    texts = ["Is it 2", "It is so"]
    one = base.with_adapter(base.adapt(ROWS, task="regress", method="head")).predict(texts)
    moved: list[dict[str, Any]] = [r | {"value": -1e6 + 1e-3 * float(r["value"])} for r in ROWS]  # type: ignore[arg-type]
    two = base.with_adapter(base.adapt(moved, task="regress", method="head")).predict(texts)
    assert [(x + 1e6) / 1e-3 for x in two] == pytest.approx(one, abs=1e-2)


def test_values_of_a_csv_are_numbers(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,value\n" + "".join(f"{r['text']},{r['value']}\n" for r in ROWS))
    assert base.adapt(path, task="regress", method="head").parts.config.head.mean == pytest.approx(952.5)  # type: ignore[union-attr]


@pytest.mark.parametrize("value", ["many", True, [1], math.inf, "nan", 10**400])
def test_what_is_no_number_is_refused_with_its_row(base: Base, value: object) -> None:
    rows = [*ROWS[:4], {"text": "x", "value": value}]
    with pytest.raises(DataError, match=r"row 5: 'value'"):
        base.adapt(rows, task="regress", method="head")
    on = base.with_adapter(base.adapt(ROWS, task="regress", method="head"))
    with pytest.raises(DataError, match=r"row 5: 'value'"):
        onebase.evaluate(on, rows)


def test_mistakes(base: Base) -> None:
    with pytest.raises(DataError, match="'value' is empty"):
        base.adapt([*ROWS, {"text": "x", "value": math.nan}], task="regress", method="head")
    with pytest.raises(DataError, match="no column 'value'"):
        base.adapt([{"text": "x", "label": "y"}], task="regress", method="head")
    with pytest.raises(DataError, match="all 3 rows have the value 2.0"):
        base.adapt([{"text": "x", "value": 2}] * 3, task="regress", method="lora")
    with pytest.raises(UserError, match="not numbers"):
        base.adapt(ROWS, task="regress", method="prompt")
    with pytest.raises(DataError, match="row 1 has"):
        base.adapt([{"text": "x y " * 99, "value": 1}, ROWS[0]], task="regress", method="head", long="refuse")
    with pytest.raises(UserError, match="no adapter that gives numbers"):
        base.predict(["x"])
    on = base.with_adapter(base.adapt(ROWS, task="regress", method="head", long="refuse"))
    with pytest.raises(DataError, match="the limit is"):
        on.predict(["x y " * 99])
    with pytest.raises(UserError, match="no adapter that classifies"):
        on.classify(["x"])
    with pytest.raises(ConfigError, match="scale"):
        onebase.methods.head.HeadConfig(gives="value", scale=0.0)  # type: ignore[attr-defined]
