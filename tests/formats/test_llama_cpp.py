"""GGUF out, in llama.cpp itself: the same ids for the same texts, and the same probabilities. Needs the package xllamacpp."""

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

xllamacpp = pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")

import onebase  # noqa: E402
from onebase.base.folder import LoadedBase  # noqa: E402
from onebase.base.model import BaseModel  # noqa: E402
from onebase.modality.text.pooling import EmbeddingConfig, Pooling  # noqa: E402
from onebase.modality.text.roles import Roles  # noqa: E402
from onebase.modality.text.tokenizer import Tokenizer  # noqa: E402
from tests.formats.gguf_files import with_keys  # noqa: E402
from tests.formats.llama_cpp import CORPUS, TEXTS, LlamaCpp, agree, base_of, some_texts  # noqa: E402
from tests.formats.test_gguf_proof import metaspace  # noqa: E402
from tests.formats.test_gguf_write import (  # noqa: E402
    ROLES,
    YARN,
    attention,
    changed,
    sentence_piece,
)
from tests.pretrained import onebase as command  # noqa: E402

pytestmark = pytest.mark.slow


def own() -> Tokenizer:
    """What a recipe with `portable: true` trains."""
    return Tokenizer.train([CORPUS] * 8, 420, portable=True)


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "own": own,
    "SentencePiece": lambda: Tokenizer(sentence_piece(True), ROLES),
    "SentencePiece without a first space": lambda: Tokenizer(sentence_piece(False), ROLES),
    "SentencePiece in words of today": lambda: Tokenizer(metaspace("never", False), ROLES),
}


def test_the_nearest_splitting_gives_the_same_ids_but_for_first_spaces(tmp_path: Path) -> None:
    base = base_of(Tokenizer(metaspace("first", False), ROLES))
    base.export(tmp_path / "a.gguf", format="gguf", pre="default")
    there = LlamaCpp(tmp_path / "a.gguf")
    for text in [*TEXTS, *some_texts()]:
        if not text.startswith(" "):
            assert there.ids(text) == base.tokenizer.encode(text), text
    del there
    gc.collect()


@pytest.mark.parametrize("kind", KINDS)
def test_texts_become_the_same_ids_with_no_option_given(kind: str, tmp_path: Path) -> None:
    base = base_of(KINDS[kind]())
    base.export(tmp_path / "a.gguf", format="gguf")
    there = LlamaCpp(tmp_path / "a.gguf")
    again = onebase.load(tmp_path / "a.gguf")
    for text in [*TEXTS, *some_texts()]:
        ids = base.tokenizer.encode(text)
        assert there.ids(text) == ids, text
        assert again.tokenizer.encode(text) == ids, text
    del there
    gc.collect()


@pytest.mark.parametrize(
    ("kind", "close"), [("F32", 1e-4), ("F16", 2e-2), ("BF16", 1e-1), ("Q8_0", 2e-1), ("Q4_1", 2e-1)]
)
def test_every_kind_of_weights_opens_and_says_the_same(kind: str, close: float, tmp_path: Path) -> None:
    """close: of log-probabilities, with what llama.cpp rounds on the way: activations too, to the type of the weights (to Q8 where those are Q4)."""
    base = base_of(own())
    base.export(tmp_path / "a.gguf", format="gguf", kind=kind)
    there = LlamaCpp(tmp_path / "a.gguf")
    ids = base.tokenizer.encode("hello there, 123 world", bos=True)
    found = there.ask(
        "completion", prompt=ids, n_predict=1, temperature=0.0, n_probs=20, post_sampling_probs=False
    )
    tops = found["completion_probabilities"][0]["top_logprobs"]
    ours = onebase.load(tmp_path / "a.gguf").logits(ids)[-1].float().log_softmax(-1)
    assert len(tops) == 20
    assert max(abs(ours[t["id"]].item() - t["logprob"]) for t in tops) < close
    assert tops[0]["id"] == int(ours.argmax())
    del there
    gc.collect()


def test_stretched_positions_turn_as_there(tmp_path: Path) -> None:
    """YaRN, beyond the context that it was stretched from."""
    base = base_of(own())
    cfg = changed(base.config, attention(rope=YARN))
    model = BaseModel(cfg)
    model.load_state_dict(base.loaded.model.state_dict())
    onebase.Base(LoadedBase(model.eval(), base.loaded.codec)).export(
        tmp_path / "a.gguf", format="gguf", kind="F32"
    )
    there = LlamaCpp(tmp_path / "a.gguf")
    ids = base.tokenizer.encode("hello there, 123 world " * 6, bos=True)
    assert len(ids) > 30
    found = there.ask(
        "completion", prompt=ids, n_predict=1, temperature=0.0, n_probs=20, post_sampling_probs=False
    )
    tops = found["completion_probabilities"][0]["top_logprobs"]
    for loaded, same in ((onebase.load(tmp_path / "a.gguf"), True), (base, False)):
        ours = loaded.logits(ids)[-1].float().log_softmax(-1)
        assert (max(abs(ours[t["id"]].item() - t["logprob"]) for t in tops) < 1e-4) == same
    del there
    gc.collect()


