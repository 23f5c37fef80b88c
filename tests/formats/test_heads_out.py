"""Heads learnt here as transformers has them: what it says with an exported one, and which cannot be said there."""

from pathlib import Path
from typing import Any

import pytest
import torch

import onebase
from onebase.api.base import Base
from onebase.engine.answers import token_states
from onebase.engine.features import text_tokens
from onebase.errors import ConfigError, UserError
from tests.formats.test_heads import FAMILIES, TEXTS, made, opened, said_there, same

transformers = pytest.importorskip("transformers")

SEQUENCE, TOKENS = "AutoModelForSequenceClassification", "AutoModelForTokenClassification"
LABELS = ("long", "odd", "short")
ROWS = [
    {"text": t, "label": LABELS[i % 3], "labels": [LABELS[i % 3], LABELS[i % 2]], "value": 2000.0 + 3 * i}
    for i, t in enumerate([*TEXTS, "Hello there", "naïve dogs", "thank you", "123 foxes"])
]
ENCODERS = {
    "bert": "cls",
    "roberta": "cls",
    "xlm_roberta": "cls",
    "distilbert": "cls",
    "mpnet": "cls",
    "esm": "cls",
    "modernbert_cls": "cls",
    "modernbert_mean": "mean",
}
"""What the class for sequences reads of a text."""


def some(task: str) -> list[dict[str, Any]]:
    column = {"many": "labels", "regress": "value"}.get(task, "label")
    return [{"text": r["text"], column: r[column]} for r in ROWS]


def learnt(base: Base, task: str, method: str = "head", **how: Any) -> Base:
    more = {} if method == "head" else {"epochs": 2, "lr": 0.02}
    kind = "classify" if task == "many" else task
    return base.with_adapter(base.adapt(some(task), task=kind, method=method, **more, **how))


def agrees(on: Base, folder: Path, task: str) -> None:
    """What transformers says with the exported model is what we say, and so is what we say of the folder."""
    back = opened(on.export(folder), SEQUENCE)
    z = said_there(back, folder, TEXTS)
    if task == "regress":
        assert back.config.problem_type == "regression"
        # In standard deviations: the values themselves are told apart by less than fp32 rounds 2000 by.
        same(torch.tensor(on.predict(TEXTS)) - 2000, z[:, 0].double() - 2000)
        same(torch.tensor(onebase.load(folder).predict(TEXTS)) - 2000, z[:, 0].double() - 2000)
        return
    want = [list(f.scores.values()) for f in on.classify(TEXTS)]
    same(want, z.sigmoid() if task == "many" else z.softmax(-1))
    assert max(max(row) - min(row) for row in want) > 0.1  # something was learnt
    assert list(back.config.id2label.values()) == list(LABELS)
    same([list(f.scores.values()) for f in onebase.load(folder).classify(TEXTS)], torch.tensor(want))


@pytest.mark.parametrize("task", ["classify", "many", "regress"])
@pytest.mark.parametrize("family", ENCODERS)
def test_a_linear_head_passes_the_hidden_layer_of_an_encoders_class(
    family: str, task: str, tmp_path: Path
) -> None:
    made(tmp_path / "theirs", family, "Model")
    base = onebase.load(tmp_path / "theirs")
    agrees(learnt(base, task, pooling=ENCODERS[family]), tmp_path / "back", task)


@pytest.mark.parametrize(("family", "method"), [("bert", "lora"), ("modernbert_mean", "full")])
def test_learnt_together_with_the_base(family: str, method: str, tmp_path: Path) -> None:
    made(tmp_path / "theirs", family, "Model")
    on = learnt(onebase.load(tmp_path / "theirs"), "classify", method, pooling=ENCODERS[family])
    agrees(on, tmp_path / "back", "classify")


@pytest.mark.parametrize("family", ["bert", "modernbert_cls", "llama", "gpt2", "gemma2"])
def test_a_tagger(family: str, tmp_path: Path) -> None:
    made(tmp_path / "theirs", family, "Model")
    base = onebase.load(tmp_path / "theirs")
    rows = [{"text": t, "spans": [{"start": 0, "end": 3, "label": "word"}]} for t in TEXTS]
    method = "lora" if family == "bert" else "head"
    more = {"epochs": 2, "lr": 0.05} if method == "lora" else {}
    on = base.with_adapter(base.adapt(rows, task="tag", method=method, **more))
    back = opened(on.export(tmp_path / "back"), TOKENS)
    assert back.config.id2label == {0: "O", 1: "B-word", 2: "I-word"}
    again = onebase.load(tmp_path / "back")
    assert again.tag(TEXTS) == on.tag(TEXTS)
    attached = on.attached
    assert attached is not None
    head = attached.base.model.heads[attached.name]
    states = token_states(on.loaded, text_tokens(on.loaded, TEXTS), attached.routing)
    for h_TD, z_TC in zip(states, said_there(back, tmp_path / "back", TEXTS), strict=True):
        same(head(h_TD).detach(), z_TC)


