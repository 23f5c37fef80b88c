"""Every architecture that is written as GGUF: read back with equal weights, and in llama.cpp the same probabilities and greedy continuation."""

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

gguf = pytest.importorskip("gguf")

import onebase  # noqa: E402
from onebase.base.config import BaseConfig  # noqa: E402
from onebase.base.folder import LoadedBase  # noqa: E402
from onebase.base.model import BaseModel  # noqa: E402
from onebase.errors import ConfigError  # noqa: E402
from onebase.formats.family import plain  # noqa: E402
from onebase.formats.gguf import open_gguf, save_gguf  # noqa: E402
from onebase.formats.gguf.families import FAMILIES  # noqa: E402
from onebase.formats.gguf.header import open_file, read_header  # noqa: E402
from onebase.modality.text.codec import TextCodec  # noqa: E402
from onebase.modality.text.tokenizer import Tokenizer  # noqa: E402
from onebase.model.config import NormConfig, Norms, RopeConfig, RopeScaling  # noqa: E402
from tests.formats.llama_cpp import CORPUS, LlamaCpp  # noqa: E402
from tests.formats.parity import shaken  # noqa: E402
from tests.formats.test_gguf_write import (  # noqa: E402
    LLAMA3,
    ROLES,
    YARN,
    attention,
    byte_level,
    changed,
    config,
    sentence_piece,
)

Change = Callable[[BaseConfig], BaseConfig]


def codec(cfg: BaseConfig, **more: Any) -> BaseConfig:
    return replace(cfg, codecs={"text": replace(cfg.text, **more)})


def sandwich(cfg: BaseConfig, period: int, local: RopeConfig | None, offset: float = 0.0) -> BaseConfig:
    """Norms on both sides, a window of 6 tokens in all but the last of every `period` blocks."""
    norm = NormConfig(eps=1e-6, offset=offset)
    trunk = cfg.trunks["text"]
    blocks = []
    for i, b in enumerate(trunk.blocks * 4):
        slides = (i + 1) % period != 0
        attn = replace(b.attn, window=6 if slides else None, qk_norm=None if local is None else norm)
        attn = replace(attn, rope=local if slides and local else attn.rope)
        ff = replace(b.ff, activation="geglu_tanh")
        blocks.append(replace(b, attn=attn, ff=ff, norms=Norms(norm=norm, where="sandwich")))
    trunk = replace(trunk, blocks=tuple(blocks), final_norm=norm)
    return codec(replace(cfg, trunks={"text": trunk}), tied=True, scale=trunk.width**0.5)


def gemma2(cfg: BaseConfig) -> BaseConfig:
    return codec(changed(sandwich(cfg, 2, None), attention(softcap=20.0)), softcap=5.0)


def gemma3(cfg: BaseConfig, offset: float = 0.0) -> BaseConfig:
    wide = RopeConfig(base=1e6, scaling=RopeScaling(kind="linear", factor=8.0))
    return sandwich(changed(cfg, attention(rope=wide)), 6, RopeConfig(base=10000.0), offset)


def phi3(cfg: BaseConfig) -> BaseConfig:
    tables = {"short": tuple(1 + 0.125 * i for i in range(4)), "long": tuple(2 + 0.5 * i for i in range(4))}
    scaling = RopeScaling(kind="longrope", original=512, attention=1.25, **tables)  # type: ignore[arg-type]
    return changed(cfg, attention(rope=RopeConfig(dim=8, scaling=scaling)))


def gpt2(cfg: BaseConfig) -> BaseConfig:
    norm = NormConfig(kind="layer", eps=1e-5)
    cfg = changed(cfg, attention(rope=None, bias=("q", "k", "v", "o"), kv_heads=4))
    cfg = changed(
        cfg, lambda b: replace(b, ff=replace(b.ff, activation="gelu_tanh", bias=True), norms=Norms(norm=norm))
    )
    trunk = replace(cfg.trunks["text"], final_norm=norm)
    return codec(replace(cfg, trunks={"text": trunk}), positions=cfg.text.context, tied=True)


NORM = NormConfig(eps=1e-6)
SHAPES: dict[str, tuple[str, Change]] = {
    "qwen2": ("qwen2", lambda c: changed(c, attention(bias=("q", "k", "v")))),
    "qwen2 tied, stretched": (
        "qwen2",
        lambda c: codec(changed(c, attention(bias=("q", "k", "v"), rope=YARN)), tied=True),
    ),
    "qwen3": ("qwen3", lambda c: changed(c, attention(qk_norm=NORM, head_dim=32))),
    "gemma2": ("gemma2", gemma2),
    "gemma3": ("gemma3", gemma3),
    "gemma3 with another period": (
        "gemma3",
        lambda c: sandwich(changed(c, attention(rope=RopeConfig(base=1e6))), 3, RopeConfig(base=5000.0)),
    ),
    "gemma3 with bounded logits": ("gemma3", lambda c: codec(gemma3(c), softcap=5.0)),
    "phi3": ("phi3", lambda c: changed(phi3(c), attention(window=4096))),
    "gpt2": ("gpt2", gpt2),
}


