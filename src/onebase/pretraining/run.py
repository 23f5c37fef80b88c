"""Pretraining from a recipe: data, tokenizer, loop, scores, record, and the finished base."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from onebase import config as configs
from onebase.artifact.files import MANIFEST
from onebase.artifact.record import Origin, machine_facts, version_facts
from onebase.base.config import BaseConfig, base_flops, base_parameters
from onebase.base.folder import LoadedBase, load_base, save_base
from onebase.base.model import BaseModel
from onebase.codec.text.codec import TextCodec
from onebase.codec.text.sample import SPECIALS
from onebase.codec.text.shown import ledger_rows, render_rows
from onebase.codec.text.tokenizer import Tokenizer
from onebase.data import Dataset, RowPlan, TokenSet, prepare, read_source
from onebase.data.sources import UNKNOWN
from onebase.errors import ConfigError
from onebase.evaluation.bootstrap import Score
from onebase.evaluation.likelihood import DocumentIds
from onebase.model.device import pick_device
from onebase.pretraining.claim import check_sources, claim, keep_sources
from onebase.pretraining.objectives import Heldout, Setting, objective_of
from onebase.pretraining.recipe import Recipe, licences_from, origins, read_recipe
from onebase.readable import duration, figure
from onebase.train.callbacks import Callback, JsonLog
from onebase.train.flops import counted_flops
from onebase.train.loop import Job, Result, micro_batch_size, run
from onebase.train.memory import check_memory
from onebase.train.parallel import Parallel, load_whole_state, owning, whole_state
from onebase.train.track import TensorBoard, WandB

T = TypeVar("T")
Tell = Callable[[str], None]
EVAL_TOKENS = 100_000


@dataclass(frozen=True)
class Finished:
    """A pretraining run: the base (None when a signal stopped it first) and how the loop ended."""

    base: LoadedBase | None
    result: Result | None
    out: Path


def run_recipe(
    recipe: Recipe | str | Path,
    out: str | Path,
    *,
    callbacks: Sequence[Callback] = (),
    log: Tell | None = None,
    **overrides: object,
) -> Finished:
    """Do what a recipe says, in the folder `out`: data/, tokenizer.json, log.jsonl, checkpoints/, and base/ at the end.

    The same call goes on where an interrupted one stopped. `log` hears lines for the user. Raises UserError, also where another process
    is writing the folder.
    """
    recipe = read_recipe(recipe, overrides)
    par = Parallel.start(pick_device(recipe.train.device))
    try:
        told = log if log is not None and par.main else lambda _: None
        out = Path(out)
        done = (out / "base" / MANIFEST).is_file()  # then nothing is written
        with owning(None if done else out, par):
            return _run(recipe, out, par, callbacks, told)
    finally:
        par.stop()


def _run(recipe: Recipe, out: Path, par: Parallel, callbacks: Sequence[Callback], log: Tell) -> Finished:
    claim(out, recipe, par)
    check_sources(out, recipe)
    if (out / "base" / MANIFEST).is_file():
        log(f"{out / 'base'} is finished already")
        return Finished(load_base(out / "base", device=par.device), None, out)
    dataset = _once(par, lambda: _dataset(recipe, out, log))
    tokenizer = _once(par, lambda: _tokenizer(recipe, out, dataset, log))
    codec = TextCodec(tokenizer)
    tokens = _once(par, lambda: TokenSet.build(dataset, "train", tokenizer, out / "tokens"))
    cfg, entry = recipe.base(tokenizer.vocab_size), objective_of(recipe.objective)
    setting = Setting(tokenizer, recipe.train.sequence_length, recipe.train.seed, tuple(dataset.stats))
    objective = entry.make(recipe.objective, setting)
    plan = RowPlan(
        tokens,
        recipe.train.sequence_length,
        recipe.train.batch_size,
        recipe.train.seed,
        reserve=objective.reserve,
    )
    micro = micro_batch_size(recipe.train, par)
    check_memory(cfg, recipe.train, micro, par.device, par.world)
    log(describe(cfg, recipe, plan))
    shown = (entry.shown(objective, document, n) for n, document in enumerate(tokens))
    log("what will be learnt, between « »:\n" + render_rows(ledger_rows(shown, tokenizer)))

    model = BaseModel(cfg)
    model.reset(recipe.train.seed)
    model.to(par.device)
    first = objective.batch(plan.rows(0)[:1], 0)
    counted = counted_flops(model, objective, first) / first.inputs["text"].ids_BT.numel()
    loaded = LoadedBase(model, codec)
    heldout, known = dataset.first("holdout", 1000), dict[str, list[DocumentIds]]()

    def measured(base: LoadedBase, tokens: int) -> dict[str, Score]:
        """The objective's score of held-out documents by source, of so many tokens in all."""
        return entry.measure(base, Heldout(heldout, recipe.train.sequence_length, tokens, known))

    def scores(_: BaseModel) -> dict[str, float]:
        found = measured(loaded, EVAL_TOKENS // 4)
        return {f"heldout_{entry.measured}/{k}": s.value for k, s in found.items()}

    job = Job(
        model=model,
        objective=objective,
        rows=plan,
        train=recipe.train,
        out=out,
        callbacks=[*_loggers(recipe, out, par), *callbacks],
        evaluate=scores if any(heldout.values()) else None,
        parallel=par,
        identity={"tokenizer": tokenizer.digest} | ({entry.name: entry.version} if entry.version else {}),
        log=log,
    )
    result = run(job)
    if result.stopped:
        log(f"stopped at step {result.state.step} and saved; run the same command to go on")
        return Finished(None, result, out)
    whole = loaded if par.world == 1 else _gather(model, loaded)
    if par.main:
        _record(whole, recipe, dataset, result, counted, par)
        found = measured(whole, EVAL_TOKENS)
        for source, s in found.items():
            value = {"value": s.value, "low": s.low, "high": s.high, "n": s.n}
            whole.record.add(
                f"scores.heldout_{entry.measured}.{source}", value, "measured on held-out documents"
            )
            log(
                f"held-out {entry.measured.replace('_', ' ')}, {source}: {s.value:.3f} ({s.low:.3f} to {s.high:.3f})"
            )
        save_base(out / "base", whole)
        whole = load_base(out / "base", device=par.device)
        whole.model.compute_dtype = model.compute_dtype
    par.barrier()
    return Finished(whole, result, out)


def describe(cfg: BaseConfig, recipe: Recipe, plan: RowPlan) -> str:
    """One paragraph: parameters, data and budget of the run."""
    train = recipe.train
    rows = f"{train.batch_size} x {train.sequence_length} tokens a step"
    budget = (
        f"{figure(train.minutes)} minutes"
        if train.minutes
        else f"{train.steps or -(-(train.tokens or 0) // (train.batch_size * train.sequence_length)):,} steps"
    )
    return (
        f"{recipe.name}: {base_parameters(cfg) / 1e6:.2f}M parameters, {base_flops(cfg, train.sequence_length) / 1e6:.1f} MFLOPs a token; "
        f"{plan.tokens_per_epoch / 1e6:.2f}M tokens an epoch, {plan.waste():.1%} padding; {rows}, {budget}"
    )


def _once(par: Parallel, make: Callable[[], T]) -> T:
    """Rank 0 makes it, the others find it made: what `make` gives is cached on disk."""
    if par.main:
        made = make()
    par.barrier()
    return made if par.main else make()


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
            f"{name}: {s['documents']:,} documents, {s['bytes'] / 1e6:.2f} MB, {s['duplicates_removed']:,} duplicates removed, "
            f"licence {s['licence']}"
        )
    return dataset


