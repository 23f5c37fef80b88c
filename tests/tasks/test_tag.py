"""Task tag: spans become tags of tokens and come back as they were, and what is no span is refused with its row."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onebase
from onebase.api.base import Adapter, Base
from onebase.base.folder import load_base, save_base
from onebase.errors import DataError, UserError
from onebase.methods.spans import Span, placed, spans_of, tags_of
from tests.helpers import tiny_base

TOKENIZER = tiny_base().codec.tokenizer
WORDS = ("fox", "Köln", "中文", "😀", "café", "dog.", "Is", "(a,")


def row(text: str, *marked: tuple[str, str]) -> dict[str, Any]:
    spans = [{"start": text.index(w), "end": text.index(w) + len(w), "label": k} for w, k in marked]
    return {"text": text, "spans": spans}


# The word after "Go" is what is wanted: a decoder's token knows what stands before it alone.
ROWS = [
    row(text, (word, "to"))
    for word in ("Köln", "Bonn", "fox", "café", "home", "中文")
    for text in (f"Is it so? Go {word}.", f"Go {word}")
] + [row("It is so."), row("No.")]
# What a random base tells at once: which token it is.
STOPS = [row(r["text"], *[(".", "stop")] * ("." in r["text"])) for r in ROWS]
LEARN: dict[str, dict[str, Any]] = {
    "head": {"data": STOPS},
    "lora": {"data": ROWS, "epochs": 60, "batch_size": 7, "lr": 0.01},
    "full": {"data": ROWS, "epochs": 60, "batch_size": 7, "lr": 0.003},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    path = tmp_path_factory.mktemp("bases") / "base"
    save_base(path, tiny_base())
    return Base(load_base(path))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(["a", "b", ""])), min_size=1, max_size=8))
def test_spans_of_words_come_back_as_they_were(words: list[tuple[str, str]]) -> None:
    text, spans = "", []
    for word, label in words:
        text += " " if text else ""
        if label:
            spans.append(Span(len(text), len(text) + len(word), label))
        text += word
    places = placed(TOKENIZER, text).places
    assert len(places) == len(TOKENIZER.encode(text))
    tags, flaw = tags_of(spans, places, ("a", "b"), text)
    assert flaw is None
    assert spans_of(tags, places, ("a", "b"), text) == spans


def test_a_token_that_is_partly_in_a_span_belongs_to_it() -> None:
    text = "The quick"
    assert (3, 6) in placed(TOKENIZER, text).places  # " qu"
    places = [(0, 2), (2, 3), (3, 6), (6, 7), (7, 9)]
    tags, flaw = tags_of([Span(5, 7, "a")], places, ("a",), text)
    assert (tags, flaw) == ([0, 0, 1, 2, 0], None)
    assert spans_of(tags, places, ("a",), text) == [Span(4, 7, "a")]
    assert tags_of([Span(4, 5, "a"), Span(5, 6, "a")], places, ("a",), text)[1] is not None
    # An inside tag without a beginning, or of another label, begins a span.
    assert spans_of([2, 4, 2, 0, 2], places, ("a", "b"), text) == [
        Span(0, 2, "a"),
        Span(2, 3, "b"),
        Span(4, 6, "a"),
        Span(7, 9, "a"),
    ]


@pytest.mark.parametrize("method", LEARN)
def test_a_base_learns_to_tag(base: Base, method: str, tmp_path: Path) -> None:
    options = dict(LEARN[method])
    rows = options.pop("data")
    adapter = base.adapt(rows, task="tag", method=method, **options)
    on = base.with_adapter(adapter)
    scores = onebase.evaluate(on, rows)
    assert scores.keys() == {"span_precision", "span_recall", "span_f1"}
    assert scores["span_f1"].value > 0.9, scores
    assert scores["span_f1"].low <= scores["span_f1"].value <= scores["span_f1"].high
    texts = [r["text"] for r in rows]
    found = on.tag(texts)
    assert Base(base.loaded).with_adapter(adapter.save(tmp_path / "a")).tag(texts) == found
    assert Adapter.load(tmp_path / "a").fingerprint == adapter.fingerprint
    assert all(0 <= s.start < s.end <= len(t) for t, each in zip(texts, found, strict=True) for s in each)
    assert adapter.record.get("data.spans") == sum(len(r["spans"]) for r in rows)
    assert on.tag([]) == []


@pytest.mark.parametrize(
    ("spans", "says"),
    [
        ([(0, 99, "a")], "is not in the text of 12 characters"),
        ([(-1, 2, "a")], "is not in the text"),
        ([(3, 3, "a")], "is not in the text"),
        ([(2, 3, "a")], "is only white space"),
        ([(0, 5, "a"), (3, 8, "b")], "overlaps the one before it"),
        ([(0, 2.0, "a")], "is not a span"),
        ([(0, 2, "")], "is not a span"),
        ([(True, 2, "a")], "is not a span"),
    ],
)
def test_what_is_no_span_is_refused_with_its_row(base: Base, spans: list[Any], says: str) -> None:
    bad = {
        "text": "Go Köln, fox",
        "spans": [dict(zip(("start", "end", "label"), s, strict=True)) for s in spans],
    }
    with pytest.raises(DataError, match=f"row 3: .*{says}"):
        base.adapt([*ROWS[:2], bad], task="tag", method="head")


def test_mistakes(base: Base) -> None:
    with pytest.raises(DataError, match="row 15: 'spans' is missing"):
        base.adapt([*ROWS, {"text": "x"}], task="tag", method="head")
    with pytest.raises(DataError, match="'spans' is str"):
        base.adapt([{"text": "x", "spans": "0-1"}], task="tag", method="head")
    with pytest.raises(DataError, match="none of the 2 rows has a span"):
        base.adapt(ROWS[-2:], task="tag", method="lora")
    with pytest.raises(DataError, match="shares a token with another"):
        bad = {"text": "Go quick", "spans": [{"start": i, "end": i + 1, "label": "x"} for i in (3, 4)]}
        base.adapt([*ROWS, bad], task="tag", method="head")
    with pytest.raises(DataError, match="(?s)2 of .*'spans' is str.*shares a token with another"):
        base.adapt([*ROWS, {"text": "x", "spans": "0-1"}, bad], task="tag", method="head")
    with pytest.raises(UserError, match="not positions in a text"):
        base.adapt(ROWS, task="tag", method="prompt")
    with pytest.raises(UserError, match="no adapter that tags"):
        base.tag(["x"])
    on = base.with_adapter(base.adapt(ROWS, task="tag", method="head", long="refuse"))
    with pytest.raises(DataError, match="the limit is"):
        on.tag(["x y " * 99])
    with pytest.raises(DataError, match="no text has a span"):
        onebase.evaluate(on, ROWS[-2:])
