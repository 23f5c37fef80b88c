"""Texts beyond the context: refused, cut, or read in windows, alike in learning, scoring and answering."""

import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import torch.nn.functional as F

import onebase
from onebase.api.base import Adapter, Base
from onebase.base.folder import load_base, save_base
from onebase.engine.features import embeddings, features, text_tokens
from onebase.errors import DataError
from onebase.modality.text.long import parts_of, picked
from onebase.modality.text.pooling import EmbeddingConfig
from onebase.objective.label import Classification
from onebase.serve.adapters import attach_all, task_model
from onebase.serve.app import create_app
from onebase.tasks.plan import planned
from tests.helpers import serving, tiny_base
from tests.pretrained import onebase as command

CONTEXT = 24
ROWS = [
    {"text": " ".join([start] * n) + f" {i}", "label": label, "value": float(n * i)}
    for i in range(4)
    for n in (1, 9, 30)
    for start, label in (("Is it so", "question"), ("The quick fox", "statement"))
]
LONG = [r["text"] for r in ROWS if len(r["text"]) > 80]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    path = tmp_path_factory.mktemp("bases") / "base"
    save_base(path, tiny_base(context=CONTEXT))
    return Base(load_base(path))


def by_hand(base: Base, text: str, long: str, pooling: Any = "both") -> torch.Tensor:
    """What a head reads of a text: each window by itself, and the mean."""
    tok = base.tokenizer
    ids = tok.encode(text)
    parts = parts_of(len(ids), CONTEXT - len(tok.framed([])), long)  # type: ignore[arg-type]
    each = []
    for part in parts:
        ids_BT = torch.tensor([tok.framed(picked(ids, part))])
        h_TD = base.loaded.model.hidden(ids_BT).hidden[0].detach()
        each.append(torch.cat((h_TD[-1], h_TD.mean(0))) if pooling == "both" else h_TD.mean(0))
    return torch.stack(each).mean(0)


@pytest.mark.parametrize("long", ["head", "tail", "middle", "windows"])
def test_what_a_head_reads_is_the_mean_of_the_windows(base: Base, long: Any) -> None:
    read = text_tokens(base.loaded, LONG[:4], long=long)
    found = features(base.loaded, read, "both", None)
    wanted = torch.stack([by_hand(base, t, long) for t in LONG[:4]])
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert all(t.left_out > 0 for t in read) == (long != "windows")


@pytest.mark.parametrize("task", ["classify", "regress"])
@pytest.mark.parametrize("method", ["head", "lora", "soft"])
@pytest.mark.parametrize("long", ["head", "tail", "middle", "windows"])
def test_long_texts_are_learnt_scored_and_answered_alike(
    base: Base, task: str, method: str, long: str, tmp_path: Path
) -> None:
    own = {"virtual": 2} if method == "soft" else {}
    told: list[str] = []
    adapter = base.adapt(ROWS, task=task, method=method, epochs=1, long=long, log=told.append, **own)
    kept = adapter.record.get("data.long")
    assert ("windowed" in kept) == (long == "windows") and ("cut" in kept) == (long != "windows")
    assert any("windows" in t if long == "windows" else "are truncated" in t for t in told)
    head = adapter.parts.config.head
    assert head is not None and head.long == long and adapter.record.get("config.options")["long"] == long
    on = base.with_adapter(Adapter.load(adapter.save(tmp_path / "a")))
    if task == "classify":
        alone = [f.scores for f in on.classify([r["text"] for r in ROWS])]
        found = onebase.evaluate(on, ROWS, task="classify")
        right = [max(s, key=lambda x: s[x]) == r["label"] for s, r in zip(alone, ROWS, strict=True)]
        assert found["accuracy"].value == pytest.approx(sum(right) / len(right))
    else:
        said = on.predict([r["text"] for r in ROWS])
        found = onebase.evaluate(on, ROWS, task="regress")
        error = sum(abs(a - r["value"]) for a, r in zip(said, ROWS, strict=True)) / len(ROWS)
        assert found["mae"].value == pytest.approx(error, rel=1e-4)


