"""Objectives of heads on texts: the right sums over texts, labels and tokens, whatever is padded."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from onebase.base.head import Head
from onebase.modality.text.sample import Tokens
from onebase.objective.base import IGNORE
from onebase.objective.label import MultiLabel, marks
from onebase.objective.regress import Regression
from onebase.objective.tag import Tagging
from tests.helpers import tiny_base


def text(name: str, *ids: int) -> Tokens:
    return Tokens(np.array(ids, np.int32), np.zeros(len(ids), np.bool_), name, "s")


TEXTS = [text("a", 0, 5, 6, 7), text("b", 0, 8)]


def head_on(base: object, features: int, outputs: int) -> Head:
    head = Head(features, outputs)
    torch.nn.init.normal_(head.weight_CP, std=0.5)
    base.model.heads["x"] = head  # type: ignore[attr-defined]
    return head


def hidden(base: object, t: Tokens) -> torch.Tensor:
    return base.model.hidden(torch.tensor([t.ids.tolist()])).hidden[0]  # type: ignore[attr-defined]


def test_regress_is_huber_of_each_text() -> None:
    base = tiny_base()
    head = head_on(base, 32, 1)
    objective = Regression("x", {"a": 9.0, "b": 0.1}, "mean")
    batch = objective.batch([[t] for t in TEXTS], 0)
    total, n = objective.losses(base.model, batch)["value"]
    plain = 0.0
    for t, y in zip(TEXTS, (9.0, 0.1), strict=True):
        off = abs(float(head(hidden(base, t).mean(0)[None]).detach()) - y)
        plain += 0.5 * off * off if off <= 1 else off - 0.5
    assert n == 2 and float(total) == pytest.approx(plain, abs=1e-4)
    total.backward()
    assert head.weight_CP.grad is not None


def test_many_labels_are_binary_each() -> None:
    base = tiny_base()
    head = head_on(base, 32, 3)
    objective = MultiLabel("x", {"a": (0, 2), "b": ()}, 3, "last")
    batch = objective.batch([[t] for t in TEXTS], 0)
    assert batch.targets["labels"].tolist() == marks([[0, 2], []], 3).tolist() == [[1, 0, 1], [0, 0, 0]]
    total, n = objective.losses(base.model, batch)["labels"]
    plain = sum(
        float(F.binary_cross_entropy(head(hidden(base, t)[-1:]).sigmoid(), y[None], reduction="sum"))
        for t, y in zip(TEXTS, marks([[0, 2], []], 3), strict=True)
    )
    assert n == 6 and float(total) == pytest.approx(plain, abs=1e-4)


def test_tags_are_of_the_texts_own_tokens() -> None:
    base = tiny_base()
    head = head_on(base, 32, 3)
    tags = {"a": (IGNORE, 0, 1, 2), "b": (IGNORE, 2)}
    objective = Tagging("x", tags)
    batch = objective.batch([[t] for t in TEXTS], 0)
    assert batch.targets["tag"].tolist() == [[IGNORE, 0, 1, 2], [IGNORE, 2, IGNORE, IGNORE]]
    total, n = objective.losses(base.model, batch)["tag"]
    plain = sum(
        float(F.cross_entropy(head(hidden(base, t)[1:]), torch.tensor(tags[t.id][1:]), reduction="sum"))
        for t in TEXTS
    )
    assert n == 4 and float(total) == pytest.approx(plain, abs=1e-4)
