"""Task contacts: which residues of a protein touch, by a distogram head on pairs of residues, alone or together with the method's weights.

Rows have a structure (PDB or mmCIF), or a sequence and its contacts. L residues, C bins.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onebase.artifact.files import sha256_file
from onebase.base.head import HeadConfig
from onebase.base.pairs import CLASSES, PairHead, separation_classes
from onebase.data import Rows, read_rows
from onebase.data.labelled import Make, Records
from onebase.data.order import ExampleOrder, one_by_one
from onebase.data.structures import APART, LONG, NEAR, Distances, long_range_precision, pairs, read_structure
from onebase.engine.answers import of_task
from onebase.engine.distances import contacts_of, residue_states, residue_tokens
from onebase.engine.prompter import Given
from onebase.errors import DataError
from onebase.evaluation.predictions import ContactMaps
from onebase.methods.bound import Bound
from onebase.methods.config import AdapterConfig
from onebase.methods.folder import AdapterParts, adapter_tensors, bound_to, detach
from onebase.methods.method import SCRATCH, Learner
from onebase.objective.base import IGNORE
from onebase.objective.structure import Bins, PairDistances, separation_counts
from onebase.tasks.base import Look, Maker, ScoreRequest, Shown, Task
from onebase.tasks.checks import check_text
from onebase.tasks.fit import Lesson, Steps
from onebase.tasks.job import Adapting, data_facts
from onebase.tasks.learning import learn, train_config
from onebase.tasks.ledgers import check_rows
from onebase.tasks.options import AdaptOptions
from onebase.tasks.reading import Row, RowReader, each_row, samples_in

EDGES = (4.0, 6.0, NEAR, 10.0, 12.0, 14.0, 16.0, 18.0, 20.0)
"""Angstrom between the bins of a distogram, where distances are known; otherwise there are two bins, in contact or not."""
HEAD_RATE = 3e-3
"""Learning rate of the head on a frozen base."""
SHOWN = 10
"""Pairs that an answer's line names."""


def columns(look: Look) -> tuple[str, ...]:
    """`structure`, or `sequence` and `contacts` where the first row has no structure."""
    rows = look.rows()
    return ("structure",) if rows and rows[0].get("structure") is not None else ("sequence", "contacts")


