"""Measures what a run would take: some of its steps on a sample of its data, in a process of their own, with all of its blocks or some.

Formulas know neither the libraries nor the allocator, which are a third of the memory of a small run, nor how fast this machine is at the run's
own sizes. What is measured with few blocks is continued in a straight line: blocks are alike.
"""

from __future__ import annotations

import itertools
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from onebase.base.config import BaseConfig
from onebase.config import from_dict
from onebase.config_plain import to_dict
from onebase.data import Dataset, RowPlan, prepare, read_source
from onebase.data.sources import Document, SourceConfig
from onebase.errors import UserError
from onebase.pretraining.recipe import DataConfig, Recipe, TokenizerConfig
from onebase.train.config import CheckpointConfig, TrainConfig

if TYPE_CHECKING:
    import torch

    from onebase.base.model import BaseModel
    from onebase.objective.base import Objective

SAMPLE = 8 << 20
"""Bytes of all sources that are read."""
FEW = (1, 3)
"""Blocks that a large model is measured with."""
STEPS, SKIPPED = 5, 2
"""Steps that are run, and those of them that are not timed."""
BLOCKS = "import json, sys; from onebase.pretraining.probing import probe; probe(json.load(sys.stdin))"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """program: bytes of the process before it has a model. peak: further ones at the peak of a step. seconds: of a step. tokens: of a step, by the
    name of their codec. learnt: of them, patches that are made. blocks: those that were measured."""

    program: int
    peak: int
    seconds: float
    tokens: dict[str, float]
    learnt: dict[str, float]
    blocks: tuple[int, ...]


