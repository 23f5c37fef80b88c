from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.errors import DataError
from onebase.modality.text import (
    ChatTemplate,
    Sample,
    Segment,
    TextCodec,
    Tokens,
    chat_sample,
    check_tokens,
    completion_sample,
    document_sample,
    ledger_rows,
    render_rows,
)

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]


def test_a_document_is_learnt_whole_but_for_bos(codec: TextCodec) -> None:
    t = codec.tokenizer
    got = codec.tokens(document_sample("the fox", id="1", source="s"))
    assert got.ids.tolist() == [t.bos, *t.encode("the fox"), t.eos]
    assert got.loss.tolist() == [False] + [True] * (len(got) - 1)
    assert (got.ids.dtype, got.loss.dtype, got.id, got.source) == (np.int32, np.bool_, "1", "s")


def test_a_completion_and_its_end_are_learnt(codec: TextCodec) -> None:
    got = codec.tokens(completion_sample("the quick", " brown"))
    t = codec.tokenizer
    assert got.ids[got.loss].tolist() == [*t.encode(" brown"), t.eos]
    assert got.ids[~got.loss].tolist() == [t.bos, *t.encode("the quick")]


@settings(deadline=None, max_examples=30)
@given(prompt=st.text(max_size=10), completion=st.text(max_size=10))
def test_training_continues_the_very_prompt_that_generation_gets(
    codec: TextCodec, prompt: str, completion: str
) -> None:
    got = codec.tokens(completion_sample(prompt, completion))
    alone = codec.tokens(Sample((Segment("text", prompt),)))
    assert got.ids[: len(alone)].tolist() == alone.ids.tolist()


def test_neighbouring_text_is_encoded_as_one(codec: TextCodec) -> None:
    halves = Sample((Segment("text", "the qu"), Segment("text", "ick")))
    assert (
        codec.tokens(halves).ids.tolist()
        == codec.tokens(Sample((Segment("text", "the quick"),))).ids.tolist()
    )


def test_a_chat_and_the_ledger_of_it(codec: TextCodec) -> None:
    row = ledger_rows([codec.tokens(chat_sample(TALK, id="7", source="chat"))], codec.tokenizer)[0]
    assert row.segments == (("<|bos|><|user|>Hi<|end|><|assistant|>", False), ("Hello.<|end|>", True))
    assert (row.id, row.source, row.supervised) == (
        "7",
        "chat",
        row.tokens - 4 - len(codec.tokenizer.encode("Hi")),
    )
    text = render_rows([row])
    assert text.splitlines()[1].strip() == "<|bos|><|user|>Hi<|end|><|assistant|>«Hello.<|end|>»"
    assert f"{row.supervised} of {row.tokens} tokens supervised" in text


def test_the_ledger_is_short_and_shows_ends(codec: TextCodec) -> None:
    rows = ledger_rows(
        (codec.tokens(document_sample("a\nb " * 500)) for _ in range(9)), codec.tokenizer, rows=2
    )
    assert len(rows) == 2
    text = render_rows(rows, width=40)
    assert len(text) < 400
    assert "a\\nb" in text
    assert text.endswith("<|eos|>»")


def test_bos_written_by_the_template_is_not_doubled() -> None:
    source = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    spans = ChatTemplate(source).segments(TALK[:1])
    assert spans[0] == Segment("special", "<|bos|>")


def test_bos_is_there_once(codec: TextCodec) -> None:
    sample = Sample((Segment("special", "<|bos|>"), Segment("text", "a")))
    assert codec.tokens(sample).ids.tolist() == codec.tokens(Sample((Segment("text", "a"),))).ids.tolist()


def test_checks_pass_what_is_sound_and_name_what_is_not(codec: TextCodec) -> None:
    t = codec.tokenizer
    good = codec.tokens(chat_sample([*TALK, *TALK], id="x"))
    check_tokens([good, codec.tokens(document_sample("")), codec.tokens(completion_sample("a", "b"))], t)
    check_tokens(good, t)

    def refused(tokens: Tokens, cause: str) -> None:
        with pytest.raises(DataError, match=cause):
            check_tokens(tokens, t)

    refused(codec.tokens(chat_sample(TALK[:1], id="x")), "sample x: no token is supervised")
    ids, loss = good.ids, good.loss
    refused(replace(good, ids=np.append(t.bos, ids), loss=np.append(False, loss)), "<.bos.> twice")
    refused(replace(good, ids=ids[1:], loss=loss[1:]), "does not start with <.bos.>")
    refused(replace(good, loss=np.append(True, loss[1:])), "<.bos.> is supervised")
    refused(replace(good, ids=ids[:-1], loss=loss[:-1]), "does not end in <.eos.> or <.end.>")
    inner = loss & (ids != t.id_of("<|end|>"))  # the closing token of each answer is not learnt
    refused(replace(good, loss=inner), "does not end in")


def test_other_modalities_are_refused(codec: TextCodec) -> None:
    with pytest.raises(DataError, match="no codec for segments of kind 'image'"):
        codec.tokens(Sample((Segment("image", None),)))
