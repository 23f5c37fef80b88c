"""The table of objectives: what a recipe names, what of a document each learns, and what does not fit."""

from dataclasses import replace

import numpy as np
import pytest

from onebase import config
from onebase.base.config import TextShape
from onebase.errors import ConfigError
from onebase.modality.text.sample import Tokens
from onebase.modality.text.tokenizer import Tokenizer
from onebase.objective.next_token import NextToken
from onebase.pretraining import objectives
from onebase.pretraining.objectives import OBJECTIVES, InfillConfig, NextTokenConfig, Setting, objective_of
from onebase.pretraining.recipe import DataConfig, Recipe
from onebase.train.config import TrainConfig
from tests.helpers import LINES

RECIPE = Recipe(
    name="any",
    data=DataConfig(dataset="d"),
    model=TextShape(width=32, depth=1, head_dim=16, context=64, vocab_size=300),
    train=TrainConfig(steps=1, batch_size=2, sequence_length=64),
)


@pytest.fixture(scope="module")
def setting() -> Setting:
    return Setting(Tokenizer.train(LINES * 4, 300), 64, seed=1, sources=("code", "docs"))


def test_a_recipe_without_one_learns_the_next_token(setting: Setting) -> None:
    assert RECIPE.objective == NextTokenConfig() and objective_of(RECIPE.objective).name == "next_token"
    assert objective_of(RECIPE.objective).make(RECIPE.objective, setting) == NextToken(64)
    assert RECIPE.base().trunks["text"].direction == "causal"
    assert config.override(RECIPE, ["objective=infill"]).objective == InfillConfig()


def test_what_is_shown_of_a_document_is_what_is_learnt(setting: Setting) -> None:
    """Infill in every piece: the markers stand in it and are not learnt, the text is."""
    tok, entry = setting.tokenizer, OBJECTIVES["infill"]
    ids = np.asarray(tok.encode("The quick brown fox jumps over the lazy dog.", bos=True, eos=True), np.int32)
    document = Tokens(ids, np.arange(len(ids)) > 0, source="code")
    made = entry.make(InfillConfig(rate=1.0), setting)
    shown = entry.shown(made, document, 3)
    marks = {tok.id_of(f"<|fim_{k}|>") for k in ("prefix", "middle", "suffix")}
    assert marks <= set(shown.ids.tolist()) and sorted(shown.ids[shown.loss]) == sorted(ids[1:])
    batch = made.batch([[document]], 3)
    assert batch.inputs["text"].ids_BT[0, : len(shown)].tolist() == shown.ids.tolist()
    plain = OBJECTIVES["next_token"]
    assert plain.shown(plain.make(NextTokenConfig(), setting), document, 3) is document


def test_sources_that_the_data_does_not_have_are_refused(setting: Setting) -> None:
    with pytest.raises(ConfigError, match="objective.sources names 'cod', which the data does not have"):
        OBJECTIVES["infill"].make(InfillConfig(sources=("code", "cod")), setting)


def test_an_objective_decides_which_way_the_trunk_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    both = replace(OBJECTIVES["next_token"], direction="both")
    monkeypatch.setitem(objectives.OBJECTIVES, "next_token", both)
    assert RECIPE.base().trunks["text"].direction == "both"
    assert RECIPE.base(280).text.vocab_size == 280
