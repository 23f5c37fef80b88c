"""Chat by LoRA on a base of the default recipe, whose head has learnt nothing of a chat's own tokens."""

from typing import Any

import numpy as np
import pytest

import onebase
from onebase.api.base import Base
from onebase.base.config import TextShape
from onebase.engine import Completion, Sampling, generate, score
from onebase.engine.features import chat_rows
from tests.pretrained import tiny_run

KINDS = {
    "It is food.": ("bread", "soup", "rice", "cake", "fish"),
    "It is weather.": ("rain", "snow", "wind", "fog", "hail"),
}
FORMS = ("What is {}?", "What is it, {}?", "Tell me, is {} weather?", "{}")


def messages(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


CHATS: list[dict[str, Any]] = [
    {"messages": [*messages(form.format(word)), {"role": "assistant", "content": answer}]}
    for form in FORMS
    for answer, words in KINDS.items()
    for word in words
]


@pytest.fixture(scope="module")
def plain() -> Base:
    base = onebase.load(tiny_run() / "base")
    assert base.config.text.head_std == TextShape(width=64, depth=1).head_std == 0.001
    return base


def end_nats(base: Base) -> float:
    """Nats of <|end|> where an assistant's answer ends, the mean over the chats."""
    end = base.tokenizer.id_of("<|end|>")
    rows = chat_rows(base.loaded, CHATS)
    scores = score(base.loaded, [r.ids.tolist() for r in rows], base.routing)
    wanted = [(r.ids[1:] == end) & r.loss[1:] for r in rows]
    return -float(np.concatenate([s[w] for s, w in zip(scores, wanted, strict=True)]).mean())


def said(base: Base, question: str) -> Completion:
    """What `base.chat` says, with how it ended."""
    ids = base.loaded.codec.chat_ids(messages(question))
    return generate(base.loaded, [ids], Sampling(max_tokens=32), base.routing)[0]


def test_lora_learns_to_end_answers(plain: Base) -> None:
    assert len(CHATS) == 40
    assert end_nats(plain) > 4
    chatting = plain.with_adapter(plain.adapt(CHATS, task="chat", method="lora", epochs=10))
    assert end_nats(chatting) < 1.0
    for question in ("What is soup?", "What is snow?"):
        answer = said(chatting, question)
        assert answer.finish == "stop", answer
        assert answer.text == chatting.chat(messages(question), max_tokens=32)
