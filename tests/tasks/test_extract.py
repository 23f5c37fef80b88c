"""Task extract: answers found in texts, learnt from rows of SQuAD's form."""

from typing import Any

import pytest

import onebase
from onebase.api.base import Base
from onebase.engine.passages import windows
from onebase.errors import DataError, UserError
from onebase.evaluation.spans import answer_each
from tests.helpers import tiny_base

NAMES = ["Ada", "Grace", "Alan", "Emmy"]
ROWS: list[dict[str, Any]] = []
for _a in NAMES:
    for _b in NAMES[:2]:
        _text = f"Well, {_a} wrote it and {_b} read it."
        ROWS.append(
            {
                "question": "Who wrote it?",
                "context": _text,
                "answers": {"text": [_a], "answer_start": [_text.index(_a)]},
            }
        )


@pytest.mark.parametrize("method", ["head", "lora"])
def test_learnt(method: str) -> None:
    base = Base(tiny_base(portable=True))
    more = {} if method == "head" else {"epochs": 1, "batch_size": 8}
    on = base.with_adapter(base.adapt(ROWS, task="extract", method=method, **more))
    scores = onebase.evaluate(on, ROWS)
    assert scores["answer_f1"].value >= scores["answer_exact"].value > 0.5
    row = ROWS[1]
    found = on.extract(row["question"], row["context"], top=2)
    assert found[0].score >= found[1].score and row["context"][found[0].start : found[0].end] == found[0].text
    assert on.apply([row])[0]["answers"][0]["text"] == found[0].text


def test_bad_rows() -> None:
    base = Base(tiny_base())
    for answers, said in [
        ({"text": [], "answer_start": []}, "has no answer"),
        ({"text": ["Ada"], "answer_start": [1]}, "is not at character 1"),
        ({"text": ["Ada"]}, "'answers' is"),
        ("Ada", "'answers' is"),
    ]:
        with pytest.raises(DataError, match=said):
            base.adapt([*ROWS, {**ROWS[0], "answers": answers}], task="extract", method="head")
    with pytest.raises(UserError, match="no adapter that finds answers"):
        base.extract("Who?", "Ada.")
    on = base.with_adapter(base.adapt(ROWS, task="extract", method="head"))
    with pytest.raises(UserError, match="top is 0"):
        on.extract("Who?", "Ada.", top=0)
    with pytest.raises(DataError, match="leaves no room"):
        on.extract("Who? " * 200, "Ada wrote it and Grace read it.")


def test_windows_cover_a_long_text() -> None:
    base = tiny_base()
    text = " ".join(f"word{i}" for i in range(60))
    found = windows(base, [("Who?", text)], 40)
    assert len(found) > 2 and all(len(w.tokens) <= 40 for w in found)
    covered = {p for w in found for p in w.places}
    assert min(a for a, _ in covered) == 0 and max(b for _, b in covered) == len(text)
    whole = windows(base, [("Who?", text)])
    assert covered == {p for w in whole for p in w.places}


def test_squads_way_to_count() -> None:
    assert answer_each(["The Ada!", "no"], "ada") == (1.0, 1.0)
    assert answer_each(["Ada Lovelace"], "Countess Ada") == (0.0, 0.5)
    assert answer_each(["the"], "") == (1.0, 1.0)
