"""The gate for an adapter: compare it with small classical systems and optionally an untrained twin, in score and cost."""

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
from onebase.evaluation.energy import Usage, watching
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
    """Compare the attached adapter with classical systems trained on the same rows, and with `twin` also with the same method on an untrained twin
    of the base. train: the training rows of the adapter. Raises UserError."""
    ours, untrained, rivals = contenders(base, train, test, twin=twin, seed=seed)
    return gate(ours.score.name, ours, untrained, rivals, seed=seed)


def contenders(
    base: Bound, train: Data, test: Data, *, twin: bool = False, seed: int = 0
) -> tuple[System, System | None, tuple[System, ...]]:
    """What the gate compares: the base with its adapter, the untrained twin with an adapter trained alike (if requested), the classical rivals.

    All predict the same test rows, and costs are counted alike: seconds to fit (the adapter's from its record) and to predict, and bytes to
    ship. The base's own bytes are separate, in `System.shared`. Raises UserError.
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
    """Raises DataError if `train` are not the training rows of the adapter; called before scoring, which takes longer."""
    attached = compared_adapter(base)
    _refuse_other_rows(attached, *(read_known(x, attached) for x in (train, test)))


def _refuse_other_rows(attached: Attached, known: Rows, rows: Rows) -> None:
    trained_on, saved = attached.record.get("data.fingerprint"), attached.config.prompt
    if trained_on in (None, _hash(known)) or not (saved is None or saved.examples):
        return
    if trained_on == _hash(rows):
        raise DataError(
            "the adapter was trained on the test rows, not on the training rows",
            "--train and --data are swapped: give the training rows of the adapter to --train",
        )
    count, labels = (attached.record.get(f"data.{x}") for x in ("rows", "labels"))
    details = f"; it was trained on {count:,} rows" if isinstance(count, int) else ""
    if isinstance(labels, list) and details:
        details += f" with the labels {', '.join(map(str, labels[:10]))}"
    raise DataError(
        f"these {len(known)} rows are not the training rows of the adapter{details}",
        "give the same data, in the same order: all systems must be trained on the same labels",
    )


def compared_adapter(base: Bound) -> Attached:
    """The attached adapter, if its task has classical rivals. Raises UserError for another one, or none."""
    attached = base.attached
    if attached is None or attached.task not in ("classify", "regress", "tag"):
        raise UserError(
            "the gate needs an adapter that predicts labels, a number or spans for each row",
            "give --adapter DIR of task classify, regress or tag; other tasks: onebase compare",
        )
    alone(attached, "the gate")
    return attached


def read_known(data: Data, attached: Attached) -> Rows:
    """Rows with the input columns of the adapter and the target column."""
    task, records = TASKS[attached.task], Records.of(resolved(data)).kept()
    present = {c for row in records.sound for c in row}
    inputs = ("image",) if "image" in present and "text" not in present else columns(attached)
    target = {"regress": "value", "tag": "spans"}.get(task.name, "label")
    if attached.config.head is not None and attached.config.head.gives == "many":
        target = "labels"
    required = inputs if target == "spans" else (*inputs, target)
    return read_rows(records, required, check=task.check)


def _hash(rows: Rows) -> str:
    pictured = "image" in rows[0] and "text" not in rows[0]
    return rows_hash(hashed(image_paths(rows, rows), rows) if pictured else rows)


def main_score(task: str, outputs: Any) -> Metric:
    """The main score of a task. Raises UserError if none can be compared row by row."""
    known = scores_of(type(outputs))
    metric = next((known[n] for n in TASKS[task].tuned_by if n in known), None)
    if metric is None or metric.sums is None:
        raise UserError(
            f"task {task} has no score that can be compared row by row",
            "define one (`Task.tuned_by`, `Metric.sums`: docs/plugins.md)",
        )
    return metric


def system_of(
    name: str, task: str, outputs: Any, seed: int, *, seconds: float, size: int, shared: int = 0, usage: Usage
) -> System:
    """A system from its predictions for the test rows and its costs."""
    metric = main_score(task, outputs)
    score = metric.score(outputs, seed)
    if score is None or metric.sums is None:
        raise UserError(f"{metric.name} is undefined for these rows", "give other test rows")
    return System(name, score, metric.sums(outputs), seconds, size, shared, usage)


def rival_system(model: Rival, task: str, rows: Rows, seed: int) -> System:
    """Score a fitted classical system on the test rows."""
    with watching() as watch:
        outputs = model.predict(rows)
    seconds = model.seconds + watch.usage.seconds
    return system_of(model.name, task, outputs, seed, seconds=seconds, size=model.size, usage=watch.usage)


def adapted_twin(base: Bound, known: Sequence[dict[str, Any]], seed: int) -> Bound:
    """The untrained twin of a base, with an adapter trained like the base's own: same task, method and options, on the rows `known`."""
    attached = base.attached
    assert attached is not None
    # A prompt without bias used no texts, and neither does its twin. One with a bias used texts that were not stored, so the twin
    # is calibrated on `known`.
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
    """(bytes of the attached adapter, 0 without one; bytes of the base: weights, tokenizer, template). With a full adapter the base's weights
    count 0, since the adapter replaces them."""
    attached, loaded = base.attached, base.loaded
    stack = attached.stack if attached else ()
    adapter = sum(a.shipped for a in stack)
    whole = all(not METHODS[a.method].replaces for a in stack)
    if whole and loaded.path is not None and loaded.path.is_file():
        return adapter, loaded.path.stat().st_size  # one file has everything, in fewer bits than in memory
    weights = sum(t.numel() * t.element_size() for t in base_tensors(loaded.model).values()) if whole else 0
    # The size of the tokenizer file, because a classical system's vocabulary is counted too.
    words = (
        ""
        if loaded.text_codec is None
        else loaded.text_codec.tokenizer.as_json + loaded.text_codec.template.source
    )
    return adapter, weights + len(words.encode())


