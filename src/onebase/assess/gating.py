"""The gate for a base with a classifying adapter: what it is beside small classical systems and an untrained twin, and what each costs."""

from collections.abc import Sequence
from dataclasses import is_dataclass, replace
from typing import Any

from onebase.base.folder import LoadedBase, base_tensors
from onebase.base.model import BaseModel
from onebase.config import to_dict
from onebase.data import check_labels, read_rows
from onebase.data.labelled import Data
from onebase.engine.answers import labels
from onebase.engine.prompter import Given
from onebase.engine.prompting import columns, inputs
from onebase.errors import DataError, UserError
from onebase.evaluation.baselines import NearestNeighbour, TfidfLogistic
from onebase.evaluation.bootstrap import mean_score
from onebase.evaluation.energy import watching
from onebase.evaluation.gate import System, Verdict, gate
from onebase.evaluation.metrics import correct
from onebase.methods.bound import Bound
from onebase.methods.folder import Attached
from onebase.methods.stacking import alone
from onebase.methods.table import METHODS
from onebase.opening.names import resolved
from onebase.tasks.options import those_of
from onebase.tasks.table import adapted, rows_hash


def against_classical(base: Bound, train: Data, test: Data, *, seed: int = 0) -> Verdict:
    """The gate for a classifying adapter: beside TF-IDF + logistic regression and nearest neighbour on the same labels, and beside
    the same method on an untrained twin of the base. `train` are the rows that the adapter learnt from. Raises UserError."""
    ours, twin, rivals = contenders(base, train, test, seed=seed)
    return gate("accuracy", ours, twin, rivals, seed=seed)


def contenders(
    base: Bound, train: Data, test: Data, *, seed: int = 0
) -> tuple[System, System, tuple[System, ...]]:
    """What the gate compares: the base with its adapter, the untrained twin with one made alike, the classical rivals.

    All predict the same test texts, and all count alike: seconds to fit (the adapter's as its record has them) and to predict, and
    bytes to ship. The base's own bytes stand apart, in `System.shared`. Raises UserError.
    """
    attached = compared_adapter(base)
    reads = columns(attached)
    known, rows = (read_rows(resolved(x), (*reads, "label")) for x in (train, test))
    _refuse_other_rows(attached, known, rows)
    check_labels(known, rows)
    given, truth = inputs(attached, rows), [str(r["label"]) for r in rows]
    ours = _measured(f"the base with {attached.method}", base, given, truth, seed)
    twin = _measured("untrained", adapted_twin(base, known, seed), given, truth, seed)
    # A rival reads what the prompt's variables are given, one below the other.
    seen, texts = (["\n".join(str(r[c]) for c in reads) for r in some] for some in (known, rows))
    rivals = []
    for make in (TfidfLogistic, NearestNeighbour):
        model = make().fit(seen, [str(r["label"]) for r in known])
        with watching() as watch:
            said = model.predict(texts)
        each = correct(truth, said)
        score = mean_score("accuracy", each, seed=seed)
        rivals.append(System(model.name, score, each, model.seconds, model.size, predicting=watch.taken))
    return ours, twin, tuple(rivals)


def refuse_other_rows(base: Bound, train: Data, test: Data) -> None:
    """Raises DataError where `train` are not the rows that the adapter learnt from: before anything is scored, which takes longer."""
    attached = compared_adapter(base)
    _refuse_other_rows(
        attached, *(read_rows(resolved(x), (*columns(attached), "label")) for x in (train, test))
    )


def _refuse_other_rows(attached: Attached, known: Sequence[Any], rows: Sequence[Any]) -> None:
    learnt, saved = attached.record.get("data.fingerprint"), attached.config.prompt
    if learnt in (None, rows_hash(known)) or not (saved is None or saved.examples):
        return
    if learnt == rows_hash(rows):
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
    """The adapter that the gate compares: one that gives each text one label. Raises UserError for any other, and for none."""
    attached = base.attached
    if attached is None or attached.task != "classify":
        raise UserError(
            "the gate needs an adapter that classifies", "give --adapter DIR of a classifying adapter"
        )
    alone(attached, "the gate")
    head = attached.config.head
    if head is not None and head.gives == "many":
        raise UserError(
            "the gate compares systems that give one label a text, this adapter gives many",
            "leave --train out: its scores have no classical rival here",
        )
    return attached


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


def _measured(name: str, base: Bound, texts: Sequence[Given], truth: Sequence[str], seed: int) -> System:
    """A base with a classifying adapter on the test texts."""
    attached = base.attached
    assert attached is not None
    with watching(accelerator=base.loaded.model.device.type != "cpu") as watch:
        found = labels(base, texts)
    fitting = attached.record.get("seconds")
    # Without the time of fitting, that of predicting would pass for the whole: better none.
    seconds = 0.0 if fitting is None else float(fitting) + watch.taken.seconds
    each = correct(truth, [x.label for x in found])
    size, shared = shipped_bytes(base)
    return System(name, mean_score("accuracy", each, seed=seed), each, seconds, size, shared, watch.taken)


def _options(attached: Attached) -> dict[str, Any]:
    """The options that the adapter was made with, all of them, from its record."""
    recorded = attached.record.get("config.options")
    if recorded is not None:
        return those_of(recorded, attached.task, attached.method)
    # An adapter from before options were recorded: what its config tells. Epochs, rate, rows and length are then the defaults.
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
