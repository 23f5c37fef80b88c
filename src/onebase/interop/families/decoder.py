"""What the Llama-like decoders share: the names of their tensors, rotary positions, the text codec."""

from collections.abc import Sequence
from typing import Any

from onebase.base.config import BaseConfig
from onebase.codec.text.modules import TextCodecConfig
from onebase.interop.family import Tree
from onebase.interop.reader import Reader
from onebase.interop.rules import Ignore, Rule, Tie, rename
from onebase.model.config import Activation, RopeConfig, RopeScaling, TrunkConfig

GATED: dict[str, Activation] = {
    "silu": "swiglu",
    "swish": "swiglu",
    "gelu": "geglu",
    "gelu_pytorch_tanh": "geglu_tanh",
    "gelu_new": "geglu_tanh",
}
THEIRS = {"swiglu": "silu", "geglu": "gelu", "geglu_tanh": "gelu_pytorch_tanh"}
CACHED = Ignore(r".*\.rotary_emb\.inv_freq", "rotary angles follow from the config")


def text_codec(
    r: Reader, *, context: int, scale: float | None = None, softcap: float | None = None
) -> TextCodecConfig:
    """Vocabulary, context and ties. A checkpoint of a trunk alone (no `lm_head`, not tied) has no head."""
    tied = r.get("tie_word_embeddings", bool, True)
    head = tied or not r.tensors or "lm_head.weight" in r.tensors
    return TextCodecConfig(
        vocab_size=r.get("vocab_size", int),
        context=context,
        tied=tied,
        scale=scale,
        softcap=softcap,
        head=head,
    )


def rope(r: Reader, base: float, dim: int | None = None) -> RopeConfig:
    """Rotary positions as config.json has them: `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling`."""
    key = "rope_parameters" if r.has("rope_parameters") else "rope_scaling"
    theta = r.get("rope_theta", float, base)
    if not r.has(key):
        return RopeConfig(base=theta, dim=dim)
    s = r.part(key)
    theta = s.get("rope_theta", float, theta)
    kind = s.get("rope_type", str, s.get("type", str, "default"))
    return RopeConfig(base=theta, dim=dim, scaling=_scaling(r, s, kind))


def _scaling(r: Reader, s: Reader, kind: str) -> RopeScaling | None:
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling(kind="linear", factor=s.get("factor", float))
    if kind == "llama3":
        return RopeScaling(
            kind="llama3",
            factor=s.get("factor", float),
            low=s.get("low_freq_factor", float),
            high=s.get("high_freq_factor", float),
            original=s.get("original_max_position_embeddings", int),
        )
    raise s.refuse("rope_type", "default, linear, llama3")


def rope_tree(cfg: RopeConfig) -> Tree:
    """`rope_parameters` of a config."""
    tree: Tree = {"rope_theta": cfg.base, "rope_type": "default"}
    s = cfg.scaling
    if s is not None:
        tree |= {"rope_type": s.kind, "factor": s.factor}
        if s.kind == "llama3":
            tree |= {
                "low_freq_factor": s.low,
                "high_freq_factor": s.high,
                "original_max_position_embeddings": s.original,
            }
    return tree


def common_tree(cfg: BaseConfig, model_type: str, architecture: str) -> Tree:
    """The keys that all of these configs have, from the first block."""
    trunk, codec = cfg.trunks["text"], cfg.text
    attn, ff = trunk.blocks[0].attn, trunk.blocks[0].ff
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": codec.vocab_size,
        "max_position_embeddings": codec.context,
        "tie_word_embeddings": codec.tied,
        "hidden_size": trunk.width,
        "intermediate_size": ff.hidden,
        "num_hidden_layers": len(trunk.blocks),
        "num_attention_heads": attn.heads,
        "num_key_value_heads": attn.kv_heads,
        "head_dim": attn.head_dim,
        "hidden_act": THEIRS.get(ff.activation, ff.activation),
        "rms_norm_eps": trunk.blocks[0].norms.norm.eps,
        "rope_parameters": rope_tree(attn.rope or RopeConfig()),
    }


def head_rules(codec: TextCodecConfig) -> list[Rule | Tie]:
    """The output matrix: its own, a second name of the embedding, or none."""
    if not codec.head:
        return []
    if codec.tied:
        return [Tie("lm_head.weight", "codecs.text.stem.weight")]
    return [rename("lm_head.weight", "codecs.text.head.weight")]


def attention_rules(trunk: TrunkConfig, i: int) -> list[Rule]:
    """q, k, v and o of block `i`, kept apart, with the biases that the config says."""
    a, b = f"model.layers.{i}.self_attn", f"trunks.text.blocks.{i}.attn"
    rules = []
    for part in ("q", "k", "v", "o"):
        rules.append(rename(f"{a}.{part}_proj.weight", f"{b}.{part}.weight"))
        if part in trunk.blocks[i].attn.bias:
            rules.append(rename(f"{a}.{part}_proj.bias", f"{b}.{part}.bias"))
    return rules


def feedforward_rules(trunk: TrunkConfig, i: int) -> list[Rule]:
    """gate, up and down of block `i`."""
    a, b = f"model.layers.{i}.mlp", f"trunks.text.blocks.{i}.ff"
    kinds = ("weight", "bias") if trunk.blocks[i].ff.bias else ("weight",)
    return [rename(f"{a}.{x}_proj.{k}", f"{b}.{x}.{k}") for x in ("gate", "up", "down") for k in kinds]


def norm_rules(pairs: Sequence[tuple[str, str]], i: int) -> list[Rule]:
    """Norms of block `i`: (their name, ours)."""
    return [rename(f"model.layers.{i}.{a}.weight", f"trunks.text.blocks.{i}.{b}.weight") for a, b in pairs]


PRE = (("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ff_norm"))


def decoder_rules(cfg: BaseConfig, norms: Sequence[tuple[str, str]] = PRE) -> list[Any]:
    """All rules of a decoder whose q, k, v, gate and up stand apart."""
    trunk = cfg.trunks["text"]
    rules: list[Any] = [
        rename("model.embed_tokens.weight", "codecs.text.stem.weight"),
        rename("model.norm.weight", "trunks.text.final_norm.weight"),
        *head_rules(cfg.text),
        CACHED,
    ]
    for i, block in enumerate(trunk.blocks):
        rules += [*attention_rules(trunk, i), *feedforward_rules(trunk, i), *norm_rules(norms, i)]
        if block.attn.qk_norm is not None and block.attn.qk_norm.affine:
            a, b = f"model.layers.{i}.self_attn", f"trunks.text.blocks.{i}.attn"
            rules += [rename(f"{a}.{x}_norm.weight", f"{b}.{x}_norm.weight") for x in ("q", "k")]
    return rules
