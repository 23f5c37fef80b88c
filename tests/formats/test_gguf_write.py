"""GGUF out: what is written is read back equal, by us, by the gguf package and by transformers; what the format cannot say is named."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import AddedToken, decoders, models, normalizers

gguf = pytest.importorskip("gguf")

from onebase.base.config import BaseConfig, TextShape, text_base  # noqa: E402
from onebase.base.model import BaseModel  # noqa: E402
from onebase.errors import ConfigError  # noqa: E402
from onebase.formats.gguf import OpenedGGUF, open_gguf, save_gguf  # noqa: E402
from onebase.formats.gguf.families import FAMILIES  # noqa: E402
from onebase.formats.gguf.header import open_file, read_header  # noqa: E402
from onebase.formats.gguf.splits import SPLITS, named  # noqa: E402
from onebase.modality.text.roles import Roles  # noqa: E402
from onebase.model.config import RopeConfig, RopeScaling  # noqa: E402
from tests.formats.parity import close, shaken  # noqa: E402

LLAMA = FAMILIES[0]
ROLES = Roles(bos="<s>", eos="</s>", pad="</s>", stop=("</s>", "<end>"), before=("<s>",))
TEMPLATE = "{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}"
TEXTS = ("Hello there, hello!", "don't 12345  \n\n x", "naïve 中文 😀", "▁ odd", "")


def byte_level(pre: str = "smollm") -> tokenizers.Tokenizer:
    """A small trained tokenizer that splits as `pre` says."""
    inner = tokenizers.Tokenizer(models.BPE())
    found = named(pre)
    assert found is not None
    if found.normalizer is not None:
        inner.normalizer = found.normalizer
    inner.pre_tokenizer, inner.decoder = found.pre_tokenizer, decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in ("<s>", "</s>", "<end>")],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(["hello there, hello world: this is the text of 12345"] * 4, trainer)
    return inner


def sentence_piece(prefix: bool) -> tokenizers.Tokenizer:
    """A BPE with byte fallback, as Llama 2's."""
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        "<end>",
        *(f"<0x{b:02X}>" for b in range(256)),
        *"▁helotr",
        "he",
        "ll",
        "hell",
        "▁hell",
        "lo",
    ]
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("▁", "hell"), ("l", "o")]
    vocab = {t: i for i, t in enumerate(tokens)}
    inner = tokenizers.Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    steps = [normalizers.Replace(" ", "▁")]
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), *steps] if prefix else steps)
    back: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    inner.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)] if prefix else back)
    inner.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in ("<s>", "</s>", "<end>")]
    )
    return inner


def config(**more: Any) -> BaseConfig:
    return text_base(
        TextShape(
            width=64, depth=2, head_dim=16, kv_heads=2, ff_hidden=96, vocab_size=310, portable=True, **more
        )
    )


def changed(cfg: BaseConfig, change: Any) -> BaseConfig:
    """The config with every block changed."""
    trunk = cfg.trunks["text"]
    return replace(cfg, trunks={"text": replace(trunk, blocks=tuple(change(b) for b in trunk.blocks))})


def attention(**more: Any) -> Any:
    return lambda b: replace(b, attn=replace(b.attn, **more))


def round_trip(cfg: BaseConfig, path: Path, **how: Any) -> tuple[BaseModel, OpenedGGUF]:
    model = shaken(BaseModel(cfg))
    save_gguf(path, model, LLAMA, how.pop("inner", None) or byte_level(), ROLES, TEMPLATE, **how)
    return model, open_gguf(path)


LLAMA3 = RopeConfig(base=10000.0, scaling=RopeScaling(kind="llama3", factor=8.0, original=64))
YARN = RopeConfig(
    scaling=RopeScaling(
        kind="yarn", factor=4.0, low=1.0, high=32.0, original=16, attention=0.1 * math.log(4) + 1
    )
)
LINEAR = RopeConfig(base=500000.0, scaling=RopeScaling(kind="linear", factor=2.5))


