"""The gate for an adapter on a base: what it is beside small classical systems and perhaps an untrained twin, and what each costs."""

from collections.abc import Sequence
from dataclasses import is_dataclass, replace
from typing import Any

from onebase.assess.rivals import Rival, rivals_of
from onebase.base.folder import LoadedBase, base_tensors
from onebase.base.model import BaseModel
from onebase.config_plain import to_dict
from onebase.data import Rows, read_rows
from onebase.data.labelled import Data, Records, check_labels
from onebase.engine.image_features import hashed, image_paths
from onebase.engine.prompting import columns
from onebase.errors import DataError, UserError
from onebase.evaluation.energy import Taken, watching
from onebase.evaluation.gate import System, Verdict, gate
from onebase.evaluation.scores import Metric, scores_of
from onebase.methods.bound import Bound
from onebase.methods.folder import Attached
from onebase.methods.stacking import alone
from onebase.methods.table import METHODS
from onebase.opening.names import resolved
from onebase.tasks.base import ScoreRequest
from onebase.tasks.options import those_of
from onebase.tasks.table import PREDICTIONS, TASKS, adapted, rows_hash


def against_classical(base: Bound, train: Data, test: Data, *, twin: bool = False, seed: int = 0) -> Verdict:
    """The gate for an adapter: beside classical systems for rows of its kind that learn from the same rows, and with `twin` beside the same
    method on an untrained twin of the base. `train` are the rows that the adapter learnt from. Raises UserError."""
    ours, untrained, rivals = contenders(base, train, test, twin=twin, seed=seed)
    return gate(ours.score.name, ours, untrained, rivals, seed=seed)


def contenders(
    base: Bound, train: Data, test: Data, *, twin: bool = False, seed: int = 0
) -> tuple[System, System | None, tuple[System, ...]]:
    """What the gate compares: the base with its adapter, the untrained twin with one made alike (if it is wanted), the classical rivals.

    All predict the same test rows, and all count alike: seconds to fit (the adapter's as its record has them) and to predict, and
    bytes to ship. The base's own bytes stand apart, in `System.shared`. Raises UserError.
    """
    attached = compared_adapter(base)
    known, rows = (read_known(x, attached) for x in (train, test))
    _refuse_other_rows(attached, known, rows)
    if "label" in known[0]:
        check_labels(known, rows)
    ours = _measured(f"the base with {attached.method}", base, rows, seed)
    untrained = _measured("untrained", adapted_twin(base, known, seed), rows, seed) if twin else None
    rivals = rivals_of(attached.task, known, columns(attached))
    return (
        ours,
        untrained,
        tuple(rival_system(make().fit(known), attached.task, rows, seed) for make in rivals),
    )


def refuse_other_rows(base: Bound, train: Data, test: Data) -> None:
    """Raises DataError where `train` are not the rows that the adapter learnt from: before anything is scored, which takes longer."""
    attached = compared_adapter(base)
    _refuse_other_rows(attached, *(read_known(x, attached) for x in (train, test)))


def _refuse_other_rows(attached: Attached, known: Rows, rows: Rows) -> None:
    learnt, saved = attached.record.get("data.fingerprint"), attached.config.prompt
    if learnt in (None, _hash(known)) or not (saved is None or saved.examples):
        return
    if learnt == _hash(rows):
        raise DataError(
            "the test rows are those that the adapter learnt from, the training rows are others",
            "--train and --data are swapped: give the rows it learnt from to --train",
        )
    count, labels = (attached.record.get(f"data.{x}") for x in ("rows", "labels"))
    told = f"; it learnt from {count:,} rows" if isinstance(count, int) else ""
    told += (
        f" with the labels {', '.join(map(str, labels[:10]))}" if isinstance(labels, list) and told else ""
    )
    raise DataError(
        f"these {len(known)} rows are not those that the adapter learnt from{told}",
        "give the same data, in the same order: all systems must learn from the same labels",
    )


def compared_adapter(base: Bound) -> Attached:
    """The adapter that the gate compares: one whose task has classical rivals. Raises UserError for any other, and for none."""
    attached = base.attached
    if attached is None or attached.task not in ("classify", "regress", "tag"):
        raise UserError(
            "the gate needs an adapter that says a label, labels, a number or spans of each row",
            "give --adapter DIR of task classify, regress or tag; other tasks: onebase compare",
        )
    alone(attached, "the gate")
    return attached


def read_known(data: Data, attached: Attached) -> Rows:
    """The rows with what the adapter reads and is to say of them."""
    task, records = TASKS[attached.task], Records.of(resolved(data)).kept()
    there = {c for row in records.sound for c in row}
    reads = ("image",) if "image" in there and "text" not in there else columns(attached)
    said = {"regress": "value", "tag": "spans"}.get(task.name, "label")
    if attached.config.head is not None and attached.config.head.gives == "many":
        said = "labels"
    required = reads if said == "spans" else (*reads, said)
    return read_rows(records, required, check=task.check)


def _hash(rows: Rows) -> str:
    pictured = "image" in rows[0] and "text" not in rows[0]
    return rows_hash(hashed(image_paths(rows, rows), rows) if pictured else rows)


