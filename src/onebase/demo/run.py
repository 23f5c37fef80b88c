"""Runs the demo: one base from pretraining to a report, on data from packages that pip installs."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from onebase.api.base import Base
from onebase.artifact.files import MANIFEST, write_atomic
from onebase.artifact.owned import owned
from onebase.assess.gating import untrained_twin
from onebase.base.config import TextShape
from onebase.config_plain import to_dict
from onebase.data import Dataset, TokenSet, prepare
from onebase.demo import measure
from onebase.demo.budget import default_steps, measure_pace, spoken, work
from onebase.demo.corpus import corpus
from onebase.demo.docstrings import docstring
from onebase.demo.heldout import heldout
from onebase.demo.opened import open_bases
from onebase.demo.report import write_report
from onebase.demo.results import DemoResult, Generated, Size, as_json
from onebase.demo.tasks import tasks
from onebase.errors import UserError
from onebase.modality.text.shown import ledger_rows, render_rows
from onebase.model.device import pick_device
from onebase.pretraining.objectives import InfillConfig, NextTokenConfig
from onebase.pretraining.recipe import DataConfig, Recipe
from onebase.pretraining.report import fit_ngram
from onebase.pretraining.run import run_recipe
from onebase.readable import duration
from onebase.train.callbacks import Progress, read_log
from onebase.train.config import AdamWConfig, CheckpointConfig, MuonConfig, ScheduleConfig, TrainConfig
from onebase.train.signals import Stopped

Tell = Callable[[str], None]


def demo_recipe(minutes: float | None, dataset: Path, quick: bool) -> Recipe:
    """The recipe of the demo's base: about 3M parameters for the default budget, about 20M from half an hour on.

    minutes: of pretraining; None for a number of steps that depends on the chip alone.
    """
    large = minutes is not None and minutes >= 30
    shape = TextShape(
        width=384 if large else 192,
        depth=8 if large else 4,
        head_dim=64,
        context=256,
        vocab_size=1024 if quick else 8192 if large else 4096,
    )
    train = TrainConfig(
        steps=20 if quick else default_steps(pick_device("auto")) if minutes is None else None,
        minutes=None if quick else minutes,
        batch_size=64 if large else 16,
        sequence_length=256,
        muon=MuonConfig(lr=0.04),
        adamw=AdamWConfig(embed=0.04, head=0.008, other=0.02, betas=(0.9, 0.95)),
        schedule=ScheduleConfig(warmup=10, warmdown=0.6, final=0.02),
        checkpoint=CheckpointConfig(every=500 if large else 0, keep=1),
        eval_every=0,
    )
    objective = InfillConfig(rate=0.1, sources=("code",)) if large else NextTokenConfig()
    return Recipe(
        name="demo", data=DataConfig(dataset=str(dataset)), model=shape, train=train, objective=objective
    )


def run_demo(
    out: str | Path,
    *,
    minutes: float | None = None,
    quick: bool = False,
    log: Tell = print,
    seed: int = 0,
) -> DemoResult:
    """Run the whole demo in the folder `out` and write `out/report.html`. Raises UserError."""
    out = Path(out)
    if minutes is not None and not minutes > 0:
        raise UserError(f"--minutes is {minutes}", "give a number above 0")
    with owned(out):
        return _run_demo(out, minutes, quick, log, seed)


def _run_demo(out: Path, minutes: float | None, quick: bool, log: Tell, seed: int) -> DemoResult:
    began = time.perf_counter()
    stages: dict[str, float] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        log(f"\n== {name}")
        at = time.perf_counter()
        yield
        stages[name] = time.perf_counter() - at

    recipe = demo_recipe(minutes, out / "corpus", quick)
    expected = work(recipe, out / "pretrain", quick=quick).seconds(measure_pace(recipe))
    log(f"about {spoken(expected)} on this machine, if nothing else runs on it")
    with stage("prepare the corpus"):
        dataset = _prepare(out, seed, quick, log)
    with stage("pretrain one base"):
        finished = run_recipe(recipe, out / "pretrain", callbacks=[Progress("pretrain")], log=log)
        if finished.base is None:
            raise Stopped("the demo was stopped; the base so far is saved", "run the same command to resume")
    base = Base(finished.base)
    untrained = Base(untrained_twin(finished.base, seed=recipe.train.seed + 1))
    tokens = TokenSet.build(dataset, "train", base.tokenizer, out / "pretrain" / "tokens")
    result = DemoResult(
        out=str(out),
        quick=quick,
        expected=expected,
        recipe=to_dict(recipe),
        sources=dataset.stats,
        facts={e.field: base.record.get(e.field) for e in base.record.events}
        | {"fingerprint": base.fingerprint},
        curve=read_log(out / "pretrain" / "log.jsonl"),
        ledger=render_rows(ledger_rows(tokens, base.tokenizer)),
        stages=stages,
    )
    demo_tasks = tasks(seed)
    size = Size.quick() if quick else Size()
    with stage("predict held-out text, compared with a 5-gram"):
        ngram, _ = fit_ngram(tokens, base.config.text.vocab_size, size.ngram_tokens)
        result.heldout = heldout(base, untrained, ngram, dataset, size, log)
    with stage("open two published bases"):
        opened = open_bases(log)
        result.opened += [r.facts for r in opened]
    with stage("task: is it a question? with the prompt alone, a head, LoRA"):
        result.rows += measure.question(
            base, untrained, opened, ngram, demo_tasks["question"], out, result, size, log
        )
    with stage("task: write the docstring, with supervised fine-tuning"):
        result.rows += docstring(base, untrained, demo_tasks["docstring"], out, result, size, log)
    with stage("task: topic of an exchange, with a head"):
        result.rows += measure.topic(base, untrained, opened, demo_tasks["topic"], size, log)
    with stage("sample and report"):
        result.samples += _samples(base)
        stages["everything"] = time.perf_counter() - began
        write_report(result, out / "report.html")
        write_atomic(out / "results.json", json.dumps(as_json(result), indent=1).encode())
    took = time.perf_counter() - began
    log(f"\nreport: {out / 'report.html'}   ({duration(took)} in all, {duration(expected)} expected)")
    log(f"chat with it:   onebase chat {out / 'pretrain'}")
    adapters = " ".join(f"--adapter {name}={path}" for name, path in result.adapters.items())
    log(f"serve it:       onebase serve {out / 'pretrain'} {adapters}")
    log(f"show its record: onebase show {out / 'pretrain' / 'base'}")
    return result


def _prepare(out: Path, seed: int, quick: bool, log: Tell) -> Dataset:
    path = out / "corpus"
    if not (path / MANIFEST).is_file():
        part = 20 if quick else 1
        documents = corpus(
            seed,
            dialogue_chars=7_000_000 // part,
            code_chars=7_000_000 // part,
            prose_chars=1_500_000 // part,
        )
        prepare(documents.documents(), path, holdout=0.0, seed=seed)
    dataset = Dataset.open(path)
    for name, s in dataset.stats.items():
        log(
            f"{name}: {s['documents']:,} documents, {s['bytes'] / 1e6:.2f} MB, {s['holdout_documents']:,} held out, "
            f"{s['duplicates_removed']:,} duplicates removed, licence {s['licence']}"
        )
    log(f"fingerprint {dataset.fingerprint[:24]}...")
    return dataset


def _samples(base: Base) -> list[Generated]:
    prompts = {
        "dialogue": "- Hi! How are you?\n- ",
        "code": "def read_lines(path):\n    ",
        "prose": "Return the",
    }
    return [
        Generated(
            f"free text, {kind}", p, base.generate(p, max_tokens=48, temperature=0.7, top_p=0.9, seed=1)
        )
        for kind, p in prompts.items()
    ]