@pytest.mark.parametrize(
    "cfg",
    [
        config(),
        config(tied=True),
        changed(config(), attention(rope=LLAMA3)),
        changed(config(), attention(rope=LINEAR)),
        changed(config(), attention(rope=YARN)),
        changed(config(), attention(bias=("q", "k", "v", "o"))),
        changed(config(), lambda b: replace(b, ff=replace(b.ff, bias=True))),
    ],
)
def test_what_is_written_is_read_back_bitwise(cfg: BaseConfig, tmp_path: Path) -> None:
    model, opened = round_trip(cfg, tmp_path / "a.gguf", kind="F32")
    for (name, a), (_, b) in zip(model.named_parameters(), opened.model.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    ids = torch.randint(0, 300, (1, 20))
    assert torch.equal(model.logits(ids), opened.model.logits(ids))
    save_gguf(
        tmp_path / "b.gguf", opened.model, LLAMA, opened.tokenizer, opened.roles, opened.template, kind="F32"
    )
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


@pytest.mark.parametrize(("kind", "dtype"), [("F16", torch.float16), ("BF16", torch.bfloat16)])
def test_half_precision_is_rounding_alone(kind: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    model, opened = round_trip(config(), tmp_path / "a.gguf", kind=kind)
    for (name, a), (_, b) in zip(model.named_parameters(), opened.model.named_parameters(), strict=True):
        assert torch.equal(a.to(dtype) if a.ndim == 2 else a, b), name


@pytest.mark.parametrize(("kind", "end"), [("Q8_0", "Q8_0"), ("Q4_1", "Q8_0")])
def test_blocks_are_those_of_the_package(kind: Any, end: str, tmp_path: Path) -> None:
    model, opened = round_trip(config(), tmp_path / "a.gguf", kind=kind)
    for part, found, name in (
        (model.trunk.blocks[1].ff.down, opened.model.trunk.blocks[1].ff.down, kind),
        (model.text.stem, opened.model.text.stem, end),
        (model.text.head, opened.model.text.head, end),
    ):
        to = gguf.GGMLQuantizationType[name]
        wanted = gguf.quants.dequantize(gguf.quants.quantize(part.weight.detach().numpy(), to), to)
        assert np.array_equal(wanted, found.weight.numpy())
    assert torch.equal(model.trunk.final_norm.weight, opened.model.trunk.final_norm.weight)


def test_rows_that_blocks_do_not_divide_stay_half_precision(tmp_path: Path) -> None:
    cfg = text_base(TextShape(width=48, depth=1, head_dim=16, ff_hidden=96, vocab_size=310, portable=True))
    round_trip(cfg, tmp_path / "a.gguf", kind="Q8_0")
    kinds = {n: e.kind.name for n, e in read_header(open_file(tmp_path / "a.gguf"), "a").tensors.items()}
    assert kinds["blk.0.ffn_down.weight"] == "Q8_0" and kinds["blk.0.ffn_up.weight"] == "F16"


@pytest.mark.parametrize("pre", [s.names[0] for s in SPLITS])
def test_tokenizer_roles_and_template_come_back(pre: str, tmp_path: Path) -> None:
    inner = byte_level(pre)
    _, opened = round_trip(config(), tmp_path / "a.gguf", inner=inner)
    name = read_header(open_file(tmp_path / "a.gguf"), "a").metadata["tokenizer.ggml.pre"]
    assert name == (
        "llama-bpe" if pre == "dbrx" else pre
    )  # the two differ where a token is not what its merges make
    assert (opened.roles, opened.template) == (ROLES, TEMPLATE)
    for text in TEXTS:
        assert opened.tokenizer.encode(text).ids == inner.encode(text).ids
        assert opened.tokenizer.decode(inner.encode(text).ids) == inner.decode(inner.encode(text).ids)
    assert opened.tokenizer.token_to_id("<end>") == inner.token_to_id("<end>")


@pytest.mark.parametrize("prefix", [True, False])
def test_a_tokenizer_with_byte_fallback_comes_back(prefix: bool, tmp_path: Path) -> None:
    inner = sentence_piece(prefix)
    _, opened = round_trip(config(), tmp_path / "a.gguf", inner=inner)
    assert opened.roles == replace(ROLES, unk="<unk>")
    for text in (*TEXTS, "hello hell ello lol", " hell  hello"):
        assert opened.tokenizer.encode(text).ids == inner.encode(text).ids
        assert opened.tokenizer.decode(inner.encode(text).ids) == inner.decode(inner.encode(text).ids)


def test_transformers_reads_the_file(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")  # without which it reads no GGUF
    model, _ = round_trip(config(), tmp_path / "a.gguf", kind="F32")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="a.gguf", dtype=torch.float32
    )
    ids = torch.randint(0, 300, (2, 15))
    with torch.no_grad():
        close(model.logits(ids), theirs.eval()(input_ids=ids).logits)


SCALING = YARN.scaling
assert SCALING is not None
QK = attention(qk_norm=text_base(TextShape(width=64, depth=1)).trunks["text"].blocks[0].attn.qk_norm)


@pytest.mark.parametrize(
    ("cfg", "named"),
    [
        (changed(config(), attention(window=8)), "window"),
        (changed(config(), attention(softcap=30.0)), "softcap"),
        (changed(config(), attention(rope=None)), "rotary"),
        (changed(config(), attention(scale=0.5)), "scale"),
        (changed(config(), QK), "qk_norm"),
        (changed(config(), lambda b: replace(b, ff=replace(b.ff, activation="relu2"))), "activation"),
        (changed(config(), attention(rope=RopeConfig(base=1 / 3 + 1e4))), "rope.base"),
        (
            changed(config(), attention(rope=replace(YARN, scaling=replace(SCALING, attention=1.0)))),
            "attention",
        ),
        (
            changed(config(), attention(rope=replace(YARN, scaling=replace(SCALING, truncate=False)))),
            "truncate",
        ),
        (text_base(TextShape(width=64, depth=1)), "cannot express"),
    ],
)
def test_what_the_format_cannot_say_is_refused_by_name(cfg: BaseConfig, named: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=named):
        save_gguf(tmp_path / "a.gguf", BaseModel(cfg), LLAMA, byte_level(), ROLES)
    assert not list(tmp_path.iterdir())


def test_a_splitting_without_a_name_is_refused_unless_one_is_given(tmp_path: Path) -> None:
    inner = byte_level()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.Digits(), tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    model = shaken(BaseModel(config()))
    with pytest.raises(ConfigError, match="no name"):
        save_gguf(tmp_path / "a.gguf", model, LLAMA, inner, ROLES)
    save_gguf(tmp_path / "a.gguf", model, LLAMA, inner, ROLES, pre="llama-bpe")
    assert open_gguf(tmp_path / "a.gguf").template is None


def test_numbers_beyond_half_precision_are_named_and_nothing_is_left(tmp_path: Path) -> None:
    model = shaken(BaseModel(config()))
    with torch.no_grad():
        model.trunk.blocks[1].ff.up.weight[0, 0] = 1e6
    with pytest.raises(ConfigError, match=r"blk\.1\.ffn_up"):
        save_gguf(tmp_path / "a.gguf", model, LLAMA, byte_level(), ROLES)
    assert not list(tmp_path.iterdir())