def _tokenizer(recipe: Recipe, out: Path, dataset: Dataset, log: Tell) -> Tokenizer:
    specials = objective_of(recipe.objective).specials
    if recipe.tokenizer.path:
        found = _having(specials, recipe.tokenizer.path, recipe)
        if found.vocab_size != recipe.model.vocab_size:
            raise ConfigError(
                f"{recipe.tokenizer.path} has {found.vocab_size} tokens, model.vocab_size is {recipe.model.vocab_size}",
                f"set model.vocab_size={found.vocab_size}",
            )
        return found
    path = out / "tokenizer.json"
    if not path.is_file():
        began = time.perf_counter()
        texts, model = _sample(dataset, recipe.tokenizer.train_bytes), recipe.model
        made = Tokenizer.train(texts, model.vocab_size, (*SPECIALS, *specials), model.portable)
        made.save(path)
        log(f"tokenizer: {made.vocab_size} tokens, trained in {duration(time.perf_counter() - began)}")
    return _having(specials, path, recipe)


def _having(specials: Sequence[str], path: str | Path, recipe: Recipe) -> Tokenizer:
    """The tokenizer of a file, which must have these special tokens. Raises ConfigError."""
    found = Tokenizer.from_file(path)
    if missing := [name for name in specials if name not in found.specials]:
        raise ConfigError(
            f"{path} has no special token {missing[0]!r}, which objective {objective_of(recipe.objective).name} needs",
            "let the run train a tokenizer: leave tokenizer.path out, or give another --out",
        )
    return found