@pytest.mark.parametrize("family", ["modernbert_cls", "llama", "mistral"])
def test_answers_in_texts(family: str, tmp_path: Path) -> None:
    made(tmp_path / "theirs", family, "Model")
    base = onebase.load(tmp_path / "theirs")
    rows = [
        {
            "question": "How are you?",
            "context": f"{t} I am fine",
            "answers": {"text": ["fine"], "answer_start": [len(t) + 6]},
        }
        for t in TEXTS
    ]
    on = base.with_adapter(base.adapt(rows, task="extract", method="head"))
    back = opened(on.export(tmp_path / "back"), "AutoModelForQuestionAnswering")
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "back")
    row = rows[0]
    read = tokenizer(row["question"], row["context"], return_tensors="pt", return_offsets_mapping=True)
    places, inside = read.pop("offset_mapping")[0].tolist(), [x == 1 for x in read.sequence_ids()]
    with torch.no_grad():
        said = back(**read)
    first, last = (
        int(z[0].masked_fill(~torch.tensor(inside), -torch.inf).argmax())
        for z in (said.start_logits, said.end_logits)
    )
    found = on.extract(row["question"], row["context"])[0]
    assert found.text == "fine" == row["context"][places[first][0] : places[last][1]].strip()
    again = onebase.load(tmp_path / "back").extract(row["question"], row["context"])[0]
    same([again.score], torch.tensor([found.score]))


@pytest.mark.parametrize(
    ("family", "task", "method"),
    [
        ("llama", "classify", "head"),
        ("gpt2", "many", "head"),
        ("qwen2", "regress", "head"),
        ("llama", "classify", "lora"),
        ("llama", "regress", "lora"),
        ("gpt2", "many", "full"),
    ],
)
def test_a_head_without_a_bias_is_a_decoders(family: str, task: str, method: str, tmp_path: Path) -> None:
    made(tmp_path / "theirs", family, "Model")
    base = onebase.load(tmp_path / "theirs")
    agrees(learnt(base, task, method, pooling="last", head_bias=False), tmp_path / "back", task)
    if (family, task, method) == ("llama", "classify", "head"):
        for pooling in ("last", "both"):
            with pytest.raises(
                ConfigError, match="cannot express a head with a bias|a head with pooling"
            ) as e:
                learnt(base, task, pooling=pooling).export(tmp_path / "no")
            assert "-o pooling=last -o head_bias=false" in e.value.remedy
        with pytest.raises(ConfigError, match="'head_bias' is false and 'pooling' is 'auto'"):
            learnt(base, task, head_bias=False)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_reranker(family: str, tmp_path: Path) -> None:
    made(tmp_path / "theirs", family, "Model")
    base = onebase.load(tmp_path / "theirs")
    rows = [{"query": q, "texts": TEXTS, "grades": [int(t[0] == q[0]) for t in TEXTS]} for q in TEXTS]
    how = {"pooling": "cls"} if family == "bert" else {"pooling": "last", "head_bias": False}
    on = base.with_adapter(base.adapt(rows, task="rerank", method="head", **how))
    back = opened(on.export(tmp_path / "back"), SEQUENCE)
    found = sorted(on.rerank(TEXTS[0], TEXTS), key=lambda r: r.index)
    z = said_there(back, tmp_path / "back", [(TEXTS[0], t) for t in TEXTS])[:, 0]
    same([r.score for r in found], z.sigmoid())
    again = sorted(onebase.load(tmp_path / "back").rerank(TEXTS[0], TEXTS), key=lambda r: r.index)
    same([r.score for r in again], z.sigmoid())


def test_what_cannot_be_said_is_refused_with_what_would(tmp_path: Path) -> None:
    for family, reads in (("bert", "cls"), ("modernbert_cls", "cls' or 'mean")):
        made(tmp_path / family, family, "Model")
        base = onebase.load(tmp_path / family)
        with pytest.raises(UserError, match=f"a head with pooling 'both' .it has '{reads}'.") as e:
            learnt(base, "classify", pooling="both").export(tmp_path / "no")
        assert f"-o pooling={ENCODERS[family] if family == 'bert' else 'mean'}" in e.value.remedy
    rows = [{"text": t, "label": str(i)} for i, t in enumerate(f"{x} {y}" for x in TEXTS for y in TEXTS)] * 2
    rows += [{"text": f"more {i}", "label": f"more {i}"} for i in range(16)]
    base = onebase.load(tmp_path / "bert")
    many = base.with_adapter(base.adapt(rows, task="classify", method="head", pooling="cls"))
    with pytest.raises(ConfigError, match="a linear head of 32 outputs on 32 channels"):
        many.export(tmp_path / "no")
    assert not (tmp_path / "no").exists() and len(FAMILIES) > 2