def _measured(name: str, base: Bound, rows: Rows, seed: int) -> System:
    """Score a base with an adapter on the test rows."""
    attached = base.attached
    assert attached is not None
    with watching(accelerator=base.loaded.model.device.type != "cpu") as watch:
        outputs = PREDICTIONS[attached.task](ScoreRequest(base, rows, seed))
    fitting = attached.record.get("seconds")
    # Without the time of fitting, the time of predicting would look like the total, so none is reported.
    seconds = 0.0 if fitting is None else float(fitting) + watch.usage.seconds
    size, shared = shipped_bytes(base)
    return system_of(
        name, attached.task, outputs, seed, seconds=seconds, size=size, shared=shared, usage=watch.usage
    )


def _options(attached: Attached) -> dict[str, Any]:
    """All options that the adapter was trained with, from its record."""
    recorded = attached.record.get("config.options")
    if recorded is not None:
        return those_of(recorded, attached.task, attached.method)
    # For an adapter from before options were recorded, those in its config. Epochs, learning rate and batch size are then the defaults.
    cfg, method = attached.config, METHODS[attached.method]
    out: dict[str, Any] = {}
    if cfg.head is not None:
        out = {"pooling": cfg.head.pooling, "long": cfg.head.long, "max_length": cfg.head.limit}
    part = cfg.part(method.name)
    kept = {name: getattr(part, name) for name in method.option_names if hasattr(part, name)}
    out |= {name: to_dict(v) if is_dataclass(v) else v for name, v in kept.items()}
    return those_of(out, attached.task, attached.method)


def untrained_twin(base: LoadedBase, seed: int) -> LoadedBase:
    """The same architecture and tokenizer with initial weights, to measure the effect of pretraining."""
    model = BaseModel(replace(base.model.cfg, storage=None))
    model.reset(seed)
    for p in model.parameters():
        p.requires_grad_(False)
    model.compute_dtype = base.model.compute_dtype
    return LoadedBase(model.to(base.model.device).eval(), base.text_codec, embedding=base.embedding)
