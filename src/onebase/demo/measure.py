"""Measures the demo's labelled tasks with each method, and compares them with an untrained base, open bases and classical systems."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onebase.api.base import Base
from onebase.assess.gating import shipped_bytes
from onebase.demo.opened import OpenedBase, rows
from onebase.demo.results import Beside, DemoResult, Row, Size
from onebase.demo.tasks import MARKS, DemoTask, Example
from onebase.evaluation.baselines import NearestNeighbour, TfidfLogistic
from onebase.evaluation.bootstrap import mean_score
from onebase.evaluation.gate import System, gate
from onebase.evaluation.metrics import auroc, correct
from onebase.evaluation.ngram import NGram
from onebase.evaluation.paired import mean_sums
from onebase.readable import duration

Tell = Callable[[str], None]
Array = NDArray[np.float64]
Systems = tuple[System, System, list[tuple[OpenedBase, System]]]
"""The systems of a row: the base, its untrained twin, and open bases."""


def question(
    base: Base,
    untrained: Base,
    opened: Sequence[OpenedBase],
    ngram: NGram,
    task: DemoTask,
    out: Path,
    result: DemoResult,
    size: Size,
    log: Tell,
) -> list[Row]:
    """Rows for the prompt alone, a head with each number of labels, and LoRA with the most. Saves the adapters of `base` under `out`."""
    test = task.test[: size.test]
    rivals = _Rivals(task, test)
    most = task.sizes[-1]
    with _readers(base, untrained, opened, task, size, log) as readers:
        table = [_prompted(readers, ngram, task, test, rivals, out, result, size, log)]
        table += [_by_head(readers, task, test, labels, rivals, size, log) for labels in task.sizes]
        adapter = base.adapt(rows(readers[0], task.train(most), chat=True), task="classify", method="head")
        result.adapters["question"] = str(adapter.save(out / "adapters" / "question", overwrite=True))
        ours, twin = (_by_lora(r, task, test, most, size) for r in readers[:2])
    setting = f"LoRA, {most} labels a class"
    table.append(_row(task, setting, (ours, twin, []), rivals.systems(most, 1), log))
    return table


def topic(
    base: Base, untrained: Base, opened: Sequence[OpenedBase], task: DemoTask, size: Size, log: Tell
) -> list[Row]:
    """Rows for a head with each number of labels."""
    test = task.test[: size.test]
    rivals = _Rivals(task, test)
    with _readers(base, untrained, opened, task, size, log) as readers:
        return [_by_head(readers, task, test, labels, rivals, size, log) for labels in task.sizes]


@contextmanager
def _readers(
    base: Base, untrained: Base, opened: Sequence[OpenedBase], task: DemoTask, size: Size, log: Tell
) -> Iterator[list[OpenedBase]]:
    """All bases, ours first. Each reads the task's texts once and together: small batches cost most."""
    readers = [OpenedBase(base, "base"), OpenedBase(untrained, "untrained"), *opened]
    chat = task.name == "question"
    with ExitStack() as stack:
        for r in readers:
            stack.enter_context(r.reading())
            most = max(n for n in task.sizes if n <= size.opened or r not in opened)
            known = [e for draw in range(size.draws) for e in task.train(most, draw)]
            texts = [x["text"] for x in rows(r, (*task.test[: size.test], *known), chat=chat)]
            if r.prompted and chat:
                texts += [r.chat_line(_message(t)) for t in task.unlabelled[: size.test]]
            seconds = r.read(list(dict.fromkeys(texts)))
            if r in opened:
                log(f"{r.name} has read {len(set(texts)):,} texts in {duration(seconds)}")
        yield readers


def _by_head(
    readers: Sequence[OpenedBase],
    task: DemoTask,
    test: Sequence[Example],
    labels: int,
    rivals: "_Rivals",
    size: Size,
    log: Tell,
) -> Row:
    measured = readers if labels <= size.opened else readers[:2]
    ours, twin, *beside = (_headed(r, task, test, labels, size) for r in measured)
    systems = (ours, twin, list(zip(measured[2:], beside, strict=True)))
    return _row(task, f"head, {labels} labels a class", systems, rivals.systems(labels, size.draws), log)


