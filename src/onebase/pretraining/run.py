"""Pretrains a base from a recipe: data, tokenizer, training loop, scores, record, and the finished base."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from onebase.artifact.files import MANIFEST
from onebase.artifact.record import Origin
from onebase.base.folder import LoadedBase, load_base, save_base
from onebase.base.model import BaseModel
from onebase.data import Dataset, prepare, read_source
from onebase.errors import UserError
from onebase.evaluation.bootstrap import Score
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.shown import ledger_rows, render_rows
from onebase.model.device import pick_device
from onebase.objective.base import takes_whole_step
from onebase.pretraining.claim import check_sources, claim, keep_sources
from onebase.pretraining.extending import (
    Amount,
    amount,
    begin,
    check_extension,
    keep_before,
    note_extension,
    under_way,
)
from onebase.pretraining.heldout import Heldout
from onebase.pretraining.objectives import objective_of
from onebase.pretraining.recipe import Recipe, licences_from, origins, read_recipe
from onebase.pretraining.report import (
    Scores,
    Tell,
    TellShare,
    describe,
    epochs_of,
    note_run,
    share,
)
from onebase.pretraining.rows import rows_of
from onebase.pretraining.vocabulary import run_tokenizer
from onebase.train.callbacks import Callback, JsonLog
from onebase.train.flops import counted_flops
from onebase.train.loop import Job, Result, micro_batch_size, run
from onebase.train.memory import check_memory
from onebase.train.parallel import Parallel, load_whole_state, owning, whole_state
from onebase.train.track import TensorBoard, WandB

T = TypeVar("T")
EVAL_TOKENS = 100_000


@dataclass(frozen=True)
class Finished:
    """A pretraining run: the base (None when a signal stopped it first) and how the loop ended."""

    base: LoadedBase | None
    result: Result | None
    out: Path


def run_recipe(
    recipe: Recipe | Mapping[str, object] | str | Path,
    out: str | Path,
    *,
    callbacks: Sequence[Callback] = (),
    log: Tell | None = None,
    extend: Mapping[str, Any] | Amount | None = None,
    overwrite: bool = False,
    **overrides: object,
) -> Finished:
    """Run a recipe in the folder `out`: it writes data/, tokenizer.json, log.jsonl, checkpoints/, and finally base/.

    The same call resumes an interrupted run. extend: continue a finished run, by `{"minutes": 60}` or steps, tokens, epochs; the old base is
    kept as `base-step_N/`, unless `overwrite`. log: receives lines for the user. Raises UserError, also if another process is writing the folder.
    """
    by = None if extend is None else amount(extend)
    if overwrite and by is None:
        raise UserError(
            "overwrite is given without extend: a finished base is not trained again",
            "give another --out, or --extend minutes=60",
        )
    recipe = read_recipe(recipe, overrides)
    par = Parallel.start(pick_device(recipe.train.device))
    try:
        main_log = log if log is not None and par.main else lambda _: None
        out = Path(out)
        if by is not None:
            check_extension(out, recipe, by)
        done = by is None and (out / "base" / MANIFEST).is_file()  # then nothing is written
        with owning(None if done else out, par):
            return _run(recipe, out, par, callbacks, main_log, by, overwrite)
    finally:
        par.stop()


def _run(
    recipe: Recipe,
    out: Path,
    par: Parallel,
    callbacks: Sequence[Callback],
    log: Tell,
    by: Amount | None,
    overwrite: bool,
) -> Finished:
    claim(out, recipe, par)
    check_sources(out, recipe)
    if by is None and (out / "base" / MANIFEST).is_file():
        begun = under_way(out)
        more = f"; resume its extension with --extend {Amount(**begun.by)}" if begun else ""  # type: ignore[arg-type]
        log(f"{out / 'base'} is already finished{more}")
        return Finished(load_base(out / "base", device=par.device), None, out)
    dataset = _once(par, lambda: _dataset(recipe, out, log))
    tokenizer = _once(par, lambda: run_tokenizer(recipe, out, dataset, log))
    codec = TextCodec(tokenizer)
    entry = objective_of(recipe.objective)
    cfg, objective, plan = _once(par, lambda: rows_of(recipe, out, dataset, tokenizer))
    tokens = plan.tokenset
    micro = micro_batch_size(recipe.train, par, whole=takes_whole_step(objective))
    check_memory(cfg, recipe.train, micro, par.device, par.world)
    log(describe(cfg, recipe, plan))
    extended = None if by is None else _once(par, lambda: begin(out, recipe, by, plan))
    if extended is not None:
        end = (
            f"for {by}"
            if extended.total is None
            else f"to step {extended.total:,}, {share(epochs_of(plan, extended.total))}"
        )
        log(
            f"extended from step {extended.start:,} of {extended.before:,}, the last before the warm-down: {end}"
        )
    shown = (entry.shown(objective, document, n) for n, document in enumerate(tokens))
    log("supervised text, between « »:\n" + render_rows(ledger_rows(shown, tokenizer)))

    model = BaseModel(cfg)
    model.reset(recipe.train.seed)
    model.to(par.device)
    entry.begin(recipe.objective, model)
    rows = plan.rows(0)
    rows = rows if takes_whole_step(objective) else rows[:1]
    first = objective.batch(rows, 0)
    size = max(first.tokens, len(rows) * plan.length if "text" in cfg.codecs else 0)
    counted = counted_flops(model, objective, first) / size
    loaded = LoadedBase(model, codec if "text" in cfg.codecs else None)
    heldout = Heldout(dataset.first("holdout", 1000), recipe.train.sequence_length, EVAL_TOKENS)

    def all_measured(base: LoadedBase, tokens: int) -> dict[str, dict[str, Score]]:
        """The objective's scores of held-out documents by name and source, on this many tokens in all; the main one first."""
        held = replace(heldout, tokens=tokens, ranks={})
        each = {entry.measured: entry.measure, **entry.more}
        return {name: measure(base, held) for name, measure in each.items()}

    def scores(_: BaseModel) -> dict[str, float]:
        return {
            f"heldout_{name}/{k}": s.value
            for name, found in all_measured(loaded, EVAL_TOKENS // 4).items()
            for k, s in found.items()
        }

    job = Job(
        model=model,
        objective=objective,
        rows=plan,
        train=recipe.train,
        out=out,
        callbacks=[*_loggers(recipe, out, par), TellShare(plan, log), *callbacks],
        evaluate=scores if any(heldout.documents.values()) else None,
        parallel=par,
        identity={"tokenizer": tokenizer.digest} | ({entry.name: entry.version} if entry.version else {}),
        log=log,
        extension=extended.budget() if extended else None,
    )
    result = run(job)
    if result.stopped:
        log(f"stopped at step {result.state.step} and saved; run the same command to resume")
        return Finished(None, result, out)
    whole = loaded if par.world == 1 else _gather(model, loaded, lambda m: entry.begin(recipe.objective, m))
    if par.main:
        kept = None
        if extended is not None:
            kept = None if overwrite else keep_before(out, extended.before)
            whole.record = note_extension(out, extended, result.state.step, kept)
        note_run(whole.record, cfg, recipe, dataset, plan, result, counted, par.world)
        scored = all_measured(whole, EVAL_TOKENS)
        final = Scores(entry.measured, scored.pop(entry.measured))
        final = final.beside_ngram(tokens, tokenizer.vocab_size, heldout.known)
        others = [Scores(name, found) for name, found in scored.items()]
        read = f"{result.state.step:,} steps, {share(epochs_of(plan, result.state.step))}"
        for found in (final, *others):
            found.note(whole.record)
        whole.record.add(
            "train.summary",
            "; ".join(filter(None, (read, final.summary()))),
            "computed from values of this record",
        )
        for line in (read, *final.lines(), *(line for o in others for line in o.lines())):
            log(line)
        entry.end(recipe.objective, whole)
        save_base(out / "base", whole, overwrite=extended is not None)
        if kept is not None:
            log(f"the previous base is kept: {kept}")
        whole = load_base(out / "base", device=par.device)
        whole.model.compute_dtype = model.compute_dtype
    par.barrier()
    return Finished(whole, result, out)


def _once(par: Parallel, make: Callable[[], T]) -> T:
    """Call `make` on rank 0 first, then on the others, which read its result from the cache on disk."""
    if par.main:
        result = make()
    par.barrier()
    return result if par.main else make()


def _dataset(recipe: Recipe, out: Path, log: Tell) -> Dataset:
    if recipe.data.dataset:
        return Dataset.open(recipe.data.dataset)
    path = out / "data"
    if not (path / MANIFEST).is_file():
        documents = (d for s in recipe.data.sources for d in read_source(s))
        from_ = origins(recipe)
        holdout = None if from_(("data", "holdout")) == Origin.DEFAULT else recipe.data.holdout
        seed = None if from_(("train", "seed")) == Origin.DEFAULT else recipe.train.seed
        prepare(documents, path, holdout=holdout, seed=seed, stated=licences_from(recipe))
        keep_sources(out, recipe)
    dataset = Dataset.open(path)
    for name, s in dataset.stats.items():
        log(
            f"{name}: {s['documents']:,} documents, {s['bytes'] / 1e6:.2f} MB, {_media_of(s)}{s['duplicates_removed']:,} duplicates removed, "
            f"licence {s['licence']}"
        )
    return dataset


def _media_of(stats: Mapping[str, Any]) -> str:
    """ "400 images and sounds of 1.20 MB, ", where a source has any."""
    if not (n := stats.get("media")):
        return ""
    bad = f" ({stats['bad_media_removed']:,} unreadable left out)" if stats.get("bad_media_removed") else ""
    return f"{n:,} images and sounds of {stats.get('media_bytes', 0) / 1e6:.2f} MB{bad}, "


def _loggers(recipe: Recipe, out: Path, par: Parallel) -> list[Callback]:
    if not par.main:
        return []
    loggers: list[Callback] = [JsonLog(out / "log.jsonl")]
    if recipe.log.tensorboard:
        loggers.append(TensorBoard(out / "tensorboard"))
    if recipe.log.wandb:
        loggers.append(WandB(out, recipe.name))
    return loggers


def _gather(model: BaseModel, loaded: LoadedBase, begin: Callable[[BaseModel], None]) -> LoadedBase:
    """An unsharded copy of a sharded base on this rank, with what is learnt beside it."""
    tensors = whole_state(model)
    whole = BaseModel(model.cfg)
    begin(whole)
    load_whole_state(whole, tensors)
    whole.compute_dtype = model.compute_dtype
    return LoadedBase(whole, loaded.text_codec)
