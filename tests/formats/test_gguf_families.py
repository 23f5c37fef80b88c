"""Each architecture of GGUF: a tiny random model of transformers, written by the gguf package, says the same here."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.formats.parity import close, shaken

gguf = pytest.importorskip("gguf")
transformers = pytest.importorskip("transformers")

from onebase.errors import ArtifactError, ConfigError  # noqa: E402
from onebase.formats.gguf import open_gguf  # noqa: E402
from tests.formats.gguf_files import bytes_vocab, interleaved, named, write  # noqa: E402

VOCAB = bytes_vocab(["<s>", "</s>"])
SMALL: dict[str, Any] = {
    "vocab_size": len(VOCAB["tokenizer.ggml.tokens"]),
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}


def keys(arch: str, cfg: Any, **more: Any) -> dict[str, Any]:
    """The metadata that a converter writes of a config."""
    theta = cfg.rope_parameters.get("rope_theta") if "full_attention" not in cfg.rope_parameters else None
    sizes = {
        "block_count": cfg.num_hidden_layers,
        "context_length": cfg.max_position_embeddings,
        "embedding_length": cfg.hidden_size,
        "feed_forward_length": cfg.intermediate_size,
        "attention.head_count": cfg.num_attention_heads,
        "attention.head_count_kv": cfg.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": cfg.rms_norm_eps,
        "rope.freq_base": theta,
    } | more
    return {f"{arch}.{k}": v for k, v in sizes.items() if v is not None} | VOCAB


def check(theirs: Any, path: Path) -> Any:
    """Logits over more tokens than the windows have, and again with a cache."""
    opened = open_gguf(path)
    size = theirs.config.vocab_size
    ids = torch.randint(3, size, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        close(opened.model.logits(ids), theirs.eval()(input_ids=ids).logits)
    return opened


def made(kind: str, cfg: Any) -> Any:
    return shaken(getattr(transformers, kind)(cfg))


def rotated(arch: str, model: Any) -> dict[str, Any]:
    """The tensors of a Llama as its converter stores them."""
    cfg, out = model.config, {}
    for name, x in named(arch, model, cfg.num_hidden_layers).items():
        heads = {"attn_q": cfg.num_attention_heads, "attn_k": cfg.num_key_value_heads}.get(
            name.split(".")[-2]
        )
        out[name] = interleaved(x, heads) if heads else x
    return out


@pytest.mark.parametrize(
    "more", [{}, {"attention_bias": True, "mlp_bias": True}, {"tie_word_embeddings": True}]
)
def test_llama(more: dict[str, Any], tmp_path: Path) -> None:
    theirs = made("LlamaForCausalLM", transformers.LlamaConfig(**SMALL | more))
    tensors = rotated("llama", theirs)
    opened = check(theirs, write(tmp_path / "a.gguf", "llama", keys("llama", theirs.config), tensors))
    assert opened.cfg.text.tied == bool(more.get("tie_word_embeddings"))


def test_llama_with_linear_scaling(tmp_path: Path) -> None:
    rope = {"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0}
    theirs = made("LlamaForCausalLM", transformers.LlamaConfig(**SMALL, rope_parameters=rope))
    scaling = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
    check(
        theirs,
        write(
            tmp_path / "a.gguf", "llama", keys("llama", theirs.config, **scaling), rotated("llama", theirs)
        ),
    )


@pytest.mark.parametrize(("low", "kind"), [(1.0, "llama3"), (2.0, "longrope")])
def test_llama3_divisors_of_angles(low: float, kind: str, tmp_path: Path) -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": low,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    sizes = SMALL | {"max_position_embeddings": 65536, "head_dim": 32}
    theirs = made("LlamaForCausalLM", transformers.LlamaConfig(**sizes, rope_parameters=rope))
    # As the converter makes them: by wavelength in tokens.
    table = []
    for i in range(16):
        wavelength = 2 * torch.pi * 10000.0 ** (2 * i / 32)
        smooth = min(1.0, max(0.0, (8192 / wavelength - low) / (4.0 - low)))
        table.append(1 / ((1 - smooth) / 8.0 + smooth))
    tensors = rotated("llama", theirs) | {"rope_freqs.weight": torch.tensor(table)}
    more = {"attention.key_length": 32, "attention.value_length": 32, "rope.dimension_count": 32}
    opened = check(theirs, write(tmp_path / "a.gguf", "llama", keys("llama", theirs.config, **more), tensors))
    found = opened.cfg.trunks["text"].blocks[0].attn.rope.scaling
    assert found.kind == kind
    if kind == "llama3":
        assert found.factor == 8.0


def test_qwen2(tmp_path: Path) -> None:
    theirs = made("Qwen2ForCausalLM", transformers.Qwen2Config(**SMALL))
    tensors = named("qwen2", theirs, 3)
    opened = check(theirs, write(tmp_path / "a.gguf", "qwen2", keys("qwen2", theirs.config), tensors))
    assert opened.cfg.trunks["text"].blocks[0].attn.bias == ("q", "k", "v")


def test_qwen3(tmp_path: Path) -> None:
    theirs = made("Qwen3ForCausalLM", transformers.Qwen3Config(**SMALL | {"head_dim": 32}))
    more = {"attention.key_length": 32, "attention.value_length": 32}
    check(
        theirs,
        write(tmp_path / "a.gguf", "qwen3", keys("qwen3", theirs.config, **more), named("qwen3", theirs, 3)),
    )


def gemma(arch: str, kind: str, cfg: Any, path: Path, **more: Any) -> None:
    theirs = made(kind, cfg)
    tensors = named(arch, theirs, cfg.num_hidden_layers)
    stored = {n: x + 1 if n.endswith("norm.weight") else x for n, x in tensors.items()}
    more |= {"attention.key_length": 16, "attention.value_length": 16, "attention.sliding_window": 4}
    check(theirs, write(path / "a.gguf", arch, keys(arch, cfg, **more), stored))


def test_gemma2(tmp_path: Path) -> None:
    sizes = SMALL | {"sliding_window": 4, "query_pre_attn_scalar": 16, "tie_word_embeddings": True}
    caps = {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}
    cfg = transformers.Gemma2Config(**sizes, **caps, attn_implementation="eager")
    gemma("gemma2", "Gemma2ForCausalLM", cfg, tmp_path, **caps)


@pytest.mark.parametrize("factor", [1.0, 8.0])
def test_gemma3(factor: float, tmp_path: Path) -> None:
    rope = {
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": factor},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    }
    sizes = SMALL | {"sliding_window": 4, "query_pre_attn_scalar": 16, "num_hidden_layers": 7}
    cfg = transformers.Gemma3TextConfig(**sizes | {"tie_word_embeddings": True}, rope_parameters=rope)
    more: dict[str, Any] = {"rope.freq_base": 1e6}
    if factor != 1.0:
        more |= {"rope.scaling.type": "linear", "rope.scaling.factor": factor}
    gemma("gemma3", "Gemma3ForCausalLM", cfg, tmp_path, **more)


@pytest.mark.parametrize("long", [False, True])
def test_phi3(long: bool, tmp_path: Path) -> None:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
    more: dict[str, Any] = {"attention.sliding_window": 6, "rope.dimension_count": 16}
    tables: dict[str, Any] = {}
    context = 64
    if long:
        short, far = [1.0 + 0.1 * i for i in range(8)], [1.5 + 0.2 * i for i in range(8)]
        context = 16
        original = 8
        rope |= {"rope_type": "longrope", "short_factor": short, "long_factor": far}
        rope |= {"original_max_position_embeddings": original, "factor": 2.0}
        tables = {
            "rope_factors_long.weight": torch.tensor(far),
            "rope_factors_short.weight": torch.tensor(short),
        }
        more |= {"rope.scaling.original_context_length": original}
        more |= {
            "rope.scaling.attn_factor": float(
                (1 + torch.log(torch.tensor(2.0)) / torch.log(torch.tensor(8.0))) ** 0.5
            )
        }
    sizes = {k: v for k, v in SMALL.items() if k != "head_dim"} | {"max_position_embeddings": context}
    cfg = transformers.Phi3Config(
        **sizes,
        sliding_window=6,
        rope_parameters=rope,
        original_max_position_embeddings=8 if long else context,
    )
    theirs = made("Phi3ForCausalLM", cfg)
    check(
        theirs,
        write(tmp_path / "a.gguf", "phi3", keys("phi3", cfg, **more), named("phi3", theirs, 3) | tables),
    )


def test_gpt2(tmp_path: Path) -> None:
    size = SMALL["vocab_size"]
    cfg = transformers.GPT2Config(vocab_size=size, n_embd=64, n_layer=3, n_head=4, n_positions=32)
    theirs = made("GPT2LMHeadModel", cfg)
    tensors = {
        n: x.T if x.ndim == 2 and n.startswith("blk") else x for n, x in named("gpt2", theirs, 3).items()
    }
    sizes = {"block_count": 3, "context_length": 32, "embedding_length": 64, "feed_forward_length": 256}
    more: dict[str, Any] = {"attention.head_count": 4, "attention.layer_norm_epsilon": 1e-5}
    metadata = {f"gpt2.{k}": v for k, v in (sizes | more).items()} | VOCAB
    check(theirs, write(tmp_path / "a.gguf", "gpt2", metadata, tensors))


def test_a_split_file_answers_as_a_whole_one(tmp_path: Path) -> None:
    theirs = made("LlamaForCausalLM", transformers.LlamaConfig(**SMALL))
    write(tmp_path / "a.gguf", "llama", keys("llama", theirs.config), rotated("llama", theirs), parts=11)
    parts = sorted(tmp_path.iterdir())
    assert [p.name for p in parts] == [f"a-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    opened = check(theirs, parts[0])
    assert opened.files == tuple(parts)


def test_every_type_in_a_model_and_in_another_number_format(tmp_path: Path) -> None:
    theirs = made("LlamaForCausalLM", transformers.LlamaConfig(**SMALL))
    tensors = rotated("llama", theirs)
    kinds = {"token_embd.weight": "F16", "output.weight": "BF16"}
    kinds |= {f"blk.0.{n}.weight": k for n, k in (("ffn_up", "Q4_0"), ("attn_q", "Q5_1"), ("attn_v", "Q8_0"))}
    path = write(tmp_path / "a.gguf", "llama", keys("llama", theirs.config), tensors, kinds)
    opened = open_gguf(path)
    found = dict(opened.model.named_parameters())
    assert found["codecs.text.stem.weight"].dtype == torch.float16
    assert found["codecs.text.head.weight"].dtype == torch.bfloat16
    assert found["trunks.text.blocks.0.ff.up.weight"].dtype == torch.float32
    assert opened.kinds == {"BF16": 1, "F16": 1, "F32": 25, "Q4_0": 1, "Q5_1": 1, "Q8_0": 1}
    halves = open_gguf(path, dtype=torch.bfloat16).model
    assert {p.dtype for p in halves.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("change", "named_"),
    [
        ({"llama.block_count": None}, "llama.block_count"),
        ({"llama.attention.layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon"),
        ({"llama.expert_count": 8}, "llama.expert_count"),
        ({"llama.logit_scale": 2.0}, "llama.logit_scale"),
        ({"llama.rope.scaling.type": "ntk", "llama.rope.scaling.factor": 4.0}, "ntk"),
        ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.yarn_attn_factor": 2.0}, "yarn_attn_factor"),
        ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.yarn_log_multiplier": 0.1}, "yarn_log"),
        ({"llama.attention.sliding_window": 4}, "sliding_window"),
        ({"llama.rope.dimension_count": 8}, "dimension_count"),
        ({"llama.attention.value_length": 8}, "value_length"),
        ({"llama.block_count": 2**31}, "block_count"),
        ({"llama.embedding_length": 2**31}, "embedding_length"),
        ({"llama.feed_forward_length": 100}, "ffn_"),
        ({"tokenizer.ggml.pre": "of-tomorrow"}, "tokenizer.ggml.pre.*of-tomorrow"),
        ({"tokenizer.ggml.model": "bert"}, "tokenizer.ggml.model"),
        ({"tokenizer.ggml.eos_token_id": 5000}, "eos_token_id"),
    ],
)
def test_what_a_file_says_is_refused_by_name(change: dict[str, Any], named_: str, tmp_path: Path) -> None:
    theirs = made("LlamaForCausalLM", transformers.LlamaConfig(**SMALL))
    metadata = {k: v for k, v in (keys("llama", theirs.config) | change).items() if v is not None}
    path = write(tmp_path / "a.gguf", "llama", metadata, rotated("llama", theirs))
    with pytest.raises((ConfigError, ArtifactError), match=named_):
        open_gguf(path)


def test_an_unknown_architecture_and_an_unknown_tensor_are_named(tmp_path: Path) -> None:
    theirs = made("LlamaForCausalLM", transformers.LlamaConfig(**SMALL))
    metadata, tensors = keys("llama", theirs.config), rotated("llama", theirs)
    with pytest.raises(ConfigError, match="mamba"):
        open_gguf(write(tmp_path / "a.gguf", "mamba", metadata, tensors))
    odd = tensors | {"blk.0.attn_sinks.weight": torch.ones(4)}
    with pytest.raises(ArtifactError, match="attn_sinks"):
        open_gguf(write(tmp_path / "b.gguf", "llama", metadata, odd))
    del tensors["blk.1.ffn_up.weight"]
    with pytest.raises(ArtifactError, match=r"blk\.1\.ffn_up"):
        open_gguf(write(tmp_path / "c.gguf", "llama", metadata, tensors))
