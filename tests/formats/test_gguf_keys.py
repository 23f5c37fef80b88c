"""Keys of a GGUF file that change nothing open it, those that would are refused by name, and pooling comes in and goes out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

gguf = pytest.importorskip("gguf")

import onebase  # noqa: E402
from onebase.base.folder import LoadedBase  # noqa: E402
from onebase.base.model import BaseModel  # noqa: E402
from onebase.errors import ConfigError  # noqa: E402
from onebase.formats.gguf import open_base, open_gguf  # noqa: E402
from onebase.formats.gguf.header import open_file, read_header  # noqa: E402
from onebase.modality.text.codec import TextCodec  # noqa: E402
from onebase.modality.text.pooling import EmbeddingConfig  # noqa: E402
from onebase.modality.text.tokenizer import Tokenizer  # noqa: E402
from tests.formats.gguf_files import with_keys  # noqa: E402
from tests.formats.parity import shaken  # noqa: E402
from tests.formats.test_gguf_write import ROLES, byte_level, config  # noqa: E402


def base(embedding: EmbeddingConfig | None = None) -> LoadedBase:
    model = shaken(BaseModel(config())).requires_grad_(False).eval()
    return LoadedBase(model, TextCodec(Tokenizer(byte_level(), ROLES)), embedding=embedding)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "plain.gguf"
    onebase.Base(base()).export(path, format="gguf", kind="F32")
    return path


HARMLESS: dict[str, Any] = {
    "llama.expert_used_count": 0,
    "llama.expert_count": 0,
    "llama.expert_shared_count": 0,
    "llama.expert_weights_scale": 1.0,
    "llama.expert_gating_func": 1,
    "llama.rope.scaling.finetuned": True,
    "llama.rope.scaling.attn_factor": 1.0,
    "llama.attention.max_alibi_bias": 0.0,
    "llama.attention.clamp_kqv": 0.0,
    "llama.attention.scale": 0.25,
    "llama.attention.causal": True,
    "llama.attention.sliding_window": 0,
    "llama.attention.layer_norm_epsilon": 1e-5,
    "llama.logit_scale": 1.0,
    "llama.embedding_length_out": 64,
    "llama.attention.key_length_swa": 16,
    "llama.feed_forward_length": [96, 96],
    "llama.attention.head_count": [4, 4],
    "llama.attention.head_count_kv": [2, 2],
    "llama.rope.dimension_count": None,
    "llama.use_parallel_residual": False,
}


@pytest.mark.parametrize("key", HARMLESS)
def test_a_harmless_key_opens_and_changes_nothing(key: str, plain: Path, tmp_path: Path) -> None:
    opened = open_gguf(with_keys(plain, tmp_path / "a.gguf", {key: HARMLESS[key]}))
    ids = torch.randint(3, 300, (1, 20))
    assert torch.equal(opened.model.logits(ids), open_gguf(plain).model.logits(ids))


def test_what_was_not_applied_is_said_and_in_the_record(
    plain: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = {"llama.expert_used_count": 0, "llama.rope.scaling.finetuned": True}
    record = open_base(with_keys(plain, tmp_path / "a.gguf", keys)).record
    assert record.get("imported.unread") == sorted(keys)
    assert all(key in caplog.text for key in keys)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("expert_count", 8),
        ("expert_used_count", 2),
        ("expert_shared_count", 1),
        ("attention.sliding_window", 4),
        ("attention.max_alibi_bias", 8.0),
        ("attention.clamp_kqv", 3.0),
        ("attention.scale", 0.5),
        ("attention.causal", False),
        ("logit_scale", 2.0),
        ("residual_scale", 0.5),
        ("embedding_scale", 12.0),
        ("nextn_predict_layers", 1),
        ("final_logit_softcapping", 30.0),
        ("embedding_length_out", 32),
        ("feed_forward_length", [96, 48]),
        ("expert_count", [8, 0]),
        ("of_tomorrow", 1),
    ],
)
def test_a_harmful_key_is_refused_by_its_name(key: str, value: Any, plain: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"llama\.{key}"):
        open_gguf(with_keys(plain, tmp_path / "a.gguf", {f"llama.{key}": value}))


@pytest.mark.parametrize(
    "key",
    [
        "tokenizer.ggml.pre",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.model",
        "tokenizer.ggml.merges",
        "llama.context_length",
        "llama.embedding_length",
        "llama.attention.layer_norm_rms_epsilon",
    ],
)
def test_a_missing_key_is_named_and_no_file_that_gguf_does_not_have(
    key: str, plain: Path, tmp_path: Path
) -> None:
    change = {key: None} | ({"llama.vocab_size": None} if key.endswith("tokens") else {})
    with pytest.raises(ConfigError) as e:
        open_gguf(with_keys(plain, tmp_path / "a.gguf", change))
    said = f"{e.value.cause} {e.value.remedy}"
    assert key in said and ".json" not in said


KINDS = {"mean": 1, "cls": 2, "last": 3}


@pytest.mark.parametrize("kind", KINDS)
def test_embed_pools_as_the_file_says(kind: str, plain: Path, tmp_path: Path) -> None:
    found = onebase.load(with_keys(plain, tmp_path / "a.gguf", {"llama.pooling_type": KINDS[kind]}))
    text = "hello there, 123 world"
    hidden_TD = found.hidden(found.tokenizer.framed(found.tokenizer.encode(text)))
    wanted = {"mean": hidden_TD.mean(0), "cls": hidden_TD[0], "last": hidden_TD[-1]}
    assert torch.allclose(found.embed([text])[0], wanted[kind], atol=1e-5)


@pytest.mark.parametrize("value", [None, 0])
def test_a_file_that_pools_not_says_nothing_of_texts(value: int | None, plain: Path, tmp_path: Path) -> None:
    assert open_base(with_keys(plain, tmp_path / "a.gguf", {"llama.pooling_type": value})).embedding is None


@pytest.mark.parametrize(("value", "said"), [(4, "rank"), (5, "pooling_type"), (True, "pooling_type")])
def test_other_ways_to_pool_are_refused(value: Any, said: str, plain: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        open_gguf(with_keys(plain, tmp_path / "a.gguf", {"llama.pooling_type": value}))


@pytest.mark.parametrize(
    "cfg",
    [
        EmbeddingConfig(pooling="last", normalise=True),
        EmbeddingConfig(pooling="mean", limit=32),
        EmbeddingConfig(pooling="cls"),
    ],
)
def test_how_a_text_becomes_a_vector_goes_out_and_comes_back(cfg: EmbeddingConfig, tmp_path: Path) -> None:
    one = base(cfg)
    onebase.Base(one).export(tmp_path / "a.gguf", format="gguf", kind="F32")
    head = read_header(open_file(tmp_path / "a.gguf"), "a").metadata
    assert head["llama.pooling_type"] == KINDS[cfg.pooling]
    again = onebase.load(tmp_path / "a.gguf")
    assert again.loaded.embedding == cfg
    texts = ["hello there", "a longer text, 12345 and more of it " * 3]
    assert torch.allclose(onebase.Base(one).embed(texts), again.embed(texts), atol=1e-6)


def test_pooling_that_gguf_has_no_word_for_is_refused_before_writing(tmp_path: Path) -> None:
    for cfg in (EmbeddingConfig(pooling="max"), EmbeddingConfig(ends=2), EmbeddingConfig(filled=True)):
        with pytest.raises(ConfigError, match="GGUF cannot express"):
            onebase.Base(replace(base(), embedding=cfg)).export(tmp_path / "a.gguf", format="gguf")
    assert not list(tmp_path.iterdir())
