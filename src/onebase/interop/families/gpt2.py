"""GPT-2: learned positions, layer norms, biases everywhere, matrices kept the other way round and q, k, v in one.

Source: transformers `models/gpt2/configuration_gpt2.py` and `modeling_gpt2.py`, read for names, defaults and scales.
"""

import torch
from torch import Tensor

from onebase.base.config import BaseConfig
from onebase.codec.text.modules import TextCodecConfig
from onebase.interop.families.decoder import NO_TOKENS, architecture, head_rules, text_trunk
from onebase.interop.family import Family, Tree
from onebase.interop.reader import Reader
from onebase.interop.rules import Ignore, Rule, Tie, Transpose, rename, split
from onebase.model.config import (
    ALL,
    Activation,
    AttnConfig,
    BlockConfig,
    FFConfig,
    NormConfig,
    Norms,
    TrunkConfig,
)

PLAIN: dict[str, Activation] = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu": "gelu",
    "quick_gelu": "gelu_sigmoid",
    "relu": "relu",
    "relu2": "relu2",
    "silu": "silu",
    "swish": "silu",
}
THEIRS = {ours: theirs for theirs, ours in reversed(PLAIN.items())}


def read(r: Reader) -> BaseConfig:
    r.must("add_cross_attention", False, False, "a trunk reads no second sequence")
    r.must("quantization_config", None, None, "its weights are packed in a way that is not known")
    width, heads, context = r.size("n_embd", 768), r.size("n_head", 12), r.size("n_positions", 1024, 2**24)
    if width % heads:
        raise r.refuse("n_head", f"a divisor of n_embd ({width})")
    norm = NormConfig(kind="layer", eps=r.positive("layer_norm_epsilon", 1e-5))
    ff = FFConfig(
        hidden=r.size_or_none("n_inner", None) or 4 * width,
        activation=r.one_of("activation_function", PLAIN, "gelu_new"),
        bias=True,
    )
    scaled = r.get("scale_attn_weights", bool, True)
    falling = r.get("scale_attn_by_inverse_layer_idx", bool, False)
    blocks = []
    for i in range(r.size("n_layer", 12, 4096)):
        scale = _scale(width // heads, i, scaled, falling)
        attn = AttnConfig(
            heads=heads,
            kv_heads=heads,
            head_dim=width // heads,
            rope=None,
            scale=None if scale == (width // heads) ** -0.5 else scale,
            bias=ALL,
        )
        blocks.append(BlockConfig(attn=attn, ff=ff, norms=Norms(norm=norm)))
    trunk = TrunkConfig(width=width, blocks=tuple(blocks), final_norm=norm)
    tied = r.get("tie_word_embeddings", bool, True)
    codec = r.checked(
        lambda: TextCodecConfig(
            vocab_size=r.size("vocab_size", 50257, 2**24),
            context=context,
            tied=tied,
            positions=context,
            head=tied or not r.tensors or "lm_head.weight" in r.tensors,
        )
    )
    return BaseConfig(trunks={"text": trunk}, codecs={"text": codec})


def _scale(head_dim: int, i: int, scaled: bool, falling: bool) -> float:
    """What scores of block `i` are multiplied by: 1/sqrt(head_dim) or 1, divided by i + 1 where it falls with depth."""
    return (head_dim**-0.5 if scaled else 1.0) / (i + 1 if falling else 1)


def write(cfg: BaseConfig) -> Tree:
    trunk, codec = text_trunk(cfg), cfg.text
    block = trunk.blocks[0]
    attn, first = block.attn, block.attn.scale
    second = trunk.blocks[min(1, len(trunk.blocks) - 1)].attn.scale
    return {
        **NO_TOKENS.tree,
        "architectures": ["GPT2LMHeadModel"] if codec.head else architecture(cfg, "GPT2"),
        "model_type": "gpt2",
        "vocab_size": codec.vocab_size,
        "n_positions": codec.context,
        "n_ctx": codec.context,
        "n_embd": trunk.width,
        "n_layer": len(trunk.blocks),
        "n_head": attn.heads,
        "n_inner": None if block.ff.hidden == 4 * trunk.width else block.ff.hidden,
        "activation_function": THEIRS.get(block.ff.activation, block.ff.activation),
        "layer_norm_epsilon": block.norms.norm.eps,
        "scale_attn_weights": first is None,
        "scale_attn_by_inverse_layer_idx": first != second,
        "tie_word_embeddings": codec.tied,
    }


def rules(cfg: BaseConfig) -> list[Rule | Tie | Ignore]:
    trunk = text_trunk(cfg)
    out: list[Rule | Tie | Ignore] = [
        rename("transformer.wte.weight", "codecs.text.stem.weight"),
        rename("transformer.wpe.weight", "codecs.text.stem.positions"),
        *head_rules(cfg.text),
        Ignore(r"(transformer\.)?h\.\d+\.attn\.bias", "the causal mask follows from the trunk", _triangle),
        Ignore(r"(transformer\.)?h\.\d+\.attn\.masked_bias", "what hidden scores are set to", _far_below),
    ]
    for kind in ("weight", "bias"):
        out.append(rename(f"transformer.ln_f.{kind}", f"trunks.text.final_norm.{kind}"))
        turn = (Transpose(),) if kind == "weight" else ()
        for i in range(len(trunk.blocks)):
            a, b = f"transformer.h.{i}", f"trunks.text.blocks.{i}"
            parts = [f"{b}.attn.{x}.{kind}" for x in ("q", "k", "v")]
            out += [
                split(f"{a}.attn.c_attn.{kind}", parts, (trunk.width,) * 3, 0, *turn),
                rename(f"{a}.attn.c_proj.{kind}", f"{b}.attn.o.{kind}", *turn),
                rename(f"{a}.mlp.c_fc.{kind}", f"{b}.ff.up.{kind}", *turn),
                rename(f"{a}.mlp.c_proj.{kind}", f"{b}.ff.down.{kind}", *turn),
                rename(f"{a}.ln_1.{kind}", f"{b}.attn_norm.{kind}"),
                rename(f"{a}.ln_2.{kind}", f"{b}.ff_norm.{kind}"),
            ]
    return out


def _triangle(x: Tensor) -> bool:
    """Whether a buffer says: no token sees a later one."""
    side = x.shape[-1] if x.ndim else 0
    if x.numel() != side * side or x.ndim < 2:
        return False
    return torch.equal(x.reshape(side, side) != 0, torch.ones(side, side, dtype=torch.bool).tril())


def _far_below(x: Tensor) -> bool:
    return x.numel() == 1 and float(x) <= -1e4


FAMILY = Family(("gpt2",), read, write, rules, prefix="transformer.")