@pytest.mark.parametrize("kind", ["mean", "cls", "last"])
def test_vectors_of_texts_are_pooled_as_there(kind: Pooling, tmp_path: Path) -> None:
    base = base_of(own())
    loaded = replace(base.loaded, embedding=EmbeddingConfig(pooling=kind, normalise=True))
    onebase.Base(loaded).export(tmp_path / "a.gguf", format="gguf", kind="F32")
    there, here = LlamaCpp(tmp_path / "a.gguf", embeds=True), onebase.load(tmp_path / "a.gguf")
    for text in ("hello there, 123 world", "a", "some more of this text, and more of it"):
        (found,) = there.ask("embedding", content=text)[0]["embedding"]
        assert torch.allclose(here.embed([text])[0], torch.tensor(found), atol=1e-5), text
    del there
    gc.collect()


@pytest.mark.parametrize(
    "change",
    [
        {"llama.expert_count": 0, "llama.expert_used_count": 0, "llama.rope.scaling.finetuned": True},
        {"llama.rope.scaling.attn_factor": 0.5},
        {"llama.rope.scaling.attn_factor": 2.0, "llama.rope.scaling.type": "none"},
        {
            "llama.rope.scaling.attn_factor": 1.5,
            "llama.rope.scaling.type": "linear",
            "llama.rope.scaling.factor": 4.0,
        },
        {
            "llama.rope.scaling.attn_factor": 1.5,
            "llama.rope.scaling.type": "yarn",
            "llama.rope.scaling.factor": 4.0,
            "llama.rope.scaling.original_context_length": 16,
        },
        {"llama.attention.scale": 0.25, "llama.attention.layer_norm_epsilon": 1e-3},
        {"llama.attention.max_alibi_bias": 0.0, "llama.logit_scale": 1.0, "llama.rope.freq_base_swa": 5.0},
        {"llama.feed_forward_length": [96, 96], "llama.attention.head_count_kv": [2, 2]},
    ],
    ids=lambda c: ",".join(f"{k.removeprefix('llama.')}={v}" for k, v in c.items()),
)
def test_what_we_open_means_the_same_there(change: dict[str, Any], tmp_path: Path) -> None:
    """Keys that llama.cpp applies are applied, those that it does not are not."""
    base = base_of(own())
    base.export(tmp_path / "plain.gguf", format="gguf", kind="F32")
    file = with_keys(tmp_path / "plain.gguf", tmp_path / "a.gguf", change)
    there, here = LlamaCpp(file), onebase.load(file)
    assert agree(here, there)
    del there
    gc.collect()


def test_a_base_from_a_portable_recipe_goes_all_the_way(tmp_path: Path) -> None:
    """By the commands alone: pretrain, export, and llama.cpp continues a prompt as we do."""
    (tmp_path / "text.txt").write_text(CORPUS * 40, encoding="utf-8")
    recipe = f"""\
name: p
data:
  sources: [{{name: a, kind: folder, path: {tmp_path}, glob: "*.txt"}}]
model: {{width: 64, depth: 2, head_dim: 16, context: 128, vocab_size: 400, portable: true}}
train: {{steps: 8, batch_size: 2, sequence_length: 64, device: cpu}}
"""
    (tmp_path / "recipe.yaml").write_text(recipe)
    for words in (
        ["pretrain", tmp_path / "recipe.yaml", "--out", tmp_path / "run"],
        ["export", tmp_path / "run", "--format", "gguf", "-o", "kind=F32", "--out", tmp_path / "a.gguf"],
    ):
        said = command(*words)
        assert said.status == 0, said.err
    base = onebase.load(tmp_path / "run")
    there = LlamaCpp(tmp_path / "a.gguf")
    prompt = "hello there, 1234"
    assert there.ids(prompt) == base.tokenizer.encode(prompt)
    found = there.ask("completion", prompt=prompt, n_predict=12, temperature=0.0, return_tokens=True)
    with torch.no_grad():
        ids = base.tokenizer.encode(prompt, bos=True)
        for _ in range(12):
            ids.append(int(base.logits(ids)[-1].argmax()))
    assert found["tokens"] == ids[-12:]
    assert Roles.own() == base.tokenizer.roles
    del there
    gc.collect()
