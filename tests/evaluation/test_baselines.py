import importlib

import numpy as np
import pytest

from onebase.errors import DataError, UserError
from onebase.evaluation import baselines
from onebase.evaluation.baselines import MajorityClass, NameWords, NearestNeighbour, TfidfLogistic

TEXTS = [f"{w} {i}" for i in range(12) for w in ("the red apple", "a blue car", "one green tree")]
LABELS = ["fruit", "machine", "plant"] * 12


@pytest.mark.parametrize("system", [TfidfLogistic, NearestNeighbour])
def test_learns_what_is_plain_and_measures_its_cost(
    system: type[TfidfLogistic] | type[NearestNeighbour],
) -> None:
    s = system().fit(TEXTS, LABELS)
    assert s.predict(["red apple", "my car", "a tree"]) == ["fruit", "machine", "plant"]
    assert s.seconds > 0 and s.size > 100
    assert s.predict([]) == []


def test_logistic_scores_are_those_of_sklearn() -> None:
    for labels in (LABELS, ["fruit" if x == "fruit" else "other" for x in LABELS]):
        s = TfidfLogistic().fit(TEXTS, labels)
        p = s.scores(["red car", "green apple"])
        assert p.shape == (2, len(set(labels))) and p.sum(1) == pytest.approx(np.ones(2))
        x = s._vectors.transform(TEXTS)
        peer = (
            baselines.sklearn("linear_model")
            .LogisticRegression(C=s.chosen_c, solver="newton-cg")
            .fit(x, labels)
        )
        theirs = peer.predict_proba(s._vectors.transform(["red car", "green apple"]))
        assert p == pytest.approx(theirs, abs=1e-3)


def test_c_is_chosen_only_with_enough_labels() -> None:
    rng = np.random.default_rng(0)
    noisy = [str(rng.integers(2)) for _ in TEXTS]
    assert TfidfLogistic().fit(TEXTS[:6], LABELS[:6]).chosen_c == 10.0
    assert TfidfLogistic().fit(TEXTS, noisy).chosen_c in baselines._GRID


def test_one_class_only() -> None:
    s = TfidfLogistic().fit(["a", "b"], ["x", "x"])
    assert s.predict(["c"]) == ["x"]


def test_nearest_neighbour_returns_texts_too() -> None:
    s = NearestNeighbour().fit(["def add(a, b)", "def read(path)"], ["Add two.", "Read a file."])
    assert s.predict(["def read_all(path)"]) == ["Read a file."]


def test_majority_and_ties() -> None:
    assert MajorityClass().fit(["", "", ""], ["b", "a", "b"]).predict(["x", "y"]) == ["b", "b"]
    assert MajorityClass().fit(["", ""], ["b", "a"]).predict(["x"]) == ["a"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def read_next_row(self):\n    ...", "Read next row."),
        ("async def getHTTPResponse(x):", "Get http response."),
        ("def __init_2d__(x):", "Init 2 d."),
        ("lambda x: x", ""),
    ],
)
def test_name_words(source: str, words: str) -> None:
    assert NameWords().fit([], []).predict([source]) == [words]


def test_name_words_learn_their_opening() -> None:
    sources = [f"def {n}(self):\n    return self._{n}" for n in ("width", "height", "full_name")]
    s = NameWords().fit(sources, ["Return the width.", "Return the height.", "Return the full name."])
    assert s.predict(["def depth(self): ..."]) == ["Return the depth."] and s.size == len("Return the")


def test_bad_training_data() -> None:
    for system in (TfidfLogistic(), NearestNeighbour(), MajorityClass()):
        with pytest.raises(DataError):
            system.fit([], [])
        with pytest.raises(DataError, match="2 texts and 1 labels"):
            system.fit(["a", "b"], ["x"])


def test_missing_sklearn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name="sklearn")

    monkeypatch.setattr(importlib, "import_module", gone)
    with pytest.raises(UserError) as e:
        TfidfLogistic()
    assert e.value.remedy == 'pip install "onebase[eval]"'
