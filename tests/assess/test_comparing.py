"""`onebase compare`: what is tried, how it is chosen, what is said, and what is refused before any work."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onebase
from onebase.api.base import Base
from onebase.assess.candidates import Candidate, Trained, Untried, answers_of
from onebase.assess.compared_data import comparison_data, folds_of
from onebase.assess.comparing import _tried, allotted, best, needed
from onebase.assess.comparison import Comparison, Tried
from onebase.base.folder import save_base
from onebase.data import Rows, read_rows
from onebase.errors import DataError, UserError
from onebase.evaluation.bootstrap import mean_score
from onebase.evaluation.energy import Usage
from onebase.evaluation.gate import System
from onebase.evaluation.paired import mean_sums
from onebase.evaluation.predictions import Labels
from onebase.methods.folder import load_adapter
from tests.assess.test_rivals import many, numbers, spans
from tests.helpers import tiny_base
from tests.pages import Page
from tests.pictures import digits, sighted
from tests.pretrained import onebase as command
from tests.tasks.test_evaluating import bag_of_words

KNOWN, TEST = bag_of_words(24, 0), bag_of_words(60, 1)
"""Fewer rows of a label in a fold than classical systems choose the strength of their penalty by: that takes seconds."""


@pytest.fixture(scope="module")
def base() -> Base:
    return Base(tiny_base(context=128))


@pytest.fixture(scope="module")
def found(base: Base) -> Comparison:
    return onebase.compare([base], KNOWN, TEST, epochs=1, batch_size=16, minutes=30)


def test_every_candidate_is_tried_and_the_best_held_out_is_chosen(found: Comparison) -> None:
    assert {t.name for t in found.tried} == {
        "TF-IDF + logistic regression",
        "nearest neighbour",
        *(f"{m} on base" for m in ("prompt", "head", "contrast", "lora", "full")),
    }
    assert all(t.folds == 5 and t.seconds > 0 and t.ms_per_item > 0 for t in found.tried)
    chosen = max(found.tried, key=lambda t: t.held_out)
    assert found.chosen == chosen.name and chosen.classical, "words alone decide here"
    assert all(t.system.shared > 0 for t in found.tried if not t.classical)
    assert found.test_rows == 60 and found.rows == 24 and found.better == "higher"
    assert found.answer == "no" and found.line.endswith("; ship that.")
    assert found.line.startswith(f"No: {found.chosen} is better than ")
    lines = found.table.splitlines()
    assert len(lines) == 8 and "accuracy (95%)" in lines[0]
    assert [x for x in lines if x.startswith("*")] == [x for x in lines if found.chosen in x]


def test_the_kept_adapter_is_the_best_of_the_bases_and_answers_as_the_table_says(
    base: Base, found: Comparison
) -> None:
    ours = max((t for t in found.tried if not t.classical), key=lambda t: t.held_out)
    assert found.adapter is not None
    assert found.adapter.method == {"contrast": "lora"}.get(ours.method, ours.method)
    again = onebase.evaluate(base.with_adapter(found.adapter), TEST)["accuracy"]
    assert again == ours.system.score
    record = found.adapter.record
    origins = {e.field: e.origin for e in record.events}
    assert origins["method"] == origins["task"] == "chosen by onebase compare"
    assert origins["config.options.epochs"] == "stated by the user"
    assert record.get("compare")["held_out"] == ours.held_out and record.get("compare")["folds"] == 5
    assert record.get("scores.accuracy")["value"] == again.value


def test_the_choice_does_not_look_at_the_test_rows(base: Base) -> None:
    """Test rows whose labels are all wrong change no choice, only what is reported."""
    wrong = [{**r, "label": {"colour": "metal", "metal": "colour"}[r["label"]]} for r in TEST]
    given: dict[str, Any] = {"methods": ["classical", "head"], "minutes": 5}
    right, other = (onebase.compare([base], KNOWN, test, **given) for test in (TEST, wrong))
    assert right.chosen == other.chosen
    assert [t.held_out for t in right.tried] == [t.held_out for t in other.tried]
    assert right.tried[0].system.score.value == pytest.approx(1 - other.tried[0].system.score.value)


@pytest.mark.parametrize(
    ("make", "task", "score"),
    [(many, "classify", "micro_f1"), (numbers, "regress", "mae"), (spans, "tag", "span_f1")],
)
def test_tasks_are_known_by_their_columns(base: Base, make: Any, task: str, score: str) -> None:
    found = onebase.compare([base], make(40, 0), make(30, 1), methods=["classical", "head"], minutes=5)
    assert (found.task, found.metric) == (task, score)
    assert {t.method for t in found.tried} == {"classical", "head"}
    one = found.tried[-1]
    chosen = next(t for t in found.tried if t.name == found.chosen)
    assert chosen.held_out <= one.held_out if one.lower else chosen.held_out >= one.held_out
    assert one.lower == (score == "mae")


def test_pictures(tmp_path: Path) -> None:
    seeing = onebase.load(sighted(tmp_path / "base"))
    rows = digits(tmp_path / "files", 6)
    file = tmp_path / "files" / "rows.jsonl"
    parts = []
    for name, first in (("train", True), ("test", False)):
        parts.append(tmp_path / "files" / f"{name}.jsonl")
        kept = [r for i, r in enumerate(rows) if (i % 3 > 0) == first]
        parts[-1].write_text("".join(json.dumps(r) + "\n" for r in kept))
    found = onebase.compare([seeing], *parts, methods=["classical", "head", "prompt"], minutes=5)
    assert {t.name for t in found.tried} == {"pixels + logistic regression", "head on sighted"}
    assert [u.name for u in found.untried] == ["prompt on sighted"]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(DataError, match="20 of 20 test rows are among the training rows"):
        onebase.compare([seeing], file, parts[1])
    with pytest.raises(UserError, match="base cannot be adapted to task classify with these rows"):
        onebase.compare([Base(tiny_base())], *parts)


def test_a_task_without_classical_systems_compares_methods(base: Base) -> None:
    rows = [{"prompt": f"{r['text']}:", "completion": f" {r['label']}"} for r in (*KNOWN, *TEST)]
    found = onebase.compare([base], rows[:24], rows[24:], methods=["lora", "full"], epochs=1, minutes=10)
    assert (found.task, found.metric, found.better) == ("complete", "nats_per_token", "lower")
    assert {t.method for t in found.tried} == {"lora", "full"}
    assert found.line.lower().startswith(found.answer) and " on base" in found.line


def tried(name: str, folds: list[float], method: str = "head", lower: bool = False) -> Tried:
    each = np.ones(30)
    system = System(name, mean_score("accuracy", each), mean_sums(each), 1.0, 10, 0, Usage(0.3))
    return Tried(name, method, system, tuple(mean_sums([x, x]) for x in folds), 2.0, lower)


def test_two_are_compared_on_the_folds_that_both_were_judged_on() -> None:
    cheap = tried("cheap", [0.5, 0.9, 0.9])
    assert best([cheap, tried("dear", [0.6])]).name == "dear"  # type: ignore[union-attr]
    assert best([cheap, tried("dear", [0.5])]).name == "cheap"  # type: ignore[union-attr]
    assert best([cheap, tried("dear", [0.4])]).name == "cheap"  # type: ignore[union-attr]
    less = [tried("a", [2.0], lower=True), tried("b", [1.0], lower=True)]
    assert best(less).name == "b"  # type: ignore[union-attr]
    assert best([]) is None


def candidate(name: str, seconds: float, method: str = "lora") -> Candidate:
    return Candidate(name, method, seconds, lambda numbers: pytest.fail("nothing is learnt here"))


def test_time_goes_to_one_fold_of_many_before_more_folds_of_few() -> None:
    found = [candidate("a", 1.0), candidate("b", 10.0), candidate("c", 50.0)]
    folds, late = allotted(found, 125.0)  # one fold of each takes 121
    assert [folds[c] for c in found] == [5, 1, 1] and not late
    folds, late = allotted(found, 110.0)
    assert {c.name: n for c, n in folds.items()} == {"a": 5, "b": 5}
    assert [(u.name, u.seconds) for u in late] == [("c", pytest.approx(needed(50.0, 1)))]
    folds, late = allotted(found, 1.0)
    assert not folds and len(late) == 3
    classical = candidate("t", 0.0, "classical")
    assert allotted([classical], 0.0)[0] == {classical: 5}


def test_what_does_not_fit_the_time_is_listed_with_its_estimate(base: Base) -> None:
    found = onebase.compare(
        [base], KNOWN, TEST, minutes=0.05, epochs=4000, methods=["classical", "head", "lora"]
    )
    late = {u.name: u for u in found.untried}
    assert late["lora on base"].seconds is not None and late["lora on base"].seconds > 3
    assert all(t.classical or t.method == "head" for t in found.tried) and found.tried[0].classical
    assert "not tried: lora on base: " in found.table


@pytest.mark.parametrize(("left", "folds"), [(1e9, 5), (0.0, 1)])
def test_a_fold_is_judged_by_what_learnt_without_it(left: float, folds: int) -> None:
    asked = comparison_data(KNOWN, TEST, methods=["classical"])
    learnt: list[list[int]] = []
    judged: list[list[str]] = []

    def train(indices: Sequence[int]) -> Trained:
        learnt.append(list(indices))

        def said(rows: Any) -> Labels:
            judged.append([r["text"] for r in rows])
            truth = [r["label"] for r in rows]
            return Labels(truth, truth, np.ones((len(truth), 2)), np.ones((len(truth), 2)))

        return Trained(said, 0.0, 1)

    one, _ = _tried(Candidate("x", "classical", 0.0, train), 5, asked, lambda: left)
    assert one.folds == folds and len(learnt) == folds + 1
    for some, texts in zip(learnt[:-1], judged[:-1], strict=True):
        assert {KNOWN[i]["text"] for i in some} | set(texts) == {r["text"] for r in KNOWN}
        assert not {KNOWN[i]["text"] for i in some} & set(texts)
    assert learnt[-1] == list(range(len(KNOWN))) and judged[-1] == [r["text"] for r in TEST]


def labelled(*labels: str) -> Rows:
    return read_rows([{"text": f"text {i}", "label": x} for i, x in enumerate(labels)])


def test_folds_hold_each_labels_share_and_no_label_is_out_of_reach() -> None:
    rows = labelled(*["a"] * 50, *["b"] * 20, *["c"] * 2, "d")
    folds = folds_of(rows, 0, ("text",))
    for f in range(5):
        held = [rows[i]["label"] for i in range(len(rows)) if folds[i] == f]
        assert (held.count("a"), held.count("b")) == (10, 4)
    assert folds[-1] == -1, "a label with one row is always learnt from"
    assert folds[70] != folds[71]
    assert folds == folds_of(rows, 0, ("text",)) != folds_of(rows, 1, ("text",))
    same = read_rows([{"text": f"text {i // 2}", "label": "ab"[i // 2 % 2]} for i in range(40)])
    twins = folds_of(same, 0, ("text",))
    assert all(twins[i] == twins[i + 1] for i in range(0, 40, 2)), "the same text is on one side"
    both = read_rows(
        [{"text": f"t {i}", "labels": ["x", "yz"[i % 2]] + ["w"] * (i < 2)} for i in range(30)], ()
    )
    parts = folds_of(both, 0, ("text",))
    for label in "xyzw":
        assert len({p for p, r in zip(parts, both, strict=True) if label in r["labels"]}) > 1 or label == "w"
    with pytest.raises(DataError, match="too few"):
        folds_of(labelled(*"abababab"), 0, ("text",))


def test_answers_are_made_of_names() -> None:
    assert answers_of(["not_spam", "spam"]) == {"not_spam": " not spam", "spam": " spam"}
    with pytest.raises(UserError, match="'1' has no letters"):
        answers_of(["1", "2"])
    with pytest.raises(UserError, match="same name"):
        answers_of(["a_b", "a b"])


def test_a_base_that_does_not_write_is_not_prompted(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = tiny_base()
    reads.model.trunk.cfg = __import__("dataclasses").replace(reads.model.trunk.cfg, direction="both")
    found = onebase.compare([Base(reads)], KNOWN, TEST, methods=["prompt", "head"], minutes=5)
    assert [t.method for t in found.tried] == ["head"]
    (prompt,) = found.untried
    assert "predicts no next token" in prompt.why
    assert found.line.startswith("Cannot tell: only head on base was tried")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "test rows among train rows": (
        {"test": [*TEST[:5], KNOWN[3]]},
        "1 of 6 test rows are among .*first row 6",
    ),
    "one label": ({"data": [{**r, "label": "x"} for r in KNOWN]}, "all 24 training rows have the label 'x'"),
    "a label of the test alone": (
        {"test": [{"text": "z", "label": "gold"}]},
        "labels seen only in the test rows: 'gold'",
    ),
    "no such base": ({"bases": ["nowhere/base"]}, "nowhere/base"),
    "no base": ({"bases": []}, "bases is not a list of bases"),
    "no task": (
        {"data": [{"text": "a"}], "test": [{"text": "b"}]},
        "task cannot be inferred from the columns",
    ),
    "not compared": ({"task": "reinforce"}, "'reinforce' cannot be compared"),
    "no method": ({"methods": ["lorra"]}, "does not support method 'lorra'"),
    "refused method": ({"task": "regress", "methods": ["prompt"]}, "a prompt gives probabilities of answers"),
    "no option": ({"epoch": 3}, "epoch"),
    "no time": ({"minutes": 0}, "minutes is 0"),
    "no time to speak of": ({"minutes": math.inf}, "minutes is inf"),
    "too few": ({"data": KNOWN[:8]}, "8 training rows are too few"),
    "no column": ({"data": [{"text": "a", "value": 1.0}] * 20, "task": "classify"}, "label"),
    "no file": ({"data": "nowhere.jsonl"}, "nowhere.jsonl"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_before_any_base_is_opened(
    what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    save_base(tmp_path / "base", tiny_base())
    monkeypatch.setattr(
        "onebase.assess.comparing.open_base", lambda *a, **k: pytest.fail("a base was opened")
    )
    more, says = REFUSED[what]
    given = {"bases": [tmp_path / "base"], "data": KNOWN, "test": TEST, **more}
    with pytest.raises(UserError, match=says):
        onebase.compare(given.pop("bases"), given.pop("data"), given.pop("test"), **given)


def test_a_shared_test_row_may_be_allowed() -> None:
    assert (
        comparison_data(KNOWN, [*TEST, KNOWN[0]], options={"allow": ["test-in-train"]}).tested.places[-1]
        == "row 61"
    )


def test_the_page_has_the_table_first_and_shows_hostile_names() -> None:
    bad = "</table><script>alert(1)</script>"
    shown = Comparison(
        "classify",
        50,
        (tried("TF-IDF", [0.5], "classical"), tried(f"head on {bad}", [0.7])),
        (Untried("full on x", "about 900 s more than there are", 900.0),),
        f"head on {bad}",
        "cannot tell",
        "Cannot tell with 30 test rows: the difference is 0.01; about 900 would.",
        12.0,
    )
    page = Page(text := shown.page())
    assert "script" not in page.tags and page.loads == []
    assert text.index("<table") < text.index("<svg") and text.index("<table") < text.index(
        'class="pill unsure"'
    )
    flat = " ".join(page.text.split())
    assert "Cannot tell With 30 test rows: the difference" in flat and "full on x: about 900 s" in flat
    assert f"head on {bad} chosen" in flat and "10.0" not in flat and "10" in flat


def test_the_command(tmp_path: Path) -> None:
    save_base(tmp_path / "base", tiny_base())
    for name, rows in (("train", KNOWN), ("test", TEST)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    words = (
        "compare",
        tmp_path / "base",
        "--data",
        tmp_path / "train.jsonl",
        "--test",
        tmp_path / "test.jsonl",
    )
    some = ("--method", "classical", "--method", "head", "--minutes", "5", "--device", "cpu")
    done = command(*words, *some, "--save", tmp_path / "best", "--report", tmp_path / "page.html")
    assert done.status == 0, done.err
    assert "candidate" in done.out and "\nNo: " in done.out and f"adapter: {tmp_path / 'best'}" in done.out
    assert "head on base: about" in done.err
    record = load_adapter(tmp_path / "best").record
    assert [f["name"] for f in record.get("data.files")] == ["train.jsonl"]
    assert [f["name"] for f in record.get("test.data.files")] == ["test.jsonl"]
    asked = command("apply", tmp_path / "base", "--adapter", tmp_path / "best", "red of and some near far")
    assert asked.status == 0 and asked.out.startswith(("colour", "metal"))
    assert "chosen" in (tmp_path / "page.html").read_text()
    facts = json.loads(command(*words, *some, "--json").out)
    assert "TF-IDF" in facts["chosen"] + facts["candidates"][0]["name"] and len(facts["candidates"]) == 3
    again = command(*words, *some, "--save", tmp_path / "best")
    assert again.status == 1 and "--save" in again.err and "already exists" in again.err
    nowhere = command(*words, *some, "--report", tmp_path / "none" / "page.html")
    assert nowhere.status == 1 and "there is no folder" in nowhere.err