def model_of(change: Change, vocabulary: int = 310) -> BaseModel:
    return shaken(BaseModel(codec(change(config()), vocab_size=vocabulary))).requires_grad_(False).eval()


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_written_is_read_back_bitwise(name: str, tmp_path: Path) -> None:
    arch, change = SHAPES[name]
    model = model_of(change)
    family = next(f for f in FAMILIES if f.model_types == (arch,))
    save_gguf(tmp_path / "a.gguf", model, family, byte_level(), ROLES, kind="F32")
    opened = open_gguf(tmp_path / "a.gguf")
    assert (opened.architecture, plain(opened.cfg)) == (arch, plain(model.cfg))
    for (name, a), (_, b) in zip(model.named_parameters(), opened.model.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    ids = torch.randint(0, 300, (1, 20), generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.logits(ids), opened.model.logits(ids))
    save_gguf(tmp_path / "b.gguf", opened.model, family, opened.tokenizer, opened.roles, kind="F32")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_1"])
def test_what_is_added_to_the_weights_of_a_norm_is_in_the_file(kind: Any, tmp_path: Path) -> None:
    """Gemma's checkpoints hold w of 1 + w, GGUF holds 1 + w; it is not rounded."""
    model = model_of(lambda c: gemma3(c, offset=1.0))
    base = onebase.Base(LoadedBase(model, TextCodec(Tokenizer(byte_level(), ROLES))))
    base.export(tmp_path / "a.gguf", format="gguf", kind=kind)
    found = open_gguf(tmp_path / "a.gguf").model
    ours, theirs = dict(model.named_parameters()), dict(found.named_parameters())
    norms = [n for n in ours if "norm" in n]
    assert len(norms) == 8 * 6 + 1
    for n in norms:
        assert torch.equal(ours[n] + 1, theirs[n]), n
    ids = torch.randint(0, 300, (1, 20), generator=torch.Generator().manual_seed(0))
    close = {"F16": 2e-2, "Q8_0": 0.5, "Q4_1": 3.0}[kind]
    assert float((model.logits(ids) - found.logits(ids)).abs().max()) < close


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: codec(gemma2(c), tied=False), "tied"),
        (lambda c: codec(gemma2(c), softcap=None), "final_logit_softcapping"),
        (lambda c: codec(gemma2(c), scale=3.0), "scale"),
        (lambda c: changed(gemma3(c), attention(scale=0.5)), "scale"),
        (lambda c: changed(gemma3(c), attention(window=None)), "rope"),
        (lambda c: changed(gemma2(c), attention(window=6)), "window"),
        (lambda c: changed(SHAPES["qwen3"][1](c), attention(window=6)), "window"),
        (lambda c: changed(phi3(c), attention(window=6)), "window"),
        (lambda c: changed(SHAPES["qwen2"][1](c), attention(rope=LLAMA3)), "scaling"),
        (
            lambda c: changed(SHAPES["qwen3"][1](c), attention(qk_norm=NormConfig(eps=1e-3))),
            "qk_norm",
        ),
    ],
)
def test_what_an_architecture_cannot_say_is_refused_by_name(
    change: Change, named: str, tmp_path: Path
) -> None:
    base = onebase.Base(LoadedBase(model_of(change), TextCodec(Tokenizer(byte_level(), ROLES))))
    with pytest.raises(ConfigError, match=named):
        base.export(tmp_path / "a.gguf", format="gguf")
    assert not list(tmp_path.iterdir())


WORDS: dict[str, Callable[[], Tokenizer]] = {
    "bytes": lambda: Tokenizer.train([CORPUS] * 8, 420, portable=True),
    "pieces": lambda: Tokenizer(sentence_piece(False), ROLES),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("kind", "close"), [("F32", 5e-3), ("Q8_0", 0.3)])
def test_llama_cpp_says_the_same(name: str, kind: str, close: float, tmp_path: Path) -> None:
    """close: of log-probabilities. llama.cpp looks GELU up in a table of half precision, and rounds activations to 8 bits where weights are."""
    arch, change = SHAPES[name]
    tokenizer = WORDS["pieces" if arch.startswith("gemma") else "bytes"]()
    model = model_of(change, tokenizer.vocab_size + 3)
    base = onebase.Base(LoadedBase(model, TextCodec(tokenizer)))
    base.export(tmp_path / "a.gguf", format="gguf", kind=kind)
    head = read_header(open_file(tmp_path / "a.gguf"), "a").metadata
    assert head["general.architecture"] == arch
    there, here = LlamaCpp(tmp_path / "a.gguf"), onebase.load(tmp_path / "a.gguf")
    text = "hello there, 123 world " * 4
    assert there.ids(text) == base.tokenizer.encode(text) == here.tokenizer.encode(text)
    ids = base.tokenizer.encode(text, bos=True)
    assert len(ids) > 24  # more than windows have
    how = {"n_probs": 20, "post_sampling_probs": False, "ignore_eos": True, "temperature": 0.0}
    found = there.ask("completion", prompt=ids, n_predict=12, return_tokens=True, **how)
    tokens = found["tokens"]
    ours = here.logits(ids + tokens)[len(ids) - 1 : -1].float().log_softmax(-1)
    if kind == "F32":
        ends = torch.tensor(sorted(base.tokenizer.stop_ids))
        assert ours.index_fill(1, ends, -torch.inf).argmax(1).tolist() == tokens
    said = found["completion_probabilities"]
    assert len(said) > 4  # nothing is said of a token that ends inside a letter
    for one in said:
        rows = [row for row, token in zip(ours, tokens, strict=True) if token == one["id"]]
        tops = one["top_logprobs"]
        assert min(max(abs(row[t["id"]].item() - t["logprob"]) for t in tops) for row in rows) < close
    del there
    gc.collect()
