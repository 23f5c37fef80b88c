"""One token may play several parts (GPT-2's one is BOS, EOS, UNK and, by custom, PAD): what is learnt and where a text ends does not hang on it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken, models, pre_tokenizers

from onebase.api.base import Base
from onebase.base.folder import LoadedBase
from onebase.errors import DataError
from onebase.modality.text import ChatTemplate, TextCodec, Tokenizer
from onebase.modality.text.roles import Roles
from onebase.modality.text.sample import chat_sample, completion_sample, document_sample
from onebase.modality.text.validation import problems, stop_ids, stretches
from onebase.tasks.writing import special_ids
from tests.helpers import tiny_base

A, B, C = "<|eos|>", "<|bos|>", "<|pad|>"
ROLES = {
    "all apart": Roles(bos=B, eos=A, pad=C, stop=(A,), before=(B,)),
    "bos is eos": Roles(bos=A, eos=A, pad=C, stop=(A,), before=(A,)),
    "bos is eos, not written": Roles(bos=A, eos=A, stop=(A,)),
    "pad is eos": Roles(bos=B, eos=A, pad=A, stop=(A,), before=(B,)),
    "pad is bos": Roles(bos=B, eos=A, pad=B, stop=(A,), before=(B,)),
    "unk is pad": Roles(bos=B, eos=A, pad=C, unk=C, stop=(A,), before=(B,)),
    "unk is eos": Roles(bos=B, eos=A, pad=C, unk=A, stop=(A,), before=(B,)),
    "all one": Roles(bos=A, eos=A, pad=A, unk=A, stop=(A,), before=(A,)),
    "all one, framed chats": Roles(bos=A, eos=A, pad=A, unk=A, stop=(A,), before=(A,), chat_framed=True),
}
TURNS = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
BEGUN = "{{ bos_token }}" + TURNS
ROWS: dict[str, Any] = {
    "complete": [{"prompt": f"{w} is", "completion": f" {w}."} for w in ("fox", "dog", "cat", "sun")],
    "chat": [
        {"messages": [{"role": "user", "content": w}, {"role": "assistant", "content": f"{w}."}] * 2}
        for w in ("fox", "dog", "cat", "sun")
    ],
    "continue": [{"text": f"the {w} is a {w}"} for w in ("fox", "dog", "cat", "sun")],
    "prefer": [{"prompt": w, "chosen": f" {w}.", "rejected": " no"} for w in ("fox", "dog", "cat", "sun")],
}


def base_of(roles: Roles, template: str = TURNS) -> LoadedBase:
    made = tiny_base()
    inner = tokenizers.Tokenizer.from_str(made.codec.tokenizer.as_json)
    tokenizer = Tokenizer(inner, roles)
    codec = TextCodec(tokenizer, ChatTemplate(template, tuple(tokenizer.specials), roles=roles))
    return LoadedBase(made.model, codec)


@pytest.mark.parametrize("template", [TURNS, BEGUN])
@pytest.mark.parametrize("roles", ROLES)
def test_every_end_is_learnt_and_nothing_speaks_against_it(roles: str, template: str) -> None:
    codec = base_of(ROLES[roles], template).codec
    tok = codec.tokenizer
    samples = [
        completion_sample("Is it", " yes"),
        document_sample("It is so"),
        chat_sample(ROWS["chat"][0]["messages"]),
    ]
    for sample in samples:
        item = codec.tokens(sample)
        assert list(problems(item, tok)) == []
        for _, stop in stretches(item):
            assert int(item.ids[stop - 1]) in stop_ids(tok)
        assert tok.specials[A] in special_ids([item], tok), "LoRA would not learn the end's row"
        if tok.bos != tok.eos:
            assert tok.bos not in special_ids([item], tok)
    assert codec.tokens(samples[0]).ids.tolist()[: len(tok.begun([])) + 1] == tok.begun(
        tok.encode("Is it")[:1]
    )
    chats = codec.tokens(samples[2]).ids.tolist()
    assert sum(i == tok.specials[A] for i in chats[1:]) == 4, "an end of a turn is lost, or one too many"


@pytest.mark.parametrize("task", ROWS)
@pytest.mark.parametrize("roles", ROLES)
def test_every_task_learns_on_such_a_base(roles: str, task: str) -> None:
    made = Base(base_of(ROLES[roles])).adapt(
        ROWS[task], task=task, method="lora", rank=2, epochs=1, batch_size=2
    )
    ledger = made.record.get("ledger")
    assert ledger["findings"] == {}
    ends = {"complete": 1, "chat": 2, "continue": 1, "prefer": 2}[task] * len(ROWS[task])
    assert ledger["ends_learnt"] == ends


@pytest.mark.parametrize(
    "roles", ["all apart", "bos is eos", "bos is eos, not written", "pad is eos", "all one"]
)
def test_lora_teaches_to_stop(roles: str) -> None:
    """Greedy completions end where those of the rows do; before, on a base whose BOS is its EOS, P(end) stayed at 0.004."""
    base = Base(base_of(ROLES[roles]))
    rows = ROWS["complete"] * 2
    on = base.with_adapter(base.adapt(rows, task="complete", method="lora", epochs=60, batch_size=8, lr=1e-2))
    for row in rows[:4]:
        ids = base.tokenizer.encode(row["prompt"] + row["completion"], bos=True)
        logp = on.logits(ids)[-1].log_softmax(-1)
        assert float(logp[base.tokenizer.eos].exp()) > 0.9
        said = on.generate(row["prompt"], max_tokens=20)
        assert said == row["completion"]


def test_padding_that_is_the_end_changes_nothing() -> None:
    """Rows of unlike lengths are padded by place: the adapter is the same whatever token pads."""
    prints = set()
    for roles in (ROLES["all apart"], replace(ROLES["all apart"], pad=A), replace(ROLES["all apart"], pad=B)):
        rows = [{"prompt": "fox " * n, "completion": " so"} for n in (1, 5, 2, 9)]
        made = Base(base_of(roles)).adapt(
            rows, task="complete", method="lora", rank=2, epochs=2, batch_size=2
        )
        prints.add(b"".join(t.numpy().tobytes() for _, t in sorted(made.parts.tensors.items())))
    assert len(prints) == 1


def one_token_for_all() -> Tokenizer:
    """Words as tokens, and one for what is no word, which begins and ends texts too."""
    words = {w: i for i, w in enumerate(["<|end|>", "fox", "dog", "is"])}
    inner = tokenizers.Tokenizer(models.WordLevel(words, unk_token="<|end|>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens([AddedToken("<|end|>", special=True)])
    name = "<|end|>"
    return Tokenizer(inner, Roles(bos=name, eos=name, pad=name, unk=name, stop=(name,), before=(name,)))


def test_an_unknown_word_is_not_learnt_as_an_end() -> None:
    codec = TextCodec(one_token_for_all(), ChatTemplate.none())
    assert codec.tokens(completion_sample("fox cat", " dog")).ids.tolist() == [
        0,
        1,
        0,
        2,
        0,
    ]  # read, not learnt
    with pytest.raises(DataError, match="' cat' has a character .* its stop token"):
        codec.tokens(completion_sample("fox is", " cat"))
    assert np.array_equal(codec.tokens(completion_sample("fox", " dog")).loss, [False, False, True, True])
