"""The head that a base was published with, over HTTP, under the base's own name."""

from pathlib import Path

import pytest

import onebase
from onebase.api.serving import app_of
from onebase.errors import UserError
from tests.interop.test_heads import CANDIDATES, NAMES, QUERY, TEXTS, made

TestClient = pytest.importorskip("starlette.testclient").TestClient


def test_classes(tmp_path: Path) -> None:
    made(tmp_path, "bert", "ForSequenceClassification", id2label=NAMES)
    base = onebase.load(tmp_path)
    with TestClient(app_of(base, "mood", {})) as client:
        assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["mood"]
        data = client.post("/v1/classify", json={"model": "mood", "input": TEXTS}).json()["data"]
        assert [d["label"] for d in data] == [f.label for f in base.classify(TEXTS)]
        assert (
            client.post("/v1/rerank", json={"model": "mood", "query": "a", "documents": ["b"]}).status_code
            == 400
        )
    assert base.attached is not None
    with pytest.raises(UserError, match="two models are called 'mood'"):
        app_of(base, "mood", {"mood": base.attached})


def test_an_order(tmp_path: Path) -> None:
    made(tmp_path, "bert", "ForSequenceClassification", num_labels=1)
    base = onebase.load(tmp_path)
    ask = {"model": "order", "query": QUERY, "documents": CANDIDATES}
    with TestClient(app_of(base, "order", {})) as client:
        found = client.post("/v1/rerank", json=ask).json()["results"]
        assert found == [
            {"index": r.index, "relevance_score": r.score} for r in base.rerank(QUERY, CANDIDATES)
        ]
        assert client.post("/v1/rerank", json={**ask, "top_n": 2}).json()["results"] == found[:2]
        for wrong in (
            {"documents": []},
            {"documents": [""]},
            {"query": ""},
            {"top_n": 0},
            {"documents": "a"},
        ):
            assert client.post("/v1/rerank", json={**ask, **wrong}).status_code == 400
        assert client.post("/v1/rerank", json={**ask, "model": "none"}).status_code == 404