def test_the_loss_of_a_text_in_windows_is_that_of_their_mean(base: Base) -> None:
    loaded = base.loaded
    adapter = base.adapt(ROWS, task="classify", method="head", pooling="both")
    on = base.with_adapter(adapter)
    assert on.attached is not None
    texts = text_tokens(loaded, LONG[:3], long="windows")
    targets = {t.id: i % 2 for i, t in enumerate(texts)}
    objective = Classification(on.attached.name, targets, "both", on.attached.routing)
    batch = objective.batch([(t,) for t in texts], 0)
    assert batch.inputs["text"].ids_BT.shape[0] == sum(len(t.windows) for t in texts) > 3
    (loss, count) = objective.losses(loaded.model, batch)["label"]
    x_NP = torch.stack([by_hand(base, t, "windows") for t in LONG[:3]])
    z_NC = loaded.model.heads[on.attached.name](x_NP)
    wanted = F.cross_entropy(z_NC, torch.tensor(list(targets.values())), reduction="sum")
    assert count == 3 and loss.item() == pytest.approx(wanted.item(), rel=1e-4)


def test_the_default_reads_windows_and_the_plan_says_so(base: Base) -> None:
    plan = planned(base, ROWS, task="classify", method="lora", options={})
    assert "texts are read in windows" in plan.text
    adapter = base.adapt(ROWS, task="classify", method="head")
    head = adapter.parts.config.head
    assert head is not None and head.long == "windows"


def test_refusing_names_what_can_be_done(base: Base) -> None:
    with pytest.raises(DataError, match=r"(?s)the limit is 24.*-o long=head or tail or middle or windows"):
        base.adapt(ROWS, task="classify", method="head", long="refuse")
    on = base.with_adapter(base.adapt(ROWS[:2] * 3, task="classify", method="head", long="refuse"))
    with pytest.raises(DataError, match="(?s)tokens, the limit is 24.*long=head, tail, middle or windows"):
        on.classify(LONG[:1])
    with pytest.raises(DataError, match="the limit is 24"):
        base.adapt([{"prompt": LONG[0], "completion": "x"}] * 3, task="complete", method="lora")


def test_cut_texts_are_counted_when_they_are_asked(base: Base, caplog: pytest.LogCaptureFixture) -> None:
    on = base.with_adapter(base.adapt(ROWS, task="classify", method="head", long="tail"))
    with caplog.at_level(logging.WARNING):
        on.classify([*LONG[:2], "Is it"])
    assert "2 of 3 texts are truncated" in caplog.text
    caplog.clear()
    on.classify(["Is it"])
    assert "cut" not in caplog.text


@pytest.mark.parametrize("method", ["head", "lora"])
def test_spans_are_joined_over_windows(base: Base, method: str) -> None:
    rows = []
    for i in range(6):
        text = f"see fox{i} " * (2 + 6 * (i % 2))
        spans, at = [], 0
        while (at := text.find("fox", at)) >= 0:
            spans.append({"start": at, "end": at + 4, "label": "animal"})
            at += 4
        rows.append({"text": text, "spans": spans})
    adapter = base.adapt(rows, task="tag", method=method, epochs=2)
    assert adapter.record.get("data.long")["windowed"] == 3
    on = base.with_adapter(adapter)
    found = on.tag([r["text"] for r in rows])
    scores = onebase.evaluate(on, rows, task="tag")
    true = [{(s["start"], s["end"], s["label"]) for s in r["spans"]} for r in rows]
    said = [{(s.start, s.end, s.label) for s in each} for each in found]
    hits = sum(len(a & b) for a, b in zip(true, said, strict=True))
    wanted = 2 * hits / (sum(map(len, true)) + sum(map(len, said)))
    assert scores["span_f1"].value == pytest.approx(wanted, abs=1e-6)
    if method == "head":  # the word is told by its tokens, so windows change little
        far = [s for s in found[1] if s.start > 40]
        assert far and all(rows[1]["text"][s.start : s.start + 3] == "fox" for s in far)
    cut = base.adapt(rows, task="tag", method=method, epochs=1, long="head")
    assert cut.record.get("data.long")["cut"] == 3


def test_vectors_of_windows_are_their_mean(base: Base) -> None:
    pairs = [{"anchor": r["text"], "positive": r["text"] + " again"} for r in ROWS]
    on = base.with_adapter(base.adapt(pairs, task="embed", method="lora", epochs=1, long="windows"))
    assert on.attached is not None and on.attached.config.embedding is not None
    found = on.embed(LONG[:2])
    assert torch.allclose(found.norm(dim=-1), torch.ones(2), atol=1e-5)
    tok = base.tokenizer
    ids = tok.encode(LONG[0])
    each = []
    for part in parts_of(len(ids), CONTEXT - len(tok.framed([])), "windows"):
        ids_BT = torch.tensor([tok.framed(picked(ids, part))])
        h_TD = on.loaded.model.hidden(ids_BT, routing=on.routing).hidden[0].detach()
        each.append(F.normalize(h_TD.mean(0), dim=-1))
    assert len(each) > 2
    wanted = F.normalize(torch.stack(each).mean(0), dim=-1)
    torch.testing.assert_close(found[0], wanted, atol=1e-4, rtol=1e-4)
    plain = base.with_adapter(base.adapt(pairs, task="embed", method="lora", epochs=1))
    head = plain.embed([LONG[0], LONG[0] + " and more and more"])
    torch.testing.assert_close(head[0], head[1])  # the head is read by default


