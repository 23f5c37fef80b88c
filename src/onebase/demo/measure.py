"""The demo's labelled tasks under each adaptation, beside the same on an untrained base and classical rivals."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onebase.api.base import Base
from onebase.api.evaluating import shipped_bytes
from onebase.demo.results import DemoResult, Row
from onebase.demo.size import Size
from onebase.demo.tasks import MARKS, Example, Task
from onebase.evaluation.baselines import NearestNeighbour, TfidfLogistic
from onebase.evaluation.bootstrap import mean_score
from onebase.evaluation.gate import System, gate
from onebase.evaluation.metrics import auroc, correct
from onebase.evaluation.ngram import NGram

Tell = Callable[[str], None]
Array = NDArray[np.float64]


def question(
    base: Base,
    untrained: Base,
    ngram: NGram,
    task: Task,
    out: Path,
    result: DemoResult,
    size: Size,
    tell: Tell,
) -> list[Row]:
    """By prompt alone, by a head with few labels, by LoRA with the most. The adapters of `base` are saved under `out`."""
    test = task.test[: size.test]
    rows = [_prompted(base, untrained, ngram, task, test, out, result, size, tell)]
    rows += [_by_head(base, untrained, task, test, labels, size, tell) for labels in task.sizes]
    most = task.sizes[-1]
    systems = [
        _classified(b, task, test, most, "lora", size, name, draws=1)
        for b, name in ((base, "base + LoRA"), (untrained, "untrained + LoRA"))
    ]
    keep = _labelled(base, task, most, 0)
    adapter = base.adapt(keep, task="classify", method="head")
    result.adapters["question"] = str(adapter.save(out / "adapters" / "question", overwrite=True))
    rivals = _tfidf(task, test, most, size, draws=1)
    rows.append(_row(task, f"LoRA, {most} labels a class", systems, rivals, tell))
    return rows


def topic(base: Base, untrained: Base, task: Task, size: Size, tell: Tell) -> list[Row]:
    """By a head with few labels."""
    test = task.test[: size.test]
    return [_by_head(base, untrained, task, test, labels, size, tell) for labels in task.sizes]


def _by_head(
    base: Base, untrained: Base, task: Task, test: Sequence[Example], labels: int, size: Size, tell: Tell
) -> Row:
    systems = [
        _classified(b, task, test, labels, "head", size, name)
        for b, name in ((base, "base + head"), (untrained, "untrained + head"))
    ]
    return _row(task, f"head, {labels} labels a class", systems, _tfidf(task, test, labels, size), tell)


def _prompted(
    base: Base,
    untrained: Base,
    ngram: NGram,
    task: Task,
    test: Sequence[Example],
    out: Path,
    result: DemoResult,
    size: Size,
    tell: Tell,
) -> Row:
    """No labels: P("?") against P(".") after the message, in its dialogue, each beside its mean over unlabelled messages.

    The mean tells which mark a system prefers whatever the message; the messages it is taken over are drawn whatever their label.
    The rivals are the same question put to an n-gram, and systems that learn words from the fewest labels of the task.
    """
    systems, areas = [], []
    truth = [e.target for e in test]
    prompts = [e.prompt for e in test]
    for b, name in ((base, "base, prompt alone"), (untrained, "untrained, prompt alone")):
        began = time.perf_counter()
        adapter = b.adapt(
            [{"text": t} for t in task.unlabelled],
            task="classify",
            method="prompt",
            prompt="{text}",
            answers=dict(MARKS),
        )
        adapted = b.with_adapter(adapter)
        labels = adapted.classify(prompts)
        seconds = time.perf_counter() - began
        each = correct(truth, [x.label for x in labels])
        systems.append(System(name, mean_score("accuracy", each), each, seconds, *shipped_bytes(adapted)))
        areas.append(auroc([t == "question" for t in truth], [x.scores["question"] for x in labels]))
        if b is base:
            result.adapters["mark"] = str(adapter.save(out / "adapters" / "mark", overwrite=True))
    tell(f"question, no label: AUROC {areas[0].value:.3f}, untrained {areas[1].value:.3f}")
    began = time.perf_counter() - ngram.seconds
    odds = mark_odds(base, ngram, prompts) - mark_odds(base, ngram, task.unlabelled).mean()
    each = correct(truth, ["question" if x > 0 else "statement" for x in odds])
    counted = System(
        f"a {ngram.name}, no label",
        mean_score("accuracy", each),
        each,
        time.perf_counter() - began,
        ngram.size,
    )
    rivals = [counted, *_tfidf(task, test, task.sizes[0], size)]
    return _row(task, "prompt alone, no label", systems, rivals, tell)


def mark_odds(base: Base, ngram: NGram, prompts: Sequence[str]) -> Array:
    """log P("?") - log P(".") as the next token of each prompt under an n-gram over the base's tokens, float64 [n]."""
    marks = [base.tokenizer.encode(m) for m in (MARKS["question"], MARKS["statement"])]
    heads = base.tokenizer.encode_batch(list(prompts))
    # Earlier tokens count the same for both marks and drop out of the difference.
    nats = [ngram.totals([[*ids[-ngram.order :], *mark] for ids in heads]) for mark in marks]
    return np.asarray(nats[1] - nats[0])


