"""Classical systems for rows of every kind: each learns what can be learnt, and is measured as a base is."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onebase
from onebase.api.base import Base
from onebase.assess.gating import against_classical, main_score
from onebase.assess.rivals import Rival, rivals_of
from onebase.data import Rows, read_rows
from onebase.errors import DataError, UserError
from tests.helpers import tiny_base
from tests.pictures import digits, sighted

WORDS = ("red", "iron", "of", "some", "near", "old", "blue", "tin", "and", "new")


def texts(n: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.sample(WORDS, 5)) for _ in range(n)]


def many(n: int, seed: int) -> list[dict[str, Any]]:
    kinds = {"colour": ("red", "blue"), "metal": ("iron", "tin"), "word": ("of",)}
    rows = (
        {"text": t, "labels": [k for k, of in kinds.items() if set(of) & set(t.split())]}
        for t in texts(n, seed)
    )
    return [r for r in rows if r["labels"]]


def numbers(n: int, seed: int) -> list[dict[str, Any]]:
    worth = {"red": 3.0, "iron": -2.0, "old": 1.0}
    return [{"text": t, "value": 10 + sum(worth.get(w, 0.0) for w in t.split())} for t in texts(n, seed)]


def spans(n: int, seed: int) -> list[dict[str, Any]]:
    rows = []
    for i, t in enumerate(texts(n, seed)):
        name, year = f"{t.split()[0].title()}son", str(1900 + i % 90)
        text = f"{t} by {name} {name}, in {year}."
        at = text.index(name)
        rows.append(
            {
                "text": text,
                "spans": [
                    {"start": at, "end": at + 2 * len(name) + 1, "label": "name"},
                    {"start": text.index(year), "end": text.index(year) + 4, "label": "year"},
                ],
            }
        )
    return rows


def read(rows: list[dict[str, Any]]) -> Rows:
    return read_rows(rows, ())


@pytest.mark.parametrize(
    ("task", "make", "score", "reaches"),
    [
        ("classify", many, "micro_f1", 0.95),
        ("regress", numbers, "mae", 0.4),  # the values differ from their median by 1.7 on average
        ("tag", spans, "span_f1", 0.95),
    ],
)
def test_what_words_say_is_learnt(task: str, make: Any, score: str, reaches: float) -> None:
    known, test = read(make(120, 0)), read(make(60, 1))
    for kind in rivals_of(task, known, ("text",)):
        model = kind().fit(known)
        said = model.predict(test)
        metric = main_score(task, said)
        value = metric.score(said, 0)
        assert metric.name == score and value is not None and value.n == len(test)
        assert value.value <= reaches if metric.lower else value.value >= reaches, model.name
        assert model.size > 0 and model.seconds > 0


def test_pixels_tell_digits(tmp_path: Path) -> None:
    rows = digits(tmp_path, 14)
    folder = tmp_path / "rows.jsonl"
    folder.write_text("".join(__import__("json").dumps(r) + "\n" for r in rows))
    every = read_rows(folder, ("image", "label"))
    known, test = (
        every.some([i for i in range(len(every)) if (i % 14 < 10) == first]) for first in (True, False)
    )
    (kind,) = rivals_of("classify", known, ("image",))
    said = kind().fit(known).predict(test)
    assert np.mean([a == b for a, b in zip(said.truth, said.found, strict=True)]) > 0.85


def test_one_label_has_two_rivals_and_what_has_none_says_so() -> None:
    rows = read([{"text": t, "label": "ab"[i % 2]} for i, t in enumerate(texts(20, 0))])
    made: list[Rival] = [kind().fit(rows) for kind in rivals_of("classify", rows, ("text",))]
    assert [m.name for m in made] == ["TF-IDF + logistic regression", "nearest neighbour"]
    for m in made:
        said = m.predict(rows)
        assert said.p_NL.sum(1) == pytest.approx(np.ones(len(rows)))
        assert [said.found[i] for i in range(20)] == ["ab"[k] for k in said.p_NL.argmax(1)]
    assert rivals_of("embed", rows, ("anchor",)) == []


@pytest.mark.parametrize(
    ("task", "make", "options"),
    [("regress", numbers, {}), ("tag", spans, {}), ("classify", many, {})],
)
def test_the_gate_asks_for_every_kind(task: str, make: Any, options: dict[str, Any]) -> None:
    base = Base(tiny_base(context=128))
    known, test = make(60, 0), make(40, 1)
    on = base.with_adapter(base.adapt(known, task=task, method="head", **options))
    verdict = against_classical(on, known, test)
    assert verdict.line.lower().startswith(verdict.answer) and verdict.over_untrained is None
    assert len(verdict.costs) == 1 + len(rivals_of(task, read(known), ("text",)))
    twin = against_classical(on, known, test, twin=True)
    assert twin.over_untrained is not None
    with pytest.raises(DataError, match="not the training rows of the adapter"):
        against_classical(on, known[1:], test)
    # The better side is above zero, whichever way the score goes.
    scores = onebase.evaluate(on, test)
    assert verdict.over_classical.n == next(iter(scores.values())).n


def test_the_gate_sees_pictures(tmp_path: Path) -> None:
    base = onebase.load(sighted(tmp_path / "base"))
    rows = digits(tmp_path / "files", 6)
    for r in rows:
        r["image"] = str(tmp_path / "files" / r["image"])
    known, test = [r for i, r in enumerate(rows) if i % 3], [r for i, r in enumerate(rows) if not i % 3]
    on = base.with_adapter(base.adapt(known, task="classify", method="head"))
    verdict = against_classical(on, known, test)
    assert verdict.classical == "pixels + logistic regression" and verdict.over_classical.n == 20


def test_a_task_without_rivals_is_refused() -> None:
    base = Base(tiny_base(context=128))
    pairs = [{"anchor": t, "positive": t[::-1]} for t in texts(8, 0)]
    on = base.with_adapter(base.adapt(pairs, task="embed", method="lora", epochs=1))
    with pytest.raises(UserError, match="the gate needs an adapter"):
        against_classical(on, pairs, pairs)