def problem(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with the values of a row, and what to do."""
    if row.get("structure") is not None:
        if isinstance(row["structure"], (str, Path)):
            return None
        return (
            f"'structure' is {type(row['structure']).__name__}, a path is expected",
            "give the path of a file",
        )
    sequence, given = row.get("sequence"), row.get("contacts")
    if not isinstance(sequence, str):
        return f"'sequence' is {type(sequence).__name__}, expected text", "give the letters of a protein"
    if not isinstance(given, (list, tuple)):
        return f"'contacts' is {type(given).__name__}, expected a list", "give [[0, 30], ...], or []"
    size = len(sequence.strip())
    for pair in given:
        fits = isinstance(pair, (list, tuple)) and len(pair) == 2 and all(type(x) is int for x in pair)
        if not fits or not 0 <= min(pair) < max(pair) < size:
            return (
                f"{pair!r} is no pair of the {size} residues",
                f"give two different numbers from 0 to {size - 1}",
            )
    return None


def distances_of(row: Row, folder: Path) -> tuple[str, Distances]:
    """The sequence of a row, and the distances of its residues, [L, L]; where it has contacts alone these are at 0 and all others at infinity. Raises
    DataError."""
    if row.get("structure") is not None:
        chain = row.get("chain")
        found = read_structure(folder / row["structure"], None if chain is None else str(chain))
        return found.sequence, found.distances
    sequence = str(row["sequence"]).strip()
    gaps_LL = np.full((len(sequence),) * 2, np.inf)
    for i, j in row["contacts"]:
        gaps_LL[i, j] = gaps_LL[j, i] = 0.0
    return sequence, gaps_LL


def samples(reader: RowReader) -> Make:
    """Each row's residues."""

    def made(row: Row) -> Any:
        sequence, _ = distances_of(row, reader.folder)
        sample = residue_tokens(reader.base, sequence)
        return reader.too_long(len(sample), things="proteins") or (sample,)

    return each_row(made)


def bins_of(distances_LL: Distances, edges: Sequence[float]) -> Bins:
    """The bin of each pair that is 6 residues or more apart and whose distance is known, [L, L]; IGNORE elsewhere."""
    out_LL = np.full(distances_LL.shape, IGNORE, np.int8)
    i, j = pairs(distances_LL, APART)
    out_LL[i, j] = out_LL[j, i] = np.searchsorted(edges, distances_LL[i, j], side="right")
    return out_LL


def _by_content(rows: Rows) -> Rows:
    """The rows as a record stores them: the sequence, with the hash of its structure or the contacts."""
    out = rows.some(range(len(rows)))
    for i, row in enumerate(rows):
        sequence, _ = distances_of(row, rows.folder)
        kept = (
            {"contacts": row["contacts"]} if row.get("structure") is None else {"structure": _hash(row, rows)}
        )
        out[i] = {"sequence": sequence, **kept}
    return out


def _hash(row: Row, rows: Rows) -> str:
    return sha256_file(rows.folder / row["structure"])


def lesson(job: Adapting, frozen: bool = False) -> Lesson:
    """Train a head on pairs, and the method's weights. frozen: the head alone; the states are then computed once."""
    o, base, rows = job.options, job.base, job.rows
    known = [distances_of(row, rows.folder)[1] for row in rows]
    edges = EDGES if rows[0].get("structure") is not None else (NEAR,)
    bins = [bins_of(x, edges) for x in known]
    near = sum(int((x < edges.index(NEAR) + 1).sum() - (x == IGNORE).sum()) for x in bins) // 2
    if not near:
        raise DataError(
            f"none of the {len(rows)} proteins has a contact between residues that are {APART} or more apart",
            "give structures with 30 residues or more",
        )
    tokens = samples_in(rows)
    job.rows = _by_content(rows)
    job.test = None if job.test is None else _by_content(job.test)
    facts = data_facts(job.rows) | check_rows(job, says=lambda row: str(row["sequence"]))
    facts |= {"data.residues": (sum(map(len, known)), "counted"), "data.contacts": (near, "counted")}
    plan = ExampleOrder(one_by_one(tokens), min(o.batch_size, len(tokens)), o.seed, o.epochs)
    targets = {t.id: x for t, x in zip(tokens, bins, strict=True)}
    cfg, longest = HeadConfig(gives="contacts", bins=edges), max(map(len, tokens))
    before = len(base.codec.tokenizer.begun([]))

    def steps(learner: Learner, stack: ExitStack) -> Steps:
        head = PairHead(base.model.cfg.trunks["text"].width, cfg.outputs)
        classes = [separation_classes(len(x)) for x in bins]
        counts_SC = separation_counts(bins, classes, cfg.outputs, CLASSES)
        head.reset(torch.Generator().manual_seed(o.seed), counts_SC)
        base.model.heads[SCRATCH] = head.to(base.model.device)
        states = residue_states(base, tokens, learner.routing) if frozen else []
        by_id = {t.id: h_LD for t, h_LD in zip(tokens, states, strict=False)}
        objective = PairDistances(SCRATCH, targets, before, learner.routing, by_id)
        return Steps(objective, plan, longest + learner.before, params=list(head.parameters()))

    return Lesson(facts, "labels", steps, fields={"head": cfg})


def by_head(job: Adapting) -> AdapterParts:
    """An adapter of the head alone, trained by steps on the states of the frozen base."""
    tokens = samples_in(job.rows)
    taught = lesson(job, frozen=True)
    job.reads(lambda: tokens)
    try:
        with ExitStack() as stack:
            steps = taught.steps(Learner([], None), stack)
            train = train_config(job.options, steps.rows, steps.length, default_lr=HEAD_RATE)
            trained = learn(job, steps.objective, steps.rows, train, steps.params)
            tensors = adapter_tensors(job.base, SCRATCH)
    finally:
        detach(job.base, SCRATCH)
    cfg = AdapterConfig(method=job.method, task=job.task, base=bound_to(job.base), **taught.fields)
    return job.parts(cfg, tensors, taught.facts | trained)


def predictions(request: ScoreRequest) -> ContactMaps:
    """Of each protein: the share of true contacts among its L / 5 likeliest long-range pairs, and among all of them."""
    on = of_task(request.base, "contacts", "predicts contacts")
    records = Records.of(request.data)
    folder, base = records.folder, request.base.loaded
    look = Look(base, AdaptOptions(), lambda: records.sound)
    make = each_row(lambda row: (residue_tokens(base, distances_of(row, folder)[0]),))
    rows = read_rows(records, columns(look), check=problem, make=make)
    precise, chance = [], []
    for row, (sample,) in zip(rows, rows.samples, strict=True):
        distances_LL = distances_of(row, rows.folder)[1]
        i, j = pairs(distances_LL, LONG)
        if len(i):
            (map_LL,) = contacts_of(on, [sample])
            precise.append(float(long_range_precision(map_LL.numpy(), distances_LL) or 0.0))
            chance.append(float((distances_LL[i, j] < NEAR).mean()))
    if not precise:
        raise DataError(f"no protein has residues that are {LONG} or more apart", "give longer ones")
    return ContactMaps(np.array(precise), np.array(chance))


def answer(bound: Bound, given: Sequence[Given]) -> list[Shown]:
    """The likeliest pairs of each sequence that are 6 residues or more apart, as many as it has residues."""
    on = of_task(bound, "contacts", "predicts contacts")
    texts = [str(item["sequence"] if isinstance(item, dict) else item).strip() for item in given]
    out = []
    for text in texts:
        (map_LL,) = contacts_of(on, [residue_tokens(bound.loaded, text)])
        i, j = np.triu_indices(len(text), APART)
        first = np.argsort(-map_LL.numpy()[i, j], kind="stable")[: len(text)]
        found = [(int(i[k]), int(j[k]), round(float(map_LL[i[k], j[k]]), 4)) for k in first]
        line = ", ".join(f"{text[a]}{a + 1}-{text[b]}{b + 1} {p:.2f}" for a, b, p in found[:SHOWN])
        out.append(Shown(line or "-", {"contacts": [list(pair) for pair in found]}))
    return out


TASK = Task(
    name="contacts",
    columns=columns,
    lesson=lesson,
    methods={
        "head": Maker(by_head),
        "prompt": "a prompt gives probabilities of answers, not pairs of residues",
    },
    fits=lambda base: check_text(base, "use a base of proteins (docs/proteins.md)"),
    check=problem,
    samples=samples,
    by_sample=True,
    predictions=predictions,
    answer=answer,
    reads=("sequence",),
    files=("structure",),
    tuned_by=("long_range_precision",),
    signal="labels",
)