def measured(recipe: Recipe, micro: int, blocks: tuple[int, ...]) -> Measured:
    """Run steps with these numbers of blocks. Raises UserError where the data cannot be read or a step fails."""
    logging.disable(logging.WARNING)  # what is left out is said by the run
    with TemporaryDirectory(prefix="onebase-plan-") as folder:
        try:
            small = _sampled(recipe, Path(folder))
        finally:
            logging.disable(logging.NOTSET)
        found = [_child(small, micro, n) for n in blocks]
    depth = recipe.model.depth
    many = max(1, -(-recipe.train.batch_size // micro))
    each = [_step(f, many) for f in found]
    tokens, learnt = (
        {k: v * recipe.train.batch_size for k, v in found[0][key].items()} for key in ("tokens", "learnt")
    )
    return Measured(
        found[0]["program"],
        round(_at(depth, blocks, [f["peak"] for f in found])),
        _at(depth, blocks, each),
        tokens,
        learnt,
        blocks,
    )


def _at(depth: int, blocks: tuple[int, ...], values: list[float]) -> float:
    """The value at this depth, of one or two that were measured."""
    if len(values) == 1:
        return values[0]
    slope = (values[1] - values[0]) / (blocks[1] - blocks[0])
    return values[0] + max(0.0, slope) * (depth - blocks[0])


def _step(found: dict[str, Any], many: int) -> float:
    """Seconds of a step of so many micro-batches, from those of steps of one and of two."""
    one, two = found["seconds"]
    return float(one if many == 1 else two + (many - 2) * max(0.0, two - one))


def _child(recipe: Recipe, micro: int, blocks: int) -> dict[str, Any]:
    asked = {"recipe": to_dict(recipe), "micro": micro, "blocks": blocks}
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS], input=json.dumps(asked), capture_output=True, text=True
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(
            f"a step with {blocks} blocks failed: {last[:300]}", "lower model.width or train.micro_batch"
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _sampled(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with a sample of its data and its tokenizer, prepared in a folder."""
    from onebase.pretraining.vocabulary import run_tokenizer

    prepare(_sample(recipe), folder / "data", holdout=0.0)
    found = replace(recipe, data=DataConfig(dataset=str(folder / "data")))
    tokenizer = run_tokenizer(found, folder, Dataset.open(folder / "data"), lambda _: None)
    if recipe.tokenizer.kind == "bpe":  # one of a sample may be smaller than the run's
        tokenizer.save(folder / "tokenizer.json")
        found = replace(found, tokenizer=TokenizerConfig(path=str(folder / "tokenizer.json")))
    return found


def _sample(recipe: Recipe) -> Iterator[Document]:
    """The first documents of each source, the same share of all of them."""
    if recipe.data.dataset:
        dataset = Dataset.open(recipe.data.dataset)
        sizes = {k: s["bytes"] + s.get("media_bytes", 0) for k, s in dataset.stats.items()}
        read = {k: dataset.documents("train", k) for k in sizes}
    else:
        sizes = {s.name: _bytes_of(s) for s in recipe.data.sources}
        read = {s.name: read_source(s) for s in recipe.data.sources}
    share = min(1.0, SAMPLE / max(1, sum(sizes.values())))
    for name, documents in read.items():
        total = 0
        for number, document in enumerate(documents):
            if total > share * sizes[name] and number >= 8:
                break
            total += len(document.text.encode()) + sum(len(m.data) for m in document.media)
            yield replace(document, meta={})


def _bytes_of(source: SourceConfig) -> int:
    root = Path(source.path)
    paths = [root] if root.is_file() else (p for p in root.rglob("*") if p.is_file())
    return sum(p.stat().st_size for p in paths)


def probe(asked: dict[str, Any]) -> None:
    """In the process of its own: steps of one and of two micro-batches. Prints JSON: program and peak (bytes), seconds of a step of each, tokens and
    patches that are made of a row, by codec."""
    from onebase.modality.text.residues import residue_tokenizer
    from onebase.modality.text.tokenizer import Tokenizer
    from onebase.model.device import pick_device
    from onebase.pretraining.rows import rows_of
    from onebase.train.memory import held, most_held

    recipe = from_dict(Recipe, asked["recipe"], "recipe")
    micro, train = asked["micro"], recipe.train
    dataset, device = Dataset.open(str(recipe.data.dataset)), pick_device(train.device)
    tokenizer = Tokenizer.from_file(recipe.tokenizer.path) if recipe.tokenizer.path else residue_tokenizer()
    folder = Path(str(recipe.data.dataset)).parent
    whole, objective, _ = rows_of(recipe, folder, dataset, tokenizer)
    cfg = cut(whole, asked["blocks"])

    def rows(size: int) -> RowPlan:
        sized = replace(recipe, train=replace(train, batch_size=size, micro_batch=micro))
        return rows_of(sized, folder, dataset, tokenizer)[2]

    plan = rows(micro)
    batches = [objective.batch(plan.rows(i), i * micro) for i in range(max(1, min(8, 32 // micro)))]
    program = held(device)
    peak, seconds, model = 0, dict[int, float](), _model(cfg, train.seed, device)
    for many in (2, 1) if micro < train.batch_size else (1,):
        size = min(many * micro, train.batch_size)
        few = replace(train, batch_size=size, micro_batch=micro)
        seconds[many] = _timed(model, objective, rows(size), few)
        peak = peak or most_held(device) - program  # of the first, in memory that nothing was in
    count = len(batches) * micro
    media = [(k, len(p.t_N)) for b in batches for k, p in b.inputs["text"].media.items()]
    found = {k: sum(n for name, n in media if name == k) / count for k in recipe.patches}
    text = sum(b.tokens for b in batches) / count - sum(found.values())
    learnt = {k: sum(b.counts.get(f"flow.{k}", 0) for b in batches) / count for k in recipe.patches}
    result = {
        "program": program,
        "peak": peak,
        "seconds": [seconds[1], seconds.get(2, seconds[1])],
        "tokens": {"text": text} | found,
        "learnt": learnt,
    }
    print(json.dumps(result))


def _model(cfg: BaseConfig, seed: int, device: torch.device) -> BaseModel:
    from onebase.base.model import BaseModel

    model = BaseModel(cfg)
    model.reset(seed)
    return model.to(device)


def _timed(model: BaseModel, objective: Objective, rows: RowPlan, train: TrainConfig) -> float:
    """Seconds of a step, by the loop itself: of the quickest, because other programs can only make it slower."""
    from onebase.train.callbacks import NoCallback, StepInfo
    from onebase.train.loop import Job, run

    times: list[float] = []

    class Watch(NoCallback):
        def step(self, info: StepInfo) -> None:
            times.append(info.seconds)

    few = replace(
        train, steps=STEPS, tokens=None, minutes=None, eval_every=0, checkpoint=CheckpointConfig(flat=False)
    )
    run(Job(model, objective, rows, few, callbacks=[Watch()]))
    return min(b - a for a, b in itertools.pairwise(times[SKIPPED - 1 :]))


def cut(cfg: BaseConfig, blocks: int) -> BaseConfig:
    """The config with the first blocks alone."""
    trunk = cfg.trunks["text"]
    return replace(cfg, trunks={**cfg.trunks, "text": replace(trunk, blocks=trunk.blocks[:blocks])})
