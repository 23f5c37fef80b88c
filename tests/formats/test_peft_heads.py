"""Heads that PEFT saves beside a method: a classifier's adapter from there says the same here, and one written here the same there."""

from pathlib import Path
from typing import Any

import pytest
import torch

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

import onebase  # noqa: E402
from onebase.api.base import Base  # noqa: E402
from onebase.engine.answers import numbers, token_states  # noqa: E402
from onebase.engine.features import text_tokens  # noqa: E402
from onebase.errors import ArtifactError, ConfigError  # noqa: E402
from tests.formats.test_heads import NAMES, TEXTS, made, said_there, same  # noqa: E402
from tests.helpers import tiny_base  # noqa: E402

WORDS = {
    "bert": ["query", "value"],
    "roberta": ["query", "value"],
    "distilbert": ["q_lin", "v_lin"],
    "modernbert_cls": ["Wqkv"],
    "gpt2": ["c_attn"],
    "llama": ["q_proj", "v_proj"],
    "qwen2": ["q_proj", "up_proj"],
    "gemma2": ["q_proj", "v_proj"],
}


def trained(there: Any, path: Path, task: str, words: list[str], **how: Any) -> Any:
    """A LoRA with a head there, all that learns drawn at random and saved."""
    cfg = peft.LoraConfig(
        task_type=task, r=4, target_modules=words, fan_in_fan_out=words == ["c_attn"], **how
    )
    on = peft.get_peft_model(there, cfg).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for n, p in on.named_parameters():
            if p.requires_grad:
                p.copy_(torch.randn(p.shape, generator=generator) * 0.2 + (0 if "lora_" in n else p))
    on.save_pretrained(path)
    return on


@pytest.mark.parametrize("family", WORDS)
def test_a_classifier_from_there_says_the_same_here_and_back_there(family: str, tmp_path: Path) -> None:
    """Its labels are those of the classifier that it was made on."""
    there = made(tmp_path / "base", family, "ForSequenceClassification", id2label=NAMES)
    plain = said_there(there, tmp_path / "base", TEXTS)
    on = trained(there, tmp_path / "theirs", "SEQ_CLS", WORDS[family])
    want = said_there(on, tmp_path / "base", TEXTS)
    assert (want - plain).abs().max() > 1e-2
    base = onebase.load(tmp_path / "base")
    here = base.with_adapter(tmp_path / "theirs")
    assert here.attached is not None and (here.attached.task, here.attached.method) == ("classify", "lora")
    found = here.classify(TEXTS)
    assert list(found[0].scores) == list(NAMES.values())
    same([list(f.scores.values()) for f in found], want.softmax(-1))
    here.export(tmp_path / "back", format="peft")
    kind = type(there)
    fresh = kind.from_pretrained(tmp_path / "base").eval()
    again = peft.PeftModel.from_pretrained(fresh, tmp_path / "back").eval()
    same(said_there(again, tmp_path / "base", TEXTS), want)


@pytest.mark.parametrize("labels", [3, 1])
def test_on_a_base_without_a_head_a_decoders_is_as_transformers_makes_it(labels: int, tmp_path: Path) -> None:
    base = Base(tiny_base(portable=True))
    base.export(tmp_path / "base")
    there = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "base", num_labels=labels, pad_token_id=0
    ).eval()
    on = trained(there, tmp_path / "theirs", "SEQ_CLS", ["q_proj"])
    here = onebase.load(tmp_path / "base").with_adapter(tmp_path / "theirs")
    ids = [t.ids for t in text_tokens(here.loaded, TEXTS)]
    with torch.no_grad():
        want = torch.stack([on(input_ids=torch.tensor(i.tolist())[None]).logits[0] for i in ids])
    if labels == 1:
        assert here.attached is not None and here.attached.task == "reward"
        same(numbers(here.attached, text_tokens(here.loaded, TEXTS)), want[:, 0])
        return
    found = here.classify(TEXTS)
    assert list(found[0].scores) == ["LABEL_0", "LABEL_1", "LABEL_2"]
    same([list(f.scores.values()) for f in found], want.softmax(-1))


