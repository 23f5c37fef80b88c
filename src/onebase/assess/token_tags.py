"""The classical system for task tag: logistic regression of each word's tag on the words around it."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from onebase.data import Rows
from onebase.evaluation.baselines import sklearn
from onebase.evaluation.predictions import SpanSets
from onebase.methods.spans import spans_of, tags_of
from onebase.tasks.tag import spans_said

AROUND = 2
"""Context words on each side of the tagged one."""


class TokenTags:
    """Logistic regression of a BIO tag for each word. Features of the words around it: the word, its shape, prefix and suffix."""

    name = "word features + logistic regression"

    def __init__(self) -> None:
        self.seconds = 0.0
        self._labels: list[str] = []
        self._features = sklearn("feature_extraction").DictVectorizer(dtype=np.float32)
        self._model: Any = None

    def fit(self, rows: Rows) -> Self:
        began = time.perf_counter()
        spans = [spans_said(r) for r in rows]
        self._labels = sorted({s.label for each in spans for s in each})
        number = {label: i for i, label in enumerate(self._labels)}
        seen: list[dict[str, float]] = []
        tags: list[int] = []
        for row, each in zip(rows, spans, strict=True):
            places = _words(row["text"])
            # Of two spans within one word only the first is used, since a word has one tag.
            kept = [s for i, s in enumerate(each) if not _shares_word(s, each[:i], places)]
            tags += tags_of(kept, places, number, row["text"])[0]
            seen += _word_features(row["text"], places)
        x = self._features.fit_transform(seen)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it did not fully converge
            self._model = sklearn("linear_model").LogisticRegression(C=10.0, max_iter=100).fit(x, tags)
        self.seconds = time.perf_counter() - began
        return self

    def predict(self, rows: Rows) -> SpanSets:
        predicted = []
        for row in rows:
            text, places = row["text"], _words(row["text"])
            logp_TG = np.full((len(places), 1 + 2 * len(self._labels)), -np.inf)
            if places:
                known = self._model.predict_log_proba(self._features.transform(_word_features(text, places)))
                logp_TG[:, self._model.classes_] = known
            predicted.append(spans_of(logp_TG.argmax(1).tolist(), places, self._labels, text))
        return SpanSets(
            *(
                [[(s.start, s.end, s.label) for s in each] for each in some]
                for some in (map(spans_said, rows), predicted)
            )
        )

    @property
    def size(self) -> int:
        return int(self._model.coef_.astype(np.float32).nbytes) + sum(
            len(f.encode()) for f in self._features.vocabulary_
        )


def _words(text: str) -> list[tuple[int, int]]:
    return [m.span() for m in re.finditer(r"\w+|[^\w\s]", text)]


def _shares_word(span: Any, before: Sequence[Any], places: Sequence[tuple[int, int]]) -> bool:
    mine = [p for p in places if p[0] < span.end and span.start < p[1]]
    return not mine or any(a < s.end and s.start < b for s in before for a, b in mine)


def _word_features(text: str, places: Sequence[tuple[int, int]]) -> list[dict[str, float]]:
    words = [text[a:b] for a, b in places]
    each = [_one_word(w) for w in words]
    out = []
    for i in range(len(words)):
        features: dict[str, float] = {}
        for k in range(-AROUND, AROUND + 1):
            names = each[i + k] if 0 <= i + k < len(each) else ("end",)
            features |= {f"{k}:{name}": 1.0 for name in names}
        out.append(features)
    return out


def _one_word(word: str) -> tuple[str, ...]:
    kinds = ("A" if c.isupper() else "a" if c.isalpha() else "0" if c.isdigit() else c for c in word)
    shape = re.sub(r"(.)\1+", r"\1+", "".join(kinds))
    low = word.lower()
    return (f"word={low}", f"shape={shape}", f"begins={low[:3]}", f"ends={low[-3:]}")
