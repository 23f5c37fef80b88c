"""What was written before the rooms moved opens, says the same, and goes on: a base, adapters of five methods, data, a checkpoint."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import onebase
from onebase.api.base import Base
from onebase.govern.verify import verify_tree

BEFORE = Path(__file__).parents[1] / "fixtures" / "written_before"
SAID: dict[str, Any] = json.loads((BEFORE / "said.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def base() -> Base:
    return onebase.load(BEFORE / "base")


def test_a_base_is_what_it_was(base: Base) -> None:
    assert base.fingerprint == base.loaded.reread() == SAID["fingerprint"]
    assert verify_tree(BEFORE / "base")  # raises where something does not hold


@pytest.mark.parametrize("name", sorted(SAID.keys() - {"fingerprint"}))
def test_an_adapter_says_what_it_said(name: str, base: Base) -> None:
    on = base.with_adapter(BEFORE / "adapters" / name)
    assert on.attached is not None
    if on.attached.task == "classify":
        assert on.classify(["calm"])[0].scores == pytest.approx(SAID[name], abs=1e-5)
    elif on.attached.task == "regress":
        assert on.predict(["calm"]) == pytest.approx(SAID[name], abs=1e-4)
    else:
        assert on.generate("the sea is", max_tokens=4) == SAID[name]


def test_a_run_goes_on_to_the_same_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its checkpoint at step 3 of 6, with the data as it was prepared: within 1e-4 of the weights that the whole run had on another chip."""
    for name in ("run", "text.jsonl", "recipe.yaml"):
        source = BEFORE / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    made = onebase.pretrain("recipe.yaml", out="run")
    whole = onebase.load(BEFORE / "base")
    for (name, mine), (_, theirs) in zip(
        made.loaded.model.named_parameters(), whole.loaded.model.named_parameters(), strict=True
    ):
        assert (mine - theirs).abs().max() <= 1e-4, name