def test_token_classes(tmp_path: Path) -> None:
    tags = {0: "O", 1: "B-name", 2: "I-name"}
    there = made(tmp_path / "base", "bert", "ForTokenClassification", id2label=tags)
    on = trained(there, tmp_path / "theirs", "TOKEN_CLS", WORDS["bert"])
    here = onebase.load(tmp_path / "base").with_adapter(tmp_path / "theirs")
    assert here.attached is not None and here.attached.task == "tag"
    head = here.attached.config.head
    assert head is not None and head.tags == tuple(tags.values())
    states = token_states(here.loaded, text_tokens(here.loaded, TEXTS[:1]), here.attached.routing)[0]
    model = here.attached.base.model.heads[here.attached.name]
    same(model(states).detach(), said_there(on, tmp_path / "base", TEXTS[:1])[0])
    here.export(tmp_path / "back", format="peft")
    fresh = type(there).from_pretrained(tmp_path / "base").eval()
    again = peft.PeftModel.from_pretrained(fresh, tmp_path / "back").eval()
    same(said_there(again, tmp_path / "base", TEXTS[:1])[0], said_there(on, tmp_path / "base", TEXTS[:1])[0])


@pytest.mark.parametrize("family", ["bert", "llama", "mistral", "gpt2"])
def test_answers_in_texts(family: str, tmp_path: Path) -> None:
    """In classes whose trunk is called otherwise than in the family's others too."""
    there = made(tmp_path / "base", family, "ForQuestionAnswering")
    words = WORDS.get(family, WORDS["llama"])
    on = trained(there, tmp_path / "theirs", "QUESTION_ANS", words)
    here = onebase.load(tmp_path / "base").with_adapter(tmp_path / "theirs")
    assert here.attached is not None and (here.attached.task, here.attached.method) == ("extract", "lora")
    (read,) = text_tokens(here.loaded, TEXTS[1:2])
    ids = torch.tensor(read.ids.tolist())[None]
    with torch.no_grad():
        said = on(input_ids=ids)
    want = torch.stack((said.start_logits[0], said.end_logits[0]), -1)
    states = token_states(here.loaded, [read], here.attached.routing)[0]
    same(here.attached.base.model.heads[here.attached.name](states).detach(), want)
    here.export(tmp_path / "back", format="peft")
    fresh = type(there).from_pretrained(tmp_path / "base").eval()
    again = peft.PeftModel.from_pretrained(fresh, tmp_path / "back").eval()
    with torch.no_grad():
        same(again(input_ids=ids).start_logits[0], want[:, 0])


def test_a_soft_prompt_may_have_a_head_too(tmp_path: Path) -> None:
    there = made(tmp_path / "base", "llama", "ForSequenceClassification", id2label=NAMES)
    cfg = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3)
    on = peft.get_peft_model(there, cfg).eval()
    with torch.no_grad():
        for p in (*on.prompt_encoder.parameters(), on.base_model.score.weight):
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(3)) * 0.3)
    on.save_pretrained(tmp_path / "theirs")
    here = onebase.load(tmp_path / "base").with_adapter(tmp_path / "theirs")
    assert here.attached is not None and (here.attached.task, here.attached.method) == ("classify", "soft")
    want = said_there(on, tmp_path / "base", TEXTS)
    same([list(f.scores.values()) for f in here.classify(TEXTS)], want.softmax(-1))


def test_what_has_no_form_is_named(tmp_path: Path) -> None:
    """A head behind a layer that neither the adapter nor the base has; a head of ours that reads more than the last state, or has a bias."""
    made(tmp_path / "trunk", "bert", "ForMaskedLM")
    there = made(tmp_path / "base", "bert", "ForSequenceClassification", id2label=NAMES)
    trained(there, tmp_path / "theirs", "SEQ_CLS", WORDS["bert"])
    with pytest.raises(
        ArtifactError, match="its head needs 'bert.pooler.dense.*which neither the adapter nor the base has"
    ):
        onebase.load(tmp_path / "trunk").with_adapter(tmp_path / "theirs")
    base = Base(tiny_base(portable=True))
    rows = [{"text": t, "label": t[0]} for t in ("aa", "ab", "ba", "bb") * 4]
    for pooling, said in (
        ("both", "whose pooling is 'both'"),
        ("last", "cannot represent this head's bias: 'score'"),
    ):
        on = base.with_adapter(
            base.adapt(rows, task="classify", method="lora", epochs=1, lr=1e-2, pooling=pooling)
        )
        with pytest.raises(ConfigError, match=said):
            on.export(tmp_path / pooling, format="peft")
    more = {"epochs": 1, "lr": 1e-2, "pooling": "last", "head_bias": False}
    on = base.with_adapter(base.adapt(rows, task="classify", method="lora", **more))
    again = base.with_adapter(on.export(tmp_path / "there", format="peft"))
    want = torch.tensor([list(f.scores.values()) for f in on.classify(["ab", "bb"])])
    same([list(f.scores.values()) for f in again.classify(["ab", "bb"])], want)