def _headed(reader: OpenedBase, task: DemoTask, test: Sequence[Example], labels: int, size: Size) -> System:
    """Mean correctness of each test example over the draws of training labels, with one head per draw."""
    base, chat = reader.base, task.name == "question"
    inputs = [r["text"] for r in rows(reader, tuple(test), chat=chat)]
    each, seconds, shipped = [], 0.0, (0, 0)
    for draw in range(size.draws):
        known = rows(reader, task.train(labels, draw), chat=chat)
        seconds += reader.read([r["text"] for r in known] + inputs)
        began = time.perf_counter()
        adapted = base.with_adapter(base.adapt(known, task="classify", method="head"))
        answers = adapted.classify(inputs)
        seconds += time.perf_counter() - began
        each.append(correct([e.target for e in test], [x.label for x in answers]))
        shipped = _bytes(reader, adapted)
    mean = np.mean(each, axis=0)
    return System(
        f"{reader.name} + head", mean_score("accuracy", mean), mean_sums(mean), seconds / len(each), *shipped
    )


def _by_lora(reader: OpenedBase, task: DemoTask, test: Sequence[Example], labels: int, size: Size) -> System:
    """The first draw only: LoRA trains for seconds, a head for milliseconds."""
    base, known = reader.base, rows(reader, task.train(labels), chat=True)
    seconds, began = reader.read([r["text"] for r in known]), time.perf_counter()
    adapter = base.adapt(known, task="classify", method="lora", epochs=size.lora_epochs)
    adapted = base.with_adapter(adapter)
    answers = adapted.classify([reader.chat_line(e.text) for e in test])
    seconds += time.perf_counter() - began
    each = correct([e.target for e in test], [x.label for x in answers])
    name = f"{reader.name} + LoRA"
    return System(name, mean_score("accuracy", each), mean_sums(each), seconds, *_bytes(reader, adapted))


def _bytes(reader: OpenedBase, adapted: Base) -> tuple[int, int]:
    """Bytes of the adapter, and of the base (of an open base: of its files)."""
    adapter, shared = shipped_bytes(adapted)
    return adapter, reader.size or shared


def _prompted(
    readers: Sequence[OpenedBase],
    ngram: NGram,
    task: DemoTask,
    test: Sequence[Example],
    rivals: "_Rivals",
    out: Path,
    result: DemoResult,
    size: Size,
    log: Tell,
) -> Row:
    """Without labels: P("?") against P(".") after the message, each relative to its mean over unlabelled messages.

    The mean is the mark that a system prefers independently of the message; its messages are drawn independently of their label.
    Our bases read the message in its dialogue, an open base the message alone. The rivals are an n-gram with the same prompts, and
    classical systems trained on the fewest labels of the task.
    """
    systems, areas = [], []
    truth = [e.target for e in test]
    prompts = [e.prompt for e in test]
    for r in (*readers[:2], *(r for r in readers[2:] if r.prompted)):
        known, inputs, seconds = list(task.unlabelled[: size.test]), prompts, 0.0
        if r.prompted:
            known, inputs = [r.chat_line(_message(t)) for t in known], [r.chat_line(e.text) for e in test]
            seconds += r.read(known + inputs)
        began = time.perf_counter()
        adapter = r.base.adapt(
            [{"text": t} for t in known],
            task="classify",
            method="prompt",
            prompt="{text}",
            answers=dict(MARKS),
        )
        adapted = r.base.with_adapter(adapter)
        labels = adapted.classify(inputs)
        seconds += time.perf_counter() - began
        each = correct(truth, [x.label for x in labels])
        name = f"{r.name}, prompt alone"
        systems.append(
            System(name, mean_score("accuracy", each), mean_sums(each), seconds, *_bytes(r, adapted))
        )
        areas.append(auroc([t == "question" for t in truth], [x.scores["question"] for x in labels]))
        if r is readers[0]:
            result.adapters["mark"] = str(adapter.save(out / "adapters" / "mark", overwrite=True))
    log(
        "question, no label, AUROC: "
        + ", ".join(f"{s.name} {a.value:.3f}" for s, a in zip(systems, areas, strict=True))
    )
    began = time.perf_counter() - ngram.seconds
    odds = mark_odds(readers[0].base, ngram, prompts)
    odds -= mark_odds(readers[0].base, ngram, task.unlabelled).mean()
    each = correct(truth, ["question" if x > 0 else "statement" for x in odds])
    seconds = time.perf_counter() - began
    counted = System(
        f"a {ngram.name}, no label", mean_score("accuracy", each), mean_sums(each), seconds, ngram.size
    )
    beside = list(zip((r for r in readers[2:] if r.prompted), systems[2:], strict=True))
    classical = rivals.systems(task.sizes[0], size.draws)
    return _row(task, "prompt alone, no label", (systems[0], systems[1], beside), [counted, *classical], log)


