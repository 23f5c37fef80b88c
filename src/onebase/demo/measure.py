"""The demo's measurements: each task under each adaptation, beside the same on an untrained base and a classical rival."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onebase.api.base import Adapter, Base
from onebase.api.texts import completion_rows
from onebase.codec.text.sample import completion_sample
from onebase.data import Dataset, TokenSet
from onebase.demo.results import DemoResult, Row, Sample
from onebase.demo.tasks import MARKS, Example, Task
from onebase.evaluation.baselines import NameWords, NearestNeighbour, TfidfLogistic
from onebase.evaluation.bootstrap import Score, mean_score, ratio_score
from onebase.evaluation.gate import System, gate
from onebase.evaluation.likelihood import by_source, completion_nats, document_nats
from onebase.evaluation.metrics import auroc, bits_per_byte, correct, rouge_l_each
from onebase.evaluation.ngram import NGram
from onebase.train.listen import Progress

Tell = Callable[[str], None]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    test: int = 1200
    draws: int = 3
    heldout_tokens: int = 60_000
    ngram_tokens: int = 1_200_000
    docstring_train: int = 2500
    docstring_test: int = 300
    docstring_tokens: int = 128
    docstring_epochs: int = 2
    written: int = 100
    lora_epochs: int = 4

    @staticmethod
    def quick() -> "Size":
        return Size(60, 1, 5_000, 50_000, 60, 20, 128, 1, 8, 1)


def heldout(
    base: Base, untrained: Base, dataset: Dataset, tokens: TokenSet, size: Size, tell: Tell
) -> dict[str, dict[str, Score]]:
    """Bits per byte of held-out text by source: the base, its untrained twin, and a Kneser-Ney 5-gram."""
    documents = []
    for source in dataset.stats:
        used = 0
        for d in dataset.documents("holdout", source):
            used += len(base.tokenizer.encode(d.text))
            documents.append(d)
            if used > size.heldout_tokens // len(dataset.stats):
                break
    ngram, order, read = NGram(base.config.text.vocab_size, 5), [], 0
    for i in np.random.default_rng(0).permutation(len(tokens)):
        order.append(tokens.tokens(int(i)).ids[1:].astype(np.int64))
        read += len(order[-1])
        if read > size.ngram_tokens:
            break
    ngram.fit(order)
    nats = ngram.totals([base.tokenizer.encode(d.text, eos=True) for d in documents])
    found: dict[str, dict[str, Score]] = {}
    ours = by_source(document_nats(base.loaded, documents))
    few = [d for s in dataset.stats for d in [d for d in documents if d.source == s][:8]]
    start = by_source(document_nats(untrained.loaded, few))
    for source, score in ours.items():
        mine = [i for i, d in enumerate(documents) if d.source == source]
        rival = bits_per_byte([nats[i] for i in mine], [len(documents[i].text.encode()) for i in mine])
        found[source] = {"base": score, "5-gram": rival}
        if source in start:
            found[source]["untrained base"] = start[source]
        tell(f"{source}: {score.value:.3f} bits per byte, 5-gram {rival.value:.3f}")
    return found


def question(
    base: Base, untrained: Base, task: Task, out: Path, result: DemoResult, size: Size, tell: Tell
) -> list[Row]:
    """By prompt alone, by a head with few labels, by LoRA with the most."""
    test = task.test[: size.test]
    rows = [_prompted(base, untrained, task, test, out, result, size, tell)]
    for labels in task.sizes:
        method = "head"
        systems = [
            _classified(b, task, test, labels, method, size, name)
            for b, name in ((base, "base + head"), (untrained, "untrained + head"))
        ]
        rows.append(
            _row(task, f"head, {labels} labels a class", systems, _tfidf(task, test, labels, size), tell)
        )
    most = task.sizes[-1]
    systems = []
    for b, name in ((base, "base + LoRA"), (untrained, "untrained + LoRA")):
        systems.append(_classified(b, task, test, most, "lora", size, name, draws=1))
    keep = _labelled(base, task, most, 0)
    adapter = base.adapt(keep, task="classify", method="head")
    result.adapters["question"] = str(adapter.save(out / "adapters" / "question", overwrite=True))
    rows.append(
        _row(task, f"LoRA, {most} labels a class", systems, _tfidf(task, test, most, size, draws=1), tell)
    )
    return rows


def topic(base: Base, untrained: Base, task: Task, size: Size, tell: Tell) -> list[Row]:
    """By a head with few labels."""
    rows = []
    test = task.test[: size.test]
    for labels in task.sizes:
        systems = [
            _classified(b, task, test, labels, "head", size, name)
            for b, name in ((base, "base + head"), (untrained, "untrained + head"))
        ]
        rows.append(
            _row(task, f"head, {labels} labels a class", systems, _tfidf(task, test, labels, size), tell)
        )
    return rows


def docstring(
    base: Base, untrained: Base, task: Task, out: Path, result: DemoResult, size: Size, tell: Tell
) -> list[Row]:
    """SFT by LoRA: nats per token of the true docstring, and ROUGE-L of what is written."""
    train = _fit_to(base, task.train()[: size.docstring_train], size)
    test = _fit_to(base, task.test, size)[: size.docstring_test]
    rows = [{"prompt": e.prompt, "completion": e.target} for e in train]
    samples = completion_rows(base.loaded, [{"prompt": e.prompt, "completion": e.target} for e in test])
    counts = np.array([s.loss.sum() for s in samples], float)
    likely, written = [], []
    for b, name in ((base, "base + SFT"), (untrained, "untrained + SFT")):
        began = time.perf_counter()
        adapter = b.adapt(
            rows,
            task="complete",
            method="lora",
            epochs=size.docstring_epochs,
            rows=16,
            rank=16,
            lr=4e-3,
            max_length=base.config.text.context,
            listeners=[Progress(name)],
        )
        adapted = b.with_adapter(adapter)
        nats = completion_nats(adapted.loaded, samples, adapted._active)[:, 0]
        seconds = time.perf_counter() - began
        likely.append(System(name, ratio_score("nats_per_token", nats, counts), nats, seconds, adapter.bytes))
        texts = _write(adapted, test[: size.written])
        each = 100 * rouge_l_each([e.target for e in test[: size.written]], texts)
        written.append(System(name, mean_score("rouge_l", each), each, seconds, adapter.bytes))
        if b is base:
            result.adapters["docstring"] = str(adapter.save(out / "adapters" / "docstring", overwrite=True))
            for e, text in list(zip(test, texts, strict=False))[:4]:
                result.samples.append(Sample("docstring after SFT", e.prompt, text, e.target))
    began = time.perf_counter()
    grams = NGram(base.config.text.vocab_size, 4).fit(
        [completion_sample_ids(base, r["completion"]) for r in rows]
    )
    total = np.asarray(grams.totals([completion_sample_ids(base, e.target) for e in test]))
    rival = System(
        "a 4-gram",
        ratio_score("nats_per_token", total, counts),
        total,
        time.perf_counter() - began,
        grams.size,
    )
    verdict = gate("nats_per_token", likely[0], likely[1], rival, weights=counts)
    tell(f"docstring, likelihood: {verdict.line}")
    found = [
        Row(
            task.name,
            "SFT, likelihood of the true text",
            "nats_per_token",
            likely[0],
            likely[1],
            (rival,),
            verdict,
        )
    ]
    words = NameWords().fit([e.text for e in train], [e.target for e in train])
    guess = 100 * rouge_l_each(
        [e.target for e in test[: size.written]], words.predict([e.text for e in test[: size.written]])
    )
    rival = System("the words of its name", mean_score("rouge_l", guess), guess, words.seconds, words.size)
    verdict = gate("rouge_l", written[0], written[1], rival)
    tell(f"docstring, written text: {verdict.line}")
    return [*found, Row(task.name, "SFT, written text", "rouge_l", written[0], written[1], (rival,), verdict)]


def completion_sample_ids(base: Base, text: str) -> list[int]:
    """The supervised ids of a completion: the text and its end."""
    tokens = base.loaded.codec.tokens(completion_sample("", text))
    return [int(i) for i, on in zip(tokens.ids, tokens.loss, strict=True) if on]


def _fit_to(base: Base, examples: Sequence[Example], size: Size) -> list[Example]:
    """Functions cut to their first tokens, so that prompt and docstring fit in a short row."""
    out = []
    tok = base.tokenizer
    for e, ids in zip(examples, tok.encode_batch([e.text for e in examples]), strict=True):
        head = (
            tok.decode(ids[: size.docstring_tokens - 48]) if len(ids) > size.docstring_tokens - 48 else e.text
        )
        out.append(Example(e.id, e.text, e.target, f'{head}\n"""'))
    return [e for e in out if len(tok.encode(e.target)) <= 40]


