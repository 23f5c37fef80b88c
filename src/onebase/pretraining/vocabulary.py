"""The tokenizer of a pretraining run."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from onebase.data import Dataset
from onebase.data.sources import MARK
from onebase.errors import ConfigError
from onebase.modality.patches.tokens import media_specials
from onebase.modality.text.residues import residue_tokenizer
from onebase.modality.text.sample import EOS, SPECIALS
from onebase.modality.text.tokenizer import Tokenizer
from onebase.pretraining.objectives import objective_of
from onebase.pretraining.recipe import Recipe
from onebase.pretraining.report import Tell
from onebase.readable import duration


def run_tokenizer(recipe: Recipe, out: Path, dataset: Dataset, log: Tell | None) -> Tokenizer:
    """The tokenizer of a run: read from the recipe's path or the run folder, or trained on the data and written there (without `log`: only read).
    Raises ConfigError, ArtifactError."""
    tokenizer = _plain(recipe, out, dataset, log)
    if not objective_of(recipe.objective).pairs or tokenizer.roles.after:
        return tokenizer
    return Tokenizer(
        tokenizer.inner, replace(tokenizer.roles, after=(EOS,))
    )  # the vector of a caption is that of its end


def _plain(recipe: Recipe, out: Path, dataset: Dataset, log: Tell | None) -> Tokenizer:
    if recipe.tokenizer.kind == "residues":
        return residue_tokenizer()
    specials = objective_of(recipe.objective).specials
    if recipe.modalities:
        specials = (*specials, *media_specials(recipe.patches))
    if recipe.tokenizer.path:
        tokenizer = _having(specials, recipe.tokenizer.path, recipe)
        if tokenizer.vocab_size != recipe.model.vocab_size:
            raise ConfigError(
                f"{recipe.tokenizer.path} has {tokenizer.vocab_size} tokens, model.vocab_size is {recipe.model.vocab_size}",
                f"set model.vocab_size={tokenizer.vocab_size}",
            )
        return tokenizer
    path = out / "tokenizer.json"
    if log is not None and not path.is_file():
        began = time.perf_counter()
        texts, model = _sample(dataset, recipe.tokenizer.train_bytes), recipe.model
        tokenizer = Tokenizer.train(texts, model.vocab_size, (*SPECIALS, *specials), model.portable)
        tokenizer.save(path)
        log(f"tokenizer: {tokenizer.vocab_size} tokens, trained in {duration(time.perf_counter() - began)}")
    return _having(specials, path, recipe)


def _having(specials: Sequence[str], path: str | Path, recipe: Recipe) -> Tokenizer:
    """Load a tokenizer that must have these special tokens. Raises ConfigError."""
    tokenizer = Tokenizer.from_file(path)
    if missing := [name for name in specials if name not in tokenizer.specials]:
        raise ConfigError(
            f"{path} has no special token {missing[0]!r}, which objective {objective_of(recipe.objective).name} needs",
            "let the run train a tokenizer: leave tokenizer.path out, or give another --out",
        )
    return tokenizer


def _sample(dataset: Dataset, budget: int) -> Iterator[str]:
    """Texts of about `budget` bytes, spread evenly over the documents."""
    total = sum(int(s["bytes"]) for s in dataset.stats.values())
    every = max(1, -(-total // budget))
    return (d.text.replace(MARK, "") for i, d in enumerate(dataset.documents("train")) if i % every == 0)