def main_score(task: str, said: Any) -> Metric:
    """The score by which a task is judged. Raises UserError where rows cannot be compared one by one by any."""
    known = scores_of(type(said))
    found = next((known[n] for n in TASKS[task].tuned_by if n in known), None)
    if found is None or found.sums is None:
        raise UserError(
            f"task {task} has no score by which systems are compared row by row",
            "give one (`Task.tuned_by`, `Metric.sums`: docs/plugins.md)",
        )
    return found


def system_of(
    name: str, task: str, said: Any, seed: int, *, seconds: float, size: int, shared: int = 0, taken: Taken
) -> System:
    """A system by what it said of the test rows and what it cost."""
    metric = main_score(task, said)
    score = metric.score(said, seed)
    if score is None or metric.sums is None:
        raise UserError(f"{metric.name} says nothing of these rows", "give other test rows")
    return System(name, score, metric.sums(said), seconds, size, shared, taken)


def rival_system(model: Rival, task: str, rows: Rows, seed: int) -> System:
    """A classical system, fitted, on the test rows."""
    with watching() as watch:
        said = model.predict(rows)
    seconds = model.seconds + watch.taken.seconds
    return system_of(model.name, task, said, seed, seconds=seconds, size=model.size, taken=watch.taken)


def adapted_twin(base: Bound, known: Sequence[dict[str, Any]], seed: int) -> Bound:
    """The untrained twin of a base, with an adapter made as the base's own was: same task, method and options, from `known`."""
    attached = base.attached
    assert attached is not None
    # A prompt without bias saw no texts, and neither does its twin's. One with a bias saw some that nobody kept: `known` is what
    # is at hand to calibrate the twin with.
    saved = attached.config.prompt
    plain = saved is not None and saved.bias is None and not saved.examples
    twin = Bound(untrained_twin(base.loaded, seed))
    adapter = adapted(
        twin,
        [] if plain else known,
        task=attached.task,
        method=attached.method,
        options=_options(attached),
    )
    return twin.with_parts([adapter.parts])


def shipped_bytes(base: Bound) -> tuple[int, int]:
    """(bytes of the adapter on this base, 0 without one; bytes of the base itself: weights, tokenizer, template). An adapter of all
    weights needs no others."""
    attached, loaded = base.attached, base.loaded
    stack = attached.stack if attached else ()
    adapter = sum(a.shipped for a in stack)
    whole = all(not METHODS[a.method].replaces for a in stack)
    if whole and loaded.path is not None and loaded.path.is_file():
        return (
            adapter,
            loaded.path.stat().st_size,
        )  # one file holds all, in fewer bits than it takes in memory
    weights = sum(t.numel() * t.element_size() for t in base_tensors(loaded.model).values()) if whole else 0
    # The tokenizer as its file holds it: a classical system's vocabulary is counted too.
    words = (
        ""
        if loaded.text_codec is None
        else loaded.text_codec.tokenizer.as_json + loaded.text_codec.template.source
    )
    return adapter, weights + len(words.encode())


def _measured(name: str, base: Bound, rows: Rows, seed: int) -> System:
    """A base with an adapter on the test rows."""
    attached = base.attached
    assert attached is not None
    with watching(accelerator=base.loaded.model.device.type != "cpu") as watch:
        said = PREDICTIONS[attached.task](ScoreRequest(base, rows, seed))
    fitting = attached.record.get("seconds")
    # Without the time of fitting, that of predicting would pass for the whole: better none.
    seconds = 0.0 if fitting is None else float(fitting) + watch.taken.seconds
    size, shared = shipped_bytes(base)
    return system_of(
        name, attached.task, said, seed, seconds=seconds, size=size, shared=shared, taken=watch.taken
    )


def _options(attached: Attached) -> dict[str, Any]:
    """The options that the adapter was made with, all of them, from its record."""
    recorded = attached.record.get("config.options")
    if recorded is not None:
        return those_of(recorded, attached.task, attached.method)
    # An adapter from before options were recorded: what its config tells. Epochs, rate and rows are then the defaults.
    cfg, method = attached.config, METHODS[attached.method]
    out: dict[str, Any] = {}
    if cfg.head is not None:
        out = {"pooling": cfg.head.pooling, "long": cfg.head.long, "max_length": cfg.head.limit}
    part = cfg.part(method.name)
    kept = {name: getattr(part, name) for name in method.option_names if hasattr(part, name)}
    out |= {name: to_dict(v) if is_dataclass(v) else v for name, v in kept.items()}
    return those_of(out, attached.task, attached.method)


def untrained_twin(base: LoadedBase, seed: int) -> LoadedBase:
    """The same architecture and tokenizer with starting weights: what pretraining is compared with."""
    model = BaseModel(replace(base.model.cfg, storage=None))
    model.reset(seed)
    for p in model.parameters():
        p.requires_grad_(False)
    model.compute_dtype = base.model.compute_dtype
    return LoadedBase(model.to(base.model.device).eval(), base.text_codec, embedding=base.embedding)
