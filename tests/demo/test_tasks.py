import ast
import bisect
import re
from collections import Counter
from pathlib import Path

import pytest

from onebase.demo import sources, tasks
from onebase.demo.corpus import Corpus
from onebase.demo.corpus import corpus as made_corpus
from onebase.demo.library import functions_of, modules, reference
from onebase.demo.sources import chats, exchanges, share
from onebase.errors import UserError
from onebase.evaluation.baselines import MajorityClass, TfidfLogistic
from onebase.evaluation.metrics import accuracy


def squeeze(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.lower())


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return made_corpus()


def test_sources_are_what_the_packages_hold() -> None:
    assert len(chats()) == 4016 and len(exchanges()) == 898
    assert len(modules()) > 250 and len(functions_of(modules())) > 2500
    for name in ("code", "prose"):
        ids = [d.id for m in modules() for d in getattr(m, name)]
        assert len(ids) == len(set(ids))
    for chat in chats():
        for turn in chat.turns:
            assert turn and all("\n" not in m and m for m in turn)


def test_code_documents_rebuild_their_module() -> None:
    module = next(m for m in modules() if m.name == "bisect")
    assert "".join(d.text for d in module.code) == Path(str(bisect.__file__)).read_text(encoding="utf-8")


def test_functions_have_lost_their_docstring_and_nothing_else() -> None:
    for f in functions_of(modules())[::20]:
        node = ast.parse(f.source).body[0]
        assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(node) is None
        assert 40 <= len(f.source) <= 700 and 10 <= len(f.summary) <= 200


def test_corpus_keeps_its_budget_and_its_licences(corpus: Corpus) -> None:
    size: Counter[str] = Counter()
    for d in corpus.pretrain:
        size[d.source] += len(d.text)
        assert d.licence in ("MIT", "PSF-2.0") and d.meta["split"] == "train"
    assert 6.9e6 < size["dialogue"] <= 7e6 and 3e6 < size["code"] <= 7e6 and 1e6 < size["prose"] <= 1.5e6
    ids = [d.id for d in corpus.documents()]
    assert len(ids) == len(set(ids))
    assert {d.source for d in corpus.held_out} == set(size) and all(
        d.meta["split"] == "holdout" for d in corpus.held_out
    )
    small = made_corpus(dialogue_chars=100_000, code_chars=0, prose_chars=0)
    assert {d.source for d in small.pretrain} == {"dialogue"}
    assert sum(len(d.text) for d in small.pretrain) <= 100_000


def test_no_test_example_was_read(corpus: Corpus) -> None:
    spoken = {
        squeeze(line[2:]) for d in corpus.pretrain if d.source == "dialogue" for line in d.text.splitlines()
    }
    task = tasks.question()
    for e in (*task.test, *(e for k in task.draws for e in task.draws[k])):
        assert squeeze(e.text) not in spoken
    read = {d.meta["module"] for d in corpus.pretrain if "module" in d.meta}
    everything = squeeze("\n".join(d.text for d in corpus.pretrain if d.source == "code"))
    for e in tasks.docstring().test:
        assert not any(e.id.startswith(name + ".") for name in read if "." not in name)
        assert squeeze(e.text) not in everything and squeeze(e.target) not in everything
    texts = {d.text for d in corpus.pretrain}
    assert not texts & {e.prompt for e in tasks.topic().test}


@pytest.mark.parametrize("name", ["question", "docstring", "topic"])
def test_train_and_test_are_apart_and_fixed(name: str) -> None:
    make = getattr(tasks, name)
    task = make(0)
    train = {squeeze(e.text) for k in task.draws for e in task.draws[k]}
    assert not train & {squeeze(e.text) for e in task.test}
    make.cache_clear()
    assert make(0) == task
    assert make(1).test != task.test


def test_question_is_balanced_and_asks_for_the_mark() -> None:
    task = tasks.question()
    assert len(task.test) == 1200 and set(Counter(e.target for e in task.test).values()) == {600}
    for e in task.test:
        assert e.prompt.endswith(e.text) and e.prompt.startswith(("- ", "  ")) and e.text[-1] not in "?."
        assert len(e.prompt) <= 400 + len(e.text)
    messages = {m for c in chats() for turn in c.turns for m in turn}
    for e in task.test[:100]:
        mark = tasks.MARKS[e.target]
        assert e.text + mark in messages or f"{e.text} {mark}" in messages
    for size in task.sizes:
        for seed in range(task.seeds):
            draw = task.train(size, seed)
            assert Counter(e.target for e in draw) == dict.fromkeys(task.labels, size)
    assert set(task.train(10, 0)) <= set(task.train(50, 0))
    assert len(set(task.unlabelled)) == 200 and not set(task.unlabelled) & {e.prompt for e in task.test}
    label = {e.prompt: e.target for k in task.draws for e in task.draws[k]}
    found = Counter(label[p] for p in task.unlabelled if p in label)
    assert found["question"] != found["statement"]  # drawn whatever their label, not balanced by it
    with pytest.raises(UserError, match="no draw of size 7"):
        task.train(7)


def test_docstring_and_topic_have_the_promised_sizes() -> None:
    doc, top = tasks.docstring(), tasks.topic()
    assert len(doc.test) >= 300 and 2000 <= len(doc.train()) <= 2500
    assert len(top.labels) == 15 and {e.target for e in top.test} == set(top.labels) and len(top.test) > 200
    assert Counter(e.target for e in top.train(5, 3)) == dict.fromkeys(top.labels, 5)
    assert max(Counter(e.target for e in top.train(20)).values()) == 20


def test_classical_baseline_reaches_what_it_is_known_for() -> None:
    task = tasks.question()
    train, gold = task.train(50), [e.target for e in task.test]
    system = TfidfLogistic().fit([e.text for e in train], [e.target for e in train])
    reached = accuracy(gold, system.predict([e.text for e in task.test]))
    assert reached.low > 0.7 and reached.high < 0.87
    dull = MajorityClass().fit([e.text for e in train], [e.target for e in train])
    assert accuracy(gold, dull.predict(gold)).value == 0.5


def test_share_is_even_and_depends_on_the_seed() -> None:
    values = [share(0, str(i)) for i in range(2000)]
    assert 0.47 < sum(values) / 2000 < 0.53 and min(values) >= 0 and max(values) < 1
    assert share(1, "0") != share(0, "0") == share(0, "0")


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ("  so how\n are you? ", "so how are you?"),
        ("write to me at a.b@c.org", ""),
        ("call 801 555-12345", ""),
        ("a a a a a a a a", ""),
        ("??!!!", ""),
        ("?", "?"),
        ("look: https://example.org/" + "x" * 60, "look: https://example.org/" + "x" * 60),
        ("h" * 50, ""),
    ],
)
def test_cleaning(message: str, kept: str) -> None:
    assert sources._clean(message) == kept


def test_reference_is_prose() -> None:
    assert all(d.source == "prose" and d.text for d in reference())


@pytest.mark.parametrize("reader", [chats, exchanges])
def test_missing_package_names_the_extra(reader, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError) as e:
        reader.__wrapped__()
    assert e.value.remedy == 'pip install "onebase[demo]"'
