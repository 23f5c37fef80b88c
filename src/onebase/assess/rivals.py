"""Small classical systems for each kind of rows: one label, several labels, a number, spans, an image. R rows, L labels.

Each is fitted on rows and predicts what a base predicts (`onebase.evaluation.predictions`), so that both have the same scores. scikit-learn
comes with the extra `eval` and is imported when needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np

from onebase.assess.token_tags import TokenTags
from onebase.data import Rows
from onebase.engine.image_features import image_paths
from onebase.evaluation.baselines import (
    NearestNeighbour,
    TfidfLogistic,
    sklearn,
    vectorizer,
    vectors_size,
)
from onebase.evaluation.bootstrap import Array
from onebase.evaluation.predictions import Labels, LabelSets, Numbers
from onebase.modality.image.pixels import read_picture
from onebase.tasks.class_scores import is_multilabel

TERMS = 1000
"""Number of words whose TF-IDF are features of the trees."""
SIDE = 24
"""Pixels along each side of the resized RGB image."""
_FEW = 10
"""With fewer examples the regularisation strength is not chosen by cross-validation."""


class Rival(Protocol):
    """A classical system. seconds: of fitting. size: bytes of the numbers and words to ship."""

    name: str
    seconds: float

    @property
    def size(self) -> int: ...
    def fit(self, rows: Rows) -> Self: ...
    def predict(self, rows: Rows) -> Any: ...


def rivals_of(
    task: str, rows: Sequence[Mapping[str, Any]], reads: Sequence[str]
) -> list[Callable[[], Rival]]:
    """The classical systems for the rows of a task; an empty list if there are none. reads: the input columns, joined by line breaks if there
    are several."""
    if task == "regress":
        return [lambda: RidgeOfTexts(reads), lambda: TreesOfTexts(reads)]
    if task == "tag":
        return [TokenTags]
    if task != "classify":
        return []
    if "image" in rows[0] and "text" not in rows[0]:
        return [PixelLogistic]
    if is_multilabel(rows):
        return [lambda: OneVsRest(reads)]
    return [lambda: OneLabel(TfidfLogistic, reads), lambda: OneLabel(NearestNeighbour, reads)]


def read_texts(rows: Sequence[Mapping[str, Any]], reads: Sequence[str]) -> list[str]:
    """The input text of each row."""
    return ["\n".join(str(r[c]) for c in (*reads, "text_pair") if c in r) for r in rows]


class OneLabel:
    """A classical classifier of texts."""

    def __init__(self, make: Callable[[], TfidfLogistic | NearestNeighbour], reads: Sequence[str]) -> None:
        self._model, self._reads = make(), reads
        self.name, self.seconds = self._model.name, 0.0
        self._labels: list[str] = []

    def fit(self, rows: Rows) -> Self:
        labels = [str(r["label"]) for r in rows]
        self._labels = sorted(set(labels))
        self._model.fit(read_texts(rows, self._reads), labels)
        self.seconds = self._model.seconds
        return self

    def predict(self, rows: Rows) -> Labels:
        texts = read_texts(rows, self._reads)
        if isinstance(self._model, TfidfLogistic):
            p_RL = self._model.scores(texts)
        else:
            p_RL = _marks([[x] for x in self._model.predict(texts)], self._labels)
        return _labels(rows, self._labels, p_RL)

    @property
    def size(self) -> int:
        return self._model.size


class OneVsRest:
    """Independent logistic regression on TF-IDF for each label; a label is predicted from probability 0.5 on."""

    name = "TF-IDF + one-vs-rest logistic regression"

    def __init__(self, reads: Sequence[str]) -> None:
        self._reads, self.seconds = reads, 0.0
        self._labels: list[str] = []
        self._vectors = vectorizer()
        self._weights: list[tuple[Array, float]] = []

    def fit(self, rows: Rows) -> Self:
        began = time.perf_counter()
        linear = sklearn("linear_model")
        has = [set(r["labels"]) for r in rows]
        self._labels = sorted(set().union(*has))
        x = self._vectors.fit_transform(read_texts(rows, self._reads))
        for label in self._labels:
            y = np.array([label in labels for labels in has])
            if y.all():
                self._weights.append((np.zeros(x.shape[1], np.float32), 100.0))
                continue
            c = _chosen(
                lambda c: linear.LogisticRegression(C=c, solver="newton-cg"), x, y, int(y.sum()), "f1"
            )
            fitted = linear.LogisticRegression(C=c, solver="newton-cg").fit(x, y)
            self._weights.append((np.asarray(fitted.coef_[0], np.float32), float(fitted.intercept_[0])))
        self.seconds = time.perf_counter() - began
        return self

    def predict(self, rows: Rows) -> LabelSets:
        x = self._vectors.transform(read_texts(rows, self._reads))
        z_RL = np.stack([np.asarray(x @ w, np.float64) + b for w, b in self._weights], 1)
        p_RL = 1 / (1 + np.exp(-z_RL))
        return LabelSets(_marks([r["labels"] for r in rows], self._labels), (p_RL >= 0.5).astype(float), p_RL)

    @property
    def size(self) -> int:
        return vectors_size(self._vectors) + sum(w.nbytes + 4 for w, _ in self._weights)


class RidgeOfTexts:
    """Ridge regression on TF-IDF."""

    name = "TF-IDF + ridge regression"

    def __init__(self, reads: Sequence[str]) -> None:
        self._reads, self.seconds = reads, 0.0
        self._vectors = vectorizer()
        self._model: Any = None

    def fit(self, rows: Rows) -> Self:
        began = time.perf_counter()
        linear = sklearn("linear_model")
        x, y = self._vectors.fit_transform(read_texts(rows, self._reads)), _values(rows)
        strength = _chosen(lambda a: linear.Ridge(alpha=1 / a), x, y, len(y), "neg_mean_absolute_error")
        self._model = linear.Ridge(alpha=1 / strength).fit(x, y)
        self.seconds = time.perf_counter() - began
        return self

    def predict(self, rows: Rows) -> Numbers:
        values = self._model.predict(self._vectors.transform(read_texts(rows, self._reads)))
        return Numbers(_values(rows).tolist(), np.asarray(values, np.float64).tolist())

    @property
    def size(self) -> int:
        return vectors_size(self._vectors) + int(np.asarray(self._model.coef_, np.float32).nbytes) + 4


class TreesOfTexts:
    """Gradient boosting on the TF-IDF of the most frequent words."""

    name = "TF-IDF + gradient boosting"

    def __init__(self, reads: Sequence[str]) -> None:
        self._reads, self.seconds = reads, 0.0
        text = sklearn("feature_extraction.text")
        self._vectors = text.TfidfVectorizer(
            max_features=TERMS, token_pattern=r"(?u)\w+|[^\w\s]", sublinear_tf=True
        )
        self._model: Any = None

    def fit(self, rows: Rows) -> Self:
        began = time.perf_counter()
        x = self._vectors.fit_transform(read_texts(rows, self._reads))
        boosting = sklearn("ensemble").GradientBoostingRegressor
        self._model = boosting(n_estimators=200, subsample=0.7, random_state=0).fit(x, _values(rows))
        self.seconds = time.perf_counter() - began
        return self

    def predict(self, rows: Rows) -> Numbers:
        values = self._model.predict(self._vectors.transform(read_texts(rows, self._reads)))
        return Numbers(_values(rows).tolist(), np.asarray(values, np.float64).tolist())

    @property
    def size(self) -> int:
        """Per node: two children, the feature, the threshold and the value, 4 bytes each."""
        nodes = sum(tree.tree_.node_count for tree in self._model.estimators_.ravel())
        return (
            20 * int(nodes)
            + self._vectors.idf_.nbytes
            + sum(len(t.encode()) for t in self._vectors.vocabulary_)
        )


class PixelLogistic:
    """Logistic regression on the pixels of a downscaled copy of each image."""

    name = "pixels + logistic regression"

    def __init__(self) -> None:
        self.seconds = 0.0
        self._mean: Array = np.zeros(1)
        self._scale = 1.0
        self._model: Any = None

    def fit(self, rows: Rows) -> Self:
        began = time.perf_counter()
        linear = sklearn("linear_model")
        x, y = _pixels(rows), [str(r["label"]) for r in rows]
        self._mean, self._scale = x.mean(0), float(x.std()) or 1.0
        x = (x - self._mean) / (self._scale * np.sqrt(x.shape[1]))  # rows of about unit length, like TF-IDF's
        fewest = min(y.count(label) for label in set(y))
        c = _chosen(lambda c: linear.LogisticRegression(C=c, max_iter=300), x, y, fewest, "accuracy")
        self._model = linear.LogisticRegression(C=c, max_iter=300).fit(x, y)
        self.seconds = time.perf_counter() - began
        return self

    def predict(self, rows: Rows) -> Labels:
        x = (_pixels(rows) - self._mean) / (self._scale * np.sqrt(len(self._mean)))
        return _labels(rows, [str(c) for c in self._model.classes_], self._model.predict_proba(x))

    @property
    def size(self) -> int:
        return 4 * int(self._model.coef_.size + self._model.intercept_.size + self._mean.size)


def _chosen(make: Callable[[float], Any], x: Any, y: Any, fewest: int, score: str) -> float:
    """The inverse regularisation strength: the best of a grid by 3-fold cross-validation; 10 with too few examples."""
    if fewest < _FEW:
        return 10.0
    selection = sklearn("model_selection")
    folds = (selection.KFold if score.startswith("neg") else selection.StratifiedKFold)(
        3, shuffle=True, random_state=0
    )
    grid = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    return max(
        grid, key=lambda c: float(np.mean(selection.cross_val_score(make(c), x, y, cv=folds, scoring=score)))
    )


def _labels(rows: Rows, names: Sequence[str], p_RL: Array) -> Labels:
    truth = [str(r["label"]) for r in rows]
    return Labels(truth, [names[i] for i in p_RL.argmax(1)], _marks([[x] for x in truth], names), p_RL)


def _marks(each: Sequence[Sequence[str]], names: Sequence[str]) -> Array:
    """1 for the labels that a row has, [R, L]."""
    return np.array([[float(n in labels) for n in names] for labels in map(set, each)])


def _values(rows: Rows) -> Array:
    return np.array([float(r["value"]) for r in rows])


def _pixels(rows: Rows) -> Array:
    """[R, SIDE * SIDE * 3], 0 to 1."""
    small = (read_picture(path).resize((SIDE, SIDE)) for path in image_paths(rows, rows))
    return np.stack([np.asarray(x, np.float64).ravel() / 255 for x in small])