def _message(prompt: str) -> str:
    """The last message of a transcript."""
    return prompt.rsplit("\n", 1)[-1][2:]


def mark_odds(base: Base, ngram: NGram, prompts: Sequence[str]) -> Array:
    """log P("?") - log P(".") as the next token of each prompt under an n-gram over the base's tokens, float64 [n]."""
    marks = [base.tokenizer.encode(m) for m in (MARKS["question"], MARKS["statement"])]
    heads = base.tokenizer.encode_batch(list(prompts))
    # Earlier tokens contribute the same for both marks and cancel in the difference.
    nats = [ngram.totals([[*ids[-ngram.order :], *mark] for ids in heads]) for mark in marks]
    return np.asarray(nats[1] - nats[0])


class _Rivals:
    """The classical systems of a task, each fitted once per draw of labels."""

    def __init__(self, task: DemoTask, test: Sequence[Example]) -> None:
        self.task, self.test = task, test
        self._fits: dict[tuple[Any, int, int], tuple[Array, float, int]] = {}

    def systems(self, labels: int, draws: int) -> list[System]:
        out = []
        for make in (TfidfLogistic, NearestNeighbour):
            each, seconds, sizes = zip(*(self._fitted(make, labels, d) for d in range(draws)), strict=True)
            mean = np.mean(each, axis=0)
            name = make.name + (f" with {labels} labels a class" if self.task.name == "question" else "")
            cost = sum(seconds) / draws
            out.append(System(name, mean_score("accuracy", mean), mean_sums(mean), cost, sizes[-1]))
        return out

    def _fitted(self, make: Any, labels: int, draw: int) -> tuple[Array, float, int]:
        key = (make, labels, draw)
        if key not in self._fits:
            train = self.task.train(labels, draw)
            model = make().fit([e.text for e in train], [e.target for e in train])
            right = correct([e.target for e in self.test], model.predict([e.text for e in self.test]))
            self._fits[key] = (right, model.seconds, model.size)
        return self._fits[key]


def _row(task: DemoTask, setting: str, systems: Systems, rivals: list[System], log: Tell) -> Row:
    ours, twin, beside = systems
    verdict = gate("accuracy", ours, twin, rivals)
    opened = tuple(
        Beside(s, gate("accuracy", s, ours, rivals, twin="the base trained here", who=r.name))
        for r, s in beside
    )
    every = (ours, twin, *(b.system for b in opened), *rivals)
    scores = ", ".join(f"{s.name} {s.score.value:.3f}" for s in every)
    lines = [verdict.line, *(b.verdict.line for b in opened)]
    log(f"{task.name}, {setting}: {scores}\n  " + "\n  ".join(lines))
    return Row(task.name, setting, "accuracy", ours, twin, tuple(rivals), verdict, opened)
