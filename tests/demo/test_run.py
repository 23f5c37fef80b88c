"""The demo's recipes are recipes: both sizes fit their context, and the larger one is larger."""

from pathlib import Path

import pytest

from onebase.base.config import base_parameters, text_base
from onebase.demo.run import demo_recipe, run_demo
from onebase.errors import UserError


def test_more_minutes_train_a_larger_base(tmp_path: Path) -> None:
    small, large = demo_recipe(2.75, tmp_path, False), demo_recipe(60, tmp_path, False)
    few, many = (base_parameters(text_base(r.model)) for r in (small, large))
    assert few < 4e6 < 15e6 < many
    assert small.train.sequence_length <= small.model.context
    assert large.objective.kind == "infill"
    assert large.train.checkpoint.every
    assert demo_recipe(60, tmp_path, True).train.steps == 20


def test_minutes_must_be_some(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--minutes is 0"):
        run_demo(tmp_path, minutes=0)
