"""The head that a base was published with, over HTTP, under the base's own name."""

from pathlib import Path
from typing import Any

import pytest

import onebase
from onebase.errors import UserError
from onebase.serve.adapters import app_of
from tests.formats.test_heads import CANDIDATES, NAMES, QUERY, TEXTS, made

TestClient = pytest.importorskip("starlette.testclient").TestClient


def test_classes(tmp_path: Path) -> None:
    made(tmp_path, "bert", "ForSequenceClassification", id2label=NAMES)
    base = onebase.load(tmp_path)
    with TestClient(app_of(base, "mood", {})) as client:
        assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["mood"]
        data = client.post("/v1/classify", json={"model": "mood", "input": TEXTS}).json()["data"]
        assert [d["label"] for d in data] == [f.label for f in base.classify(TEXTS)]
        ask = {"model": "mood", "input": {"query": "a", "texts": ["b"]}}
        assert client.post("/v1/rerank", json=ask).status_code == 400
    assert base.attached is not None
    with pytest.raises(UserError, match="two models are called 'mood'"):
        app_of(base, "mood", {"mood": base.attached})


def test_an_order(tmp_path: Path) -> None:
    made(tmp_path, "bert", "ForSequenceClassification", num_labels=1)
    base = onebase.load(tmp_path)
    row = {"query": QUERY, "texts": CANDIDATES}
    with TestClient(app_of(base, "order", {})) as client:

        def asked(**more: object) -> Any:
            return client.post("/v1/rerank", json={"model": "order", "input": row, **more})

        (found,) = asked().json()["data"]
        assert found["ranked"] == [
            {"index": r.index, "score": r.score} for r in base.rerank(QUERY, CANDIDATES)
        ]
        for wrong in ({"texts": []}, {"texts": 3}, {"query": [1]}, {"texts": "a"}, {"more": 1}):
            assert asked(input=row | wrong).status_code == 400
        assert asked(model="none").status_code == 404