def test_each_window_is_filled_up_where_the_base_fills_its_texts(base: Base) -> None:
    cfg = EmbeddingConfig(pooling="last", normalise=True, filled=True, long="windows")
    found = embeddings(base.loaded, [LONG[0], "Is it"], cfg, None)
    tok = base.tokenizer
    each = []
    for part in parts_of(len(tok.encode(LONG[0])), CONTEXT - len(tok.framed([])), "windows"):
        ids = tok.framed(picked(tok.encode(LONG[0]), part))
        assert len(ids) < CONTEXT  # else there is nothing to fill
        full = ids + [tok.pad] * (CONTEXT - len(ids))
        h_TD = base.loaded.model.hidden(torch.tensor([full])).hidden[0].detach()
        each.append(F.normalize(h_TD[-1], dim=-1))
    wanted = F.normalize(torch.stack(each).mean(0), dim=-1)
    assert len(each) > 1
    torch.testing.assert_close(found[0], wanted, atol=1e-4, rtol=1e-4)


def test_vectors_of_cut_texts_come_with_a_warning(base: Base, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        embeddings(base.loaded, [*LONG[:2], "Is it"], EmbeddingConfig(), None)
    assert "2 of 3 texts are truncated" in caplog.text
    caplog.clear()
    embeddings(base.loaded, LONG[:2], EmbeddingConfig(long="windows"), None)
    assert "cut" not in caplog.text


def test_a_reward_reads_the_end_of_a_long_prompt(base: Base) -> None:
    rows = [{"prompt": LONG[i % len(LONG)], "chosen": f" yes {i}", "rejected": " no"} for i in range(6)]
    adapter = base.adapt(rows, task="reward", method="head")
    assert adapter.record.get("data.long")["cut"] == 12
    on = base.with_adapter(adapter)
    a, b = on.reward([(LONG[0], " yes"), ("other words here " + LONG[0], " yes")])
    assert a == pytest.approx(b)
    with pytest.raises(DataError, match="(?s)long=tail"):
        base.adapt(rows, task="reward", method="head", long="refuse")


@pytest.mark.parametrize("long", ["head", "windows"])
def test_a_prompt_reads_long_texts(base: Base, long: str) -> None:
    answers = {"question": " so", "statement": " fox"}
    adapter = base.adapt([], task="classify", method="prompt", prompt="{text} is", answers=answers, long=long)
    on = base.with_adapter(adapter)
    (found,) = on.classify([LONG[0]])
    assert sum(found.scores.values()) == pytest.approx(1, abs=1e-5)
    refusing = base.adapt(
        [], task="classify", method="prompt", prompt="{text} is", answers=answers, long="refuse"
    )
    with pytest.raises(DataError, match="no answer fits"):
        base.with_adapter(refusing).classify([LONG[0]])


def test_the_server_and_the_command_read_long_texts_alike(base: Base, tmp_path: Path) -> None:
    adapter = base.adapt(ROWS, task="classify", method="head", long="tail")
    adapter.save(tmp_path / "sort")
    wanted = base.with_adapter(adapter).classify([LONG[0]])[0].scores
    on = attach_all(base, {"sort": tmp_path / "sort"})
    app: Any = create_app(base.loaded, "tiny", {}, {"sort": task_model(base.loaded, on["sort"])})
    with serving(app) as url, httpx.Client(base_url=url) as client:
        (found,) = client.post("/v1/classify", json={"model": "sort", "input": [LONG[0]]}).json()["data"]
    assert found["scores"] == pytest.approx(wanted, abs=1e-4)
    said = command("apply", str(base.loaded.path), LONG[0], "--adapter", tmp_path / "sort", "--json")
    assert said.status == 0 and json.loads(said.out)["scores"] == pytest.approx(wanted, abs=1e-4)