def _write(base: Base, examples: Sequence[Example]) -> list[str]:
    from onebase.generate.engine import generate
    from onebase.generate.sampler import Sampling

    ids = [base.tokenizer.encode(e.prompt, bos=True) for e in examples]
    out = []
    for i in range(0, len(ids), 50):
        out += generate(base.loaded, ids[i : i + 50], Sampling(max_tokens=32, stop=("\n",)), base._active)
    return [g.text.strip() for g in out]


def _prompted(
    base: Base,
    untrained: Base,
    task: Task,
    test: Sequence[Example],
    out: Path,
    result: DemoResult,
    size: Size,
    tell: Tell,
) -> Row:
    """No labels: P("?") against P(".") after the message, in its dialogue, each beside its mean over unlabelled messages."""
    systems, areas = [], []
    # A hundred messages without their labels, as many questions as statements, tell which mark the base prefers whatever the
    # message: the balance is known, the labels are not.
    unlabelled = [{"text": e.prompt} for e in task.train(task.sizes[1], 0)][:200]
    for b, name in ((base, "base, prompt alone"), (untrained, "untrained, prompt alone")):
        began = time.perf_counter()
        adapter: Adapter = b.adapt(
            unlabelled, task="classify", method="prompt", prompt="{text}", answers=dict(MARKS)
        )
        labels = b.with_adapter(adapter).classify([e.prompt for e in test])
        each = correct([e.target for e in test], [x.label for x in labels])
        systems.append(System(name, mean_score("accuracy", each), each, time.perf_counter() - began, 0))
        areas.append(auroc([e.target == "question" for e in test], [x.scores["question"] for x in labels]))
        if b is base:
            result.adapters["mark"] = str(adapter.save(out / "adapters" / "mark", overwrite=True))
    tell(f"question, no label: AUROC {areas[0].value:.3f}, untrained {areas[1].value:.3f}")
    # The fair rival reads no labels either: how often words of the message end in each mark is knowledge that a classical system
    # can only get from labels, so it is given the fewest.
    return _row(task, "prompt alone, no label", systems, _tfidf(task, test, task.sizes[0], size), tell)


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
    began, each, shipped = time.perf_counter(), [], 0
    for draw in range(draws or size.draws):
        more: dict[str, Any] = {"epochs": size.lora_epochs} if method == "lora" else {}
        adapter = b.adapt(_labelled(b, task, labels, draw), task="classify", method=method, **more)
        found = b.with_adapter(adapter).classify([_short(b, e.text) for e in test])
        each.append(correct([e.target for e in test], [x.label for x in found]))
        shipped = adapter.bytes
    mean = np.mean(each, axis=0)
    seconds = (time.perf_counter() - began) / len(each)
    return System(name, mean_score("accuracy", mean), mean, seconds, shipped)


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


def as_json(result: DemoResult) -> dict[str, Any]:
    """The result as plain data: everything but the values of single examples."""

    def system(s: System) -> dict[str, Any]:
        return {"name": s.name, "score": asdict(s.score), "seconds": s.seconds, "bytes": s.size}

    rows = [
        {
            "task": r.task,
            "setting": r.setting,
            "metric": r.metric,
            "systems": [system(s) for s in (r.base, r.untrained, *r.classical)],
            "verdict": r.verdict.line,
            "needs_base": r.verdict.needs_base,
        }
        for r in result.rows
    ]
    held = {k: {n: asdict(s) for n, s in v.items()} for k, v in result.heldout.items()}
    return {
        "rows": rows,
        "heldout_bits_per_byte": held,
        "stages_seconds": result.stages,
        "facts": result.facts,
    }