def _labelled(base: Base, task: Task, labels: int, draw: int) -> list[dict[str, Any]]:
    return [{"text": _short(base, e.text), "label": e.target} for e in task.train(labels, draw)]


def _short(base: Base, text: str) -> str:
    """The text, or what of it fits in the context of so small a base."""
    room = base.config.text.context - 8
    if len(text.encode()) <= room:  # a token holds at least one byte
        return text
    ids = base.tokenizer.encode(text)
    return text if len(ids) <= room else base.tokenizer.decode(ids[:room])


def _classified(
    b: Base,
    task: Task,
    test: Sequence[Example],
    labels: int,
    method: str,
    size: Size,
    name: str,
    draws: int | None = None,
) -> System:
    """Mean correctness of each test example over the draws of training labels."""
    began, each, shipped = time.perf_counter(), [], (0, 0)
    for draw in range(draws or size.draws):
        more: dict[str, Any] = {"epochs": size.lora_epochs} if method == "lora" else {}
        adapter = b.adapt(_labelled(b, task, labels, draw), task="classify", method=method, **more)
        adapted = b.with_adapter(adapter)
        found = adapted.classify([_short(b, e.text) for e in test])
        each.append(correct([e.target for e in test], [x.label for x in found]))
        shipped = shipped_bytes(adapted)
    mean = np.mean(each, axis=0)
    seconds = (time.perf_counter() - began) / len(each)
    return System(name, mean_score("accuracy", mean), mean, seconds, *shipped)


def _tfidf(
    task: Task, test: Sequence[Example], labels: int, size: Size, draws: int | None = None
) -> list[System]:
    out = []
    for make in (TfidfLogistic, NearestNeighbour):
        each: list[Array] = []
        seconds, shipped = 0.0, 0
        for draw in range(draws or size.draws):
            train = task.train(labels, draw)
            model = make().fit([e.text for e in train], [e.target for e in train])
            each.append(correct([e.target for e in test], model.predict([e.text for e in test])))
            seconds, shipped = seconds + model.seconds, model.size
        mean = np.mean(each, axis=0)
        name = make.name + (f" with {labels} labels a class" if task.name == "question" else "")
        out.append(System(name, mean_score("accuracy", mean), mean, seconds / len(each), shipped))
    return out


def _row(task: Task, setting: str, systems: list[System], rivals: list[System], tell: Tell) -> Row:
    verdict = gate("accuracy", systems[0], systems[1], rivals)
    scores = ", ".join(f"{s.name} {s.score.value:.3f}" for s in (*systems, *rivals))
    tell(f"{task.name}, {setting}: {scores}\n  {verdict.line}")
    return Row(task.name, setting, "accuracy", systems[0], systems[1], tuple(rivals), verdict)