def _sample(dataset: Dataset, budget: int) -> Iterator[str]:
    """Texts spread evenly over the documents, `budget` bytes at most."""
    total = sum(int(s["bytes"]) for s in dataset.stats.values())
    every = max(1, -(-total // budget))
    return (d.text for i, d in enumerate(dataset.documents("train")) if i % every == 0)


def _loggers(recipe: Recipe, out: Path, par: Parallel) -> list[Callback]:
    if not par.main:
        return []
    found: list[Callback] = [JsonLog(out / "log.jsonl")]
    if recipe.log.tensorboard:
        found.append(TensorBoard(out / "tensorboard"))
    if recipe.log.wandb:
        found.append(WandB(out, recipe.name))
    return found


def _gather(model: BaseModel, loaded: LoadedBase) -> LoadedBase:
    """A whole copy of a sharded base on this rank."""
    tensors = whole_state(model)
    whole = BaseModel(model.cfg)
    load_whole_state(whole, tensors)
    whole.compute_dtype = model.compute_dtype
    return LoadedBase(whole, loaded.codec)


def _record(
    base: LoadedBase, recipe: Recipe, dataset: Dataset, result: Result, counted: float, par: Parallel
) -> None:
    state, cfg, r = result.state, base.model.cfg, base.record
    r.kind = "base"
    r.parents = []
    from_ = origins(recipe)
    r.add("name", recipe.name, from_(("name",)))
    r.add_tree("config.recipe", configs.to_dict(recipe), from_)
    r.add("config.parameters", base_parameters(cfg), "counted from the config")
    r.add_parent("dataset", dataset.fingerprint, dataset.dir.name)
    r.add("data.fingerprint", dataset.fingerprint, "hashed")
    counts = {name: {k: v for k, v in s.items() if k != "licence"} for name, s in dataset.stats.items()}
    licences = {name: None if s["licence"] == UNKNOWN else s["licence"] for name, s in dataset.stats.items()}
    r.add("data.sources", counts, f"{Origin.COUNTED} while preparing")
    from_source = f"{Origin.SOURCE}: the record of the data set"
    r.add("data.licences", licences, from_source if recipe.data.dataset else licences_from(recipe))
    r.add("tokens.by_source", dict(state.sources), "counted by the loop")
    r.add("tokens.read", state.tokens, "counted by the loop")
    r.add("tokens.supervised", state.supervised, "counted by the loop")
    r.add("train.steps", state.step, "counted by the loop")
    r.add("train.skipped_steps", state.bad_steps, "counted by the loop")
    r.add(
        "train.formats", dict(state.formats), "measured: what the loop computed in, by the first step of each"
    )
    slots = state.step * recipe.train.batch_size * recipe.train.sequence_length
    r.add(
        "flops.formula",
        base_flops(cfg, recipe.train.sequence_length) * slots,
        "computed: formula of the config x token slots",
    )
    r.add("flops.counted", counted * slots, "counted by torch: operations of one row x token slots")
    r.add("seconds.training", round(state.seconds, 3), "measured")
    r.add(
        "train.final_loss",
        result.losses[-1] if result.losses else None,
        "measured, nats per token of the last batch",
    )
    r.add("train.ranks", par.world, "measured")
    r.add("machine", machine_facts(), Origin.SYSTEM)
    r.add("versions", version_facts(), Origin.PACKAGES)
