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
        assert client.post("/v1/tag", json={"model": "mood", "input": "a"}).status_code == 400
    assert base.attached is not None
    with pytest.raises(UserError, match="two models are called 'mood'"):
        app_of(base, "mood", {"mood": base.attached})


def test_an_order(tmp_path: Path) -> None:
    made(tmp_path, "bert", "ForSequenceClassification", num_labels=1)
    base = onebase.load(tmp_path)
    row = {"query": QUERY, "texts": CANDIDATES}
    with TestClient(app_of(base, "order", {})) as client:
        data = client.post("/v1/rerank", json={"model": "order", "input": row}).json()["data"]
        wanted = [{"index": r.index, "score": r.score} for r in base.rerank(QUERY, CANDIDATES)]
        assert data[0]["ranked"] == wanted
        for wrong in ({"query": QUERY}, {**row, "texts": "a"}, QUERY):
            assert client.post("/v1/rerank", json={"model": "order", "input": wrong}).status_code == 400
