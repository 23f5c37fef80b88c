"""Foreign tokenizers where our own are used: token sets, scores of documents, answers by prompt, generation, serving."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onebase.base.folder import LoadedBase
from onebase.data import Document, TokenSet, prepare
from onebase.engine.decoder import generate
from onebase.engine.features import text_tokens
from onebase.engine.prompting import answer_scores
from onebase.engine.sampler import Sampling
from onebase.errors import DataError, UserError
from onebase.evaluation.likelihood import document_nats
from onebase.formats.hf.tokenizer_files import read_codec
from onebase.methods.config import PromptConfig
from onebase.modality.text import TextCodec, Tokens, document_sample
from onebase.serve.app import create_app
from tests.formats.words import write_words
from tests.helpers import client_of, serving, tiny_base

TEXT = "The quick brown fox jumps over the lazy dog. " * 5


def base_with(kind: str, folder: Path) -> LoadedBase:
    """A random base of ours with foreign words."""
    write_words(folder, kind)
    codec = read_codec(folder, 10_000)
    return LoadedBase(tiny_base(vocab_size=codec.tokenizer.vocab_size).model, codec)


def brute_nats(base: LoadedBase, ids: list[int], length: int) -> float:
    """Nats of every token but the first, in stretches of `length`; each goes on after BOS, or after the token before."""
    first = base.codec.tokenizer.begun([])
    total, at = 0.0, length
    stretches = [ids[:length]]
    while at < len(ids):
        stretches.append([*(first or ids[at - 1 : at]), *ids[at : at + length - 1]])
        at += length - 1
    for row in stretches:
        with torch.no_grad():
            logp = base.model.logits(torch.tensor([row]))[0].log_softmax(-1)
        total -= sum(float(logp[t, row[t + 1]]) for t in range(len(row) - 1))
    return total


@pytest.mark.parametrize("kind", ["qwen", "gpt2", "llama3", "llama2", "gemma"])
def test_documents_are_scored_with_or_without_bos(kind: str, tmp_path: Path) -> None:
    base = base_with(kind, tmp_path)
    tok = base.codec.tokenizer
    ids = tok.encode(TEXT, bos=True, eos=True)
    assert len(ids) > 32 and ids[-1] == tok.eos
    (found,) = document_nats(base, [Document(TEXT, "s", "cc0-1.0")], length=16)
    assert found.nats == pytest.approx(brute_nats(base, ids, 16), rel=1e-4)
    assert found.tokens == len(ids) - 1


def test_parts_of_long_samples_go_on_after_the_token_before(tmp_path: Path) -> None:
    tok = base_with("qwen", tmp_path).codec.tokenizer
    samples = [
        Tokens(np.asarray(tok.encode(t), np.int32), np.ones(len(tok.encode(t)), np.bool_))
        for t in (TEXT, "No.")
    ]
    with pytest.raises(DataError, match="same BOS"):
        TokenSet.from_tokens(samples)
    tokens = TokenSet.from_tokens(samples, alike=False)
    part = tokens.part(0, 8, 12)
    assert part.ids.tolist() == samples[0].ids[7:12].tolist()
    assert part.loss.tolist() == [False, True, True, True, True]


@pytest.mark.parametrize("kind", ["qwen", "llama3", "gemma"])
def test_token_sets_hold_documents_as_the_codec_says(kind: str, tmp_path: Path) -> None:
    codec = base_with(kind, tmp_path / "words").codec
    texts = ["The quick brown fox", "Grüße 中文 <|im_end|><bos>", "No."]
    dataset = prepare((Document(t, "s", "MIT") for t in texts), tmp_path / "set", holdout=0.0)
    tokens = TokenSet.build(dataset, "train", codec.tokenizer)
    found = sorted((t.ids.tolist(), t.loss.tolist()) for t in tokens)
    samples = [codec.tokens(document_sample(t)) for t in texts]
    assert found == sorted((t.ids.tolist(), t.loss.tolist()) for t in samples)
    assert not any(t.loss[0] for t in samples)


@pytest.mark.parametrize("kind", ["qwen", "llama2"])
def test_answers_are_compared_as_they_would_be_said(kind: str, tmp_path: Path) -> None:
    base = base_with(kind, tmp_path)
    tok = base.codec.tokenizer
    prompt = PromptConfig(template="{text} is", answers={"a": " brown", "b": " lazy dog"})
    found = answer_scores(base, prompt, ["The fox"])[0]
    head = tok.encode("The fox is", bos=True)
    sums = []
    for answer in (" brown", " lazy dog"):
        tail = tok.encode(answer, follows="text")
        assert tok.decode([*head, *tail]) == "The fox is" + answer
        with torch.no_grad():
            logp = base.model.logits(torch.tensor([[*head, *tail]]))[0].log_softmax(-1)
        sums.append(sum(float(logp[len(head) - 1 + i, t]) for i, t in enumerate(tail)))
    torch.testing.assert_close(found, torch.tensor(sums).log_softmax(-1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["qwen", "llama2", "mistral", "gemma"])
def test_a_batch_continues_each_prompt(kind: str, tmp_path: Path) -> None:
    base = base_with(kind, tmp_path)
    tok = base.codec.tokenizer
    prompts = [tok.encode(t, bos=True) for t in ("The quick brown", "No", "Is this a question?")]
    every = generate(base, prompts, Sampling(max_tokens=12))
    for prompt, answer in zip(prompts, every, strict=True):
        assert generate(base, [prompt], Sampling(max_tokens=12))[0].ids == answer.ids
        shown = [i for i in answer.ids if i not in tok.stop_ids]
        assert tok.decode([*prompt, *shown]) == tok.decode(prompt) + answer.text


def test_nothing_to_go_on_from_is_refused(tmp_path: Path) -> None:
    base = base_with("qwen", tmp_path)
    with pytest.raises(UserError, match="the prompt has no token") as e:
        generate(base, [base.codec.tokenizer.encode("", bos=True)])
    assert "this base has no BOS token" in e.value.remedy
    with pytest.raises(DataError, match="row 1 has no token"):
        text_tokens(base, [""])


def test_it_is_served(tmp_path: Path) -> None:
    base = base_with("llama3", tmp_path)
    app: Any = create_app(base, "m", {}, {})
    with serving(app) as url:
        client = client_of(url)
        said = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "No"}], max_tokens=6, temperature=0
        )
        ids = base.codec.chat_ids([{"role": "user", "content": "No"}])
        assert said.choices[0].message.content == generate(base, [ids], Sampling(max_tokens=6))[0].text
        more = client.completions.create(model="m", prompt="The", max_tokens=6, temperature=0)
        assert more.usage.prompt_tokens == len(base.codec.tokenizer.encode("The", bos=True))


def test_a_codec_of_ours_stays_what_it_was() -> None:
    codec = tiny_base().codec
    assert isinstance(codec, TextCodec)
    tok = codec.tokenizer
    assert tok.encode("a", bos=True, eos=True) == [tok.bos, *tok.encode("a"), tok.eos]
    assert tok.framed([5]) == tok.begun([5]) == [tok.bos, 5]
    assert tok.stop_ids == {tok.eos, tok.id_of("<|end|>")}
