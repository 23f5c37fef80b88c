"""From a recipe and its data to the config of the base, the objective, and the rows of each step."""

from pathlib import Path

from onebase.base.config import BaseConfig
from onebase.data import Dataset, RowPlan, TokenSet
from onebase.data.sources import TRAIN
from onebase.modality.text.tokenizer import Tokenizer
from onebase.objective.base import Objective
from onebase.pretraining.objectives import Setting, objective_of
from onebase.pretraining.recipe import Recipe


def rows_of(
    recipe: Recipe, out: Path, dataset: Dataset, tokenizer: Tokenizer
) -> tuple[BaseConfig, Objective, RowPlan]:
    """The config, objective and order of a run. Its token set is made in `out`, or opened. Raises UserError."""
    entry, train = objective_of(recipe.objective), recipe.train
    after = tokenizer.framed([])[len(tokenizer.begun([])) :]
    cfg = recipe.base(tokenizer.vocab_size, after[-1] if after else None)
    pictures = cfg.image if entry.pairs else None
    tokens = TokenSet.build(dataset, TRAIN, tokenizer, out / "tokens", recipe.patches, pictures)
    setting = Setting(
        tokenizer,
        train.sequence_length,
        train.seed,
        tuple(dataset.stats),
        cfg,
        dataset.media,
        train.micro_batch,
    )
    objective = entry.make(recipe.objective, setting)
    plan = RowPlan(
        tokens,
        train.sequence_length,
        train.batch_size,
        train.seed,
        reserve=objective.reserve,
        long="head" if entry.pairs else "cut",
        packed=not entry.pairs,
        repeat=recipe.data.repeat,
    )
    return cfg, objective, plan
