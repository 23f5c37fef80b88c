"""The demo's text generation task: supervised fine-tuning with LoRA, scored on true docstrings and on generated ones."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onebase.api.base import Base
from onebase.assess.gating import shipped_bytes
from onebase.demo.measure import Tell
from onebase.demo.results import DemoResult, Generated, Row, Size
from onebase.demo.tasks import DemoTask, Example
from onebase.engine.decoder import generate
from onebase.engine.features import completion_rows
from onebase.engine.sampler import Sampling
from onebase.evaluation.baselines import NameWords
from onebase.evaluation.bootstrap import mean_score, ratio_score
from onebase.evaluation.gate import System, gate
from onebase.evaluation.likelihood import completion_nats
from onebase.evaluation.metrics import rouge_l_each
from onebase.evaluation.ngram import NGram
from onebase.evaluation.paired import RowSums, mean_sums
from onebase.modality.text.sample import completion_sample
from onebase.train.callbacks import Progress

LORA: dict[str, Any] = {"method": "lora", "rank": 32, "alpha": 32.0, "lr": 1e-2}
FULL: dict[str, Any] = {"method": "full", "lr": 4e-3}
TWIN = "an untrained base with all its weights trained on the same"
"""LoRA on frozen random weights would be a straw man: a random head predicts nothing whatever LoRA learns (7.8 nats per token against 5.2)."""


def docstring(
    base: Base, untrained: Base, task: DemoTask, out: Path, result: DemoResult, size: Size, log: Tell
) -> list[Row]:
    """SFT with LoRA: nats per token of the true docstring, and ROUGE-L of the generated one. The untrained twin trains all its weights."""
    train = _fit_to(base, task.train()[: size.docstring_train], size)
    test = _fit_to(base, task.test, size)[: size.docstring_test]
    rows = [_pair(e) for e in train]
    samples = completion_rows(base.loaded, [_pair(e) for e in test])
    counts = np.array([s.loss.sum() for s in samples], float)
    truth = [e.target for e in test[: size.written]]
    likely, written = [], []
    for b, name, options in ((base, "base + SFT", LORA), (untrained, "untrained, all weights trained", FULL)):
        began = time.perf_counter()
        adapter = b.adapt(
            rows,
            task="complete",
            epochs=size.docstring_epochs,
            batch_size=16,
            max_length=base.config.text.context,
            callbacks=[Progress(name)],
            **options,
        )
        adapted = b.with_adapter(adapter)
        fitted = time.perf_counter()
        nats = completion_nats(adapted.loaded, samples, adapted.routing)[:, 0]
        scored = time.perf_counter()
        texts = _write(adapted, test[: size.written])
        wrote = time.perf_counter()
        shipped = shipped_bytes(adapted)
        score = ratio_score("nats_per_token", nats, counts)
        likely.append(System(name, score, RowSums(nats, np.asarray(counts, float)), scored - began, *shipped))
        each = 100 * rouge_l_each(truth, texts)
        seconds = fitted - began + wrote - scored
        written.append(System(name, mean_score("rouge_l", each), mean_sums(each), seconds, *shipped))
        if b is base:
            result.adapters["docstring"] = str(adapter.save(out / "adapters" / "docstring", overwrite=True))
            for e, text in list(zip(test, texts, strict=False))[:4]:
                result.samples.append(Generated("docstring after SFT", e.prompt, text, e.target))
    counted = _counted(base, train, test, counts)
    verdict = gate("nats_per_token", likely[0], likely[1], counted, twin=TWIN)
    log(f"docstring, likelihood: {verdict.line}")
    setting = "SFT, likelihood of the true text"
    likelihood = [Row(task.name, setting, "nats_per_token", likely[0], likely[1], (counted,), verdict)]
    words = NameWords().fit([e.text for e in train], [e.target for e in train])
    guess = 100 * rouge_l_each(truth, words.predict([e.text for e in test[: size.written]]))
    named = System(
        "the words of its name", mean_score("rouge_l", guess), mean_sums(guess), words.seconds, words.size
    )
    verdict = gate("rouge_l", written[0], written[1], named, twin=TWIN)
    log(f"docstring, written text: {verdict.line}")
    return [
        *likelihood,
        Row(task.name, "SFT, written text", "rouge_l", written[0], written[1], (named,), verdict),
    ]


def _pair(e: Example) -> dict[str, Any]:
    return {"prompt": e.prompt, "completion": e.target}


def _counted(base: Base, train: Sequence[Example], test: Sequence[Example], counts: np.ndarray) -> System:
    """A 4-gram model fitted on the training docstrings."""
    began = time.perf_counter()
    grams = NGram(base.config.text.vocab_size, 4).fit([_supervised(base, e.target) for e in train])
    total = np.asarray(grams.totals([_supervised(base, e.target) for e in test]))
    score = ratio_score("nats_per_token", total, counts)
    return System(
        "a 4-gram", score, RowSums(total, np.asarray(counts, float)), time.perf_counter() - began, grams.size
    )


def _supervised(base: Base, text: str) -> list[int]:
    """The supervised ids of a completion: the text and its end."""
    tokens = base.loaded.codec.tokens(completion_sample("", text))
    return [int(i) for i, on in zip(tokens.ids, tokens.loss, strict=True) if on]


def _fit_to(base: Base, examples: Sequence[Example], size: Size) -> list[Example]:
    """Functions truncated to their first tokens, so that prompt and docstring fit in a short row."""
    out = []
    tok = base.tokenizer
    limit = size.docstring_tokens - 48
    for e, ids in zip(examples, tok.encode_batch([e.text for e in examples]), strict=True):
        head = tok.decode(ids[:limit]) if len(ids) > limit else e.text
        out.append(Example(e.id, e.text, e.target, f'{head}\n"""'))
    return [e for e in out if len(tok.encode(e.target)) <= 40]


def _write(base: Base, examples: Sequence[Example]) -> list[str]:
    ids = [base.tokenizer.encode(e.prompt, bos=True) for e in examples]
    out = []
    for i in range(0, len(ids), 50):
        out += generate(base.loaded, ids[i : i + 50], Sampling(max_tokens=32, stop=("\n",)), base.routing)
    return [g.text.strip() for g in out]
