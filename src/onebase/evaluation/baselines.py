"""Small classical systems that a base must beat to be worth its cost.

Each has `fit` and `predict`, and measures its costs: `seconds` (fit and predict together) and `size` (bytes of the numbers and
words that must be shipped to use it elsewhere). scikit-learn comes with the extra `eval` and is imported when needed.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from onebase.errors import DataError, UserError
from onebase.evaluation.metrics import rouge_l_each
from onebase.evaluation.ngram import NGram
from onebase.evaluation.words import inside

__all__ = ["Baseline", "MajorityClass", "NGram", "NameWords", "NearestNeighbour", "TfidfLogistic", "sklearn"]

_GRID = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_DEFAULT_C = 10.0  # with too few labels for cross-validation: little shrinkage suits unit-length TF-IDF rows


class Baseline(Protocol):
    """Interface of a classical system."""

    name: str
    seconds: float

    @property
    def size(self) -> int: ...
    def fit(self, texts: Sequence[str], targets: Sequence[str]) -> Self: ...
    def predict(self, texts: Sequence[str]) -> list[str]: ...


class _Timed:
    name = ""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextlib.contextmanager
    def _clock(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start


class TfidfLogistic(_Timed):
    """Logistic regression on TF-IDF of words (1-2 grams) and characters (2-5 grams within words).

    C is chosen by cross-validation on the training labels if every class has at least `min_labels` of them, otherwise it is
    10; `chosen_c` is the result.
    """

    name = "TF-IDF + logistic regression"

    def __init__(self, *, min_labels: int = 10, folds: int = 3, seed: int = 0) -> None:
        super().__init__()
        self.min_labels, self.folds, self.seed = min_labels, folds, seed
        self.chosen_c = _DEFAULT_C
        self.labels: list[str] = []
        self._vectors = vectorizer()
        self._coefficients: NDArray[np.float32] | None = None  # [classes (1 for two), features]
        self._intercept = np.zeros(1, dtype=np.float32)

    def fit(self, texts: Sequence[str], targets: Sequence[str]) -> Self:
        """Fit on texts [n] with their labels [n]. Raises DataError for no data, UserError without scikit-learn."""
        _check(texts, targets)
        linear, selection = sklearn("linear_model"), sklearn("model_selection")
        with self._clock():
            counts = Counter(targets)
            self.labels = sorted(counts)
            x = self._vectors.fit_transform(texts)
            if len(counts) == 1:
                self._coefficients = None
                return self

            def model(
                c: float,
            ) -> Any:  # newton-cg: ten times faster than the default for few rows with many columns
                return linear.LogisticRegression(C=c, max_iter=100, solver="newton-cg")

            if min(counts.values()) >= self.min_labels:
                splits = selection.StratifiedKFold(self.folds, shuffle=True, random_state=self.seed)
                scores = [
                    float(np.mean(selection.cross_val_score(model(c), x, list(targets), cv=splits)))
                    for c in _GRID
                ]
                self.chosen_c = _GRID[int(np.argmax(scores))]
            fitted = model(self.chosen_c).fit(x, list(targets))
            self.labels = [str(c) for c in fitted.classes_]
            self._coefficients = np.asarray(fitted.coef_, dtype=np.float32)
            self._intercept = np.asarray(fitted.intercept_, dtype=np.float32)
        return self

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The likeliest label of each text."""
        return [self.labels[i] for i in self.scores(texts).argmax(1)]

    def scores(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probabilities, float64 [n, labels], in the order of `labels`."""
        with self._clock():
            if self._coefficients is None or not texts:
                return np.ones((len(texts), max(len(self.labels), 1)))
            logits = np.asarray(
                self._vectors.transform(texts) @ self._coefficients.T + self._intercept, np.float64
            )
            if logits.shape[1] == 1:  # two classes share one row of coefficients
                logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
            odds = np.exp(logits - logits.max(1, keepdims=True))
            return np.asarray(odds / odds.sum(1, keepdims=True))

    @property
    def size(self) -> int:
        weights = 0 if self._coefficients is None else self._coefficients.nbytes + self._intercept.nbytes
        return weights + vectors_size(self._vectors)


class NearestNeighbour(_Timed):
    """The target (label or text) of the training text with the highest TF-IDF cosine."""

    name = "nearest neighbour"

    def __init__(self) -> None:
        super().__init__()
        self._vectors = vectorizer()
        self._rows: Any = None
        self._targets: list[str] = []

    def fit(self, texts: Sequence[str], targets: Sequence[str]) -> Self:
        """Store texts [n] and their targets [n]. Raises DataError for no data, UserError without scikit-learn."""
        _check(texts, targets)
        with self._clock():
            self._rows = self._vectors.fit_transform(texts)
            self._targets = list(targets)
        return self

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The nearest training text's target; the first on a tie."""
        with self._clock():
            if not texts:
                return []
            # Rows have unit length in each half (words, characters), so the product ranks like the cosine.
            near = (self._vectors.transform(texts) @ self._rows.T).toarray().argmax(1)
            return [self._targets[i] for i in near]

    @property
    def size(self) -> int:
        rows = (
            0
            if self._rows is None
            else self._rows.data.nbytes + self._rows.indices.nbytes + self._rows.indptr.nbytes
        )
        return int(rows) + vectors_size(self._vectors) + sum(len(t.encode()) for t in self._targets)


class MajorityClass(_Timed):
    """Predicts the most frequent training label for every text."""

    name = "majority class"

    def __init__(self) -> None:
        super().__init__()
        self._label = ""

    def fit(self, texts: Sequence[str], targets: Sequence[str]) -> Self:
        """Count the labels [n]; ties go to the first in alphabetical order."""
        _check(texts, targets)
        with self._clock():
            self._label = min(Counter(targets).items(), key=lambda kv: (-kv[1], kv[0]))[0]
        return self

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The same label for each text."""
        with self._clock():
            return [self._label] * len(texts)

    @property
    def size(self) -> int:
        return len(self._label.encode())


class NameWords(_Timed):
    """The words of a function's name as its docstring: "def read_next_row(" -> "Read next row.".

    Fitting chooses one thing: the opening, if any, to put before them ("Return the read next row.") for the highest ROUGE-L on
    500 training functions; without fitting there is none.
    """

    name = "name words"

    def __init__(self) -> None:
        super().__init__()
        self.opening = ""

    def fit(self, texts: Sequence[str], targets: Sequence[str]) -> Self:
        """Choose the opening among the most frequent first one and two words of the targets [n]."""
        with self._clock():
            openings = Counter(" ".join(t.split()[:k]) for t in targets for k in (1, 2))
            words, gold = [self._words(t) for t in texts[:500]], targets[:500]
            candidates = ["", *(o for o, _ in openings.most_common(10))] if words else [""]
            gains = [rouge_l_each(gold, [f"{o} {w}" for w in words]).sum() for o in candidates]
            self.opening = candidates[int(np.argmax(gains))]
        return self

    def predict(self, texts: Sequence[str]) -> list[str]:
        """One sentence for each function source; empty without a `def`."""
        with self._clock():
            words = [self._words(t) for t in texts]
            sentences = [f"{self.opening} {w}".strip() if w else "" for w in words]
            return [s[:1].upper() + s[1:] + "." if s else "" for s in sentences]

    @property
    def size(self) -> int:
        return len(self.opening.encode())

    @staticmethod
    def _words(source: str) -> str:
        match = re.search(r"\bdef\s+(\w+)", source)
        return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", match[1])).lower() if match else ""


def sklearn(part: str) -> Any:
    """The module `sklearn.<part>`. Raises UserError naming the extra if scikit-learn is not installed."""
    try:
        return importlib.import_module(f"sklearn.{part}")
    except ModuleNotFoundError as e:
        if e.name and e.name.split(".")[0] != "sklearn":
            raise
        raise UserError(
            "the classical baselines need scikit-learn, which is not installed", 'pip install "onebase[eval]"'
        ) from None


def _check(texts: Sequence[str], targets: Sequence[str]) -> None:
    if len(texts) != len(targets):
        raise DataError(f"{len(texts)} texts and {len(targets)} labels", "give one label per text")
    if not texts:
        raise DataError("no training examples", "give at least one labelled text")


def vectorizer() -> Any:
    """TF-IDF of words (1-2 grams) and of characters (2-5 grams within words)."""
    text, pipeline = sklearn("feature_extraction.text"), sklearn("pipeline")
    shared = {"sublinear_tf": True, "dtype": np.float32}
    # One-letter words and punctuation are kept: "I", "?" and "def f(x):" distinguish labels.
    pattern = rf"(?u)\w[\w{inside()}]*|[^\w\s{inside()}]"
    words = text.TfidfVectorizer(ngram_range=(1, 2), token_pattern=pattern, **shared)
    chars = text.TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **shared)
    return pipeline.FeatureUnion([("words", words), ("chars", chars)])


def vectors_size(union: Any) -> int:
    """Bytes of the terms and their inverse document frequencies."""
    total = 0
    for _, part in union.transformer_list:
        vocabulary = getattr(part, "vocabulary_", {})
        total += sum(len(term.encode()) for term in vocabulary) + (part.idf_.nbytes if vocabulary else 0)
    return total
