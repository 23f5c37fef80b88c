"""What the encoders share: a trunk that sees both ways, heads of masked language models, names of a weight and its bias."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from onebase.base.config import BaseConfig
from onebase.codec.text.modules import TextCodecConfig
from onebase.interop.reader import Reader
from onebase.interop.rules import Ignore, Rule, Tie, rename
from onebase.model.config import (
    ALL,
    Activation,
    AttnConfig,
    BlockConfig,
    FFConfig,
    NormConfig,
    Norms,
    RopeConfig,
    TrunkConfig,
)

PLAIN: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "quick_gelu": "gelu_sigmoid",
    "relu": "relu",
    "relu2": "relu2",
    "silu": "silu",
    "swish": "silu",
}
THEIRS = {"gelu_tanh": "gelu_pytorch_tanh", "gelu_sigmoid": "quick_gelu"}
MAX_VOCABULARY, MAX_DEPTH = 2**24, 4096
STEM, HEAD, TRUNK = "codecs.text.stem", "codecs.text.head", "trunks.text"


def _counted(x: Tensor) -> bool:
    return torch.equal(x.flatten().long(), torch.arange(x.numel()))


COUNTED = Ignore(r".*embeddings\.position_ids", "positions count up from 0", _counted)
POOLER = Ignore(
    r"(.*\.)?pooler\.dense\.(weight|bias)",
    "it serves the next-sentence task; hidden states, token predictions and sentence embeddings do without",
)


def encoder(
    *,
    width: int,
    depth: int,
    heads: int,
    hidden: int,
    activation: Activation,
    norm: NormConfig,
    where: Literal["pre", "post"] = "post",
    rope: RopeConfig | None = None,
    normed: bool = True,
) -> TrunkConfig:
    """A trunk of equal blocks with every bias. `normed`: the embeddings are; a pre-norm trunk has a norm at its end too."""
    block = BlockConfig(
        attn=AttnConfig(heads=heads, kv_heads=heads, head_dim=width // heads, rope=rope, bias=ALL),
        ff=FFConfig(hidden=hidden, activation=activation, bias=True),
        norms=Norms(norm=norm, where=where),
    )
    return TrunkConfig(
        width=width,
        blocks=(block,) * depth,
        final_norm=norm if where == "pre" else None,
        input_norm=norm if normed else None,
        direction="both",
    )


def encoder_base(trunk: TrunkConfig, codec: TextCodecConfig) -> BaseConfig:
    """The base of one text trunk."""
    return BaseConfig(trunks={"text": trunk}, codecs={"text": codec})


def no_decoder(r: Reader) -> None:
    """Refuse what makes a decoder of an encoder, and positions relative to each other."""
    r.must("is_decoder", False, False, "this family is read as an encoder")
    r.must("add_cross_attention", False, False, "the trunk has no cross-attention")


def behind_padding(r: Reader, default: int) -> int:
    """The first text position where positions are counted from the padding token's number (fairseq)."""
    pad = r.get("pad_token_id", int, default)
    if not 0 <= pad < MAX_VOCABULARY:
        raise r.refuse("pad_token_id", "a whole number of at least 0")
    return pad + 1


def has_head(r: Reader, tensor: str) -> bool:
    """Whether the checkpoint predicts tokens: it has `tensor`; of a config alone, one of its `architectures` says so."""
    if r.tensors:
        return tensor in r.tensors
    names = [str(name) for name in r.get("architectures", list, [])]
    return any(name.endswith("ForMaskedLM") for name in names)


def architecture(cfg: BaseConfig, stem: str) -> list[str]:
    """`architectures` of a config: what `has_head` reads."""
    return [f"{stem}ForMaskedLM" if cfg.text.head else f"{stem}Model"]


def both(theirs: str, ours: str) -> list[Rule]:
    """A weight and its bias."""
    return [rename(f"{theirs}.{kind}", f"{ours}.{kind}") for kind in ("weight", "bias")]


def layer_norm(theirs: str, ours: str) -> list[Rule | Tie]:
    """A norm's weight and bias; `gamma` and `beta` are their names in checkpoints of TensorFlow's days, and ESM's still."""
    old = (("gamma", "weight"), ("beta", "bias"))
    return [*both(theirs, ours), *(Tie(f"{theirs}.{a}", f"{ours}.{b}") for a, b in old)]


def block_rules(
    cfg: BaseConfig, theirs: str, parts: Mapping[str, str], trunk: str = "text"
) -> list[Rule | Tie]:
    """Every block's weights, with the biases that its config has. `theirs` is the name of a block, `{i}` its number; parts: our name to
    theirs; trunk: the trunk's name."""
    rules: list[Rule | Tie] = []
    for i, block in enumerate(cfg.trunks[trunk].blocks):
        for ours, name in parts.items():
            a, b = f"{theirs.format(i=i)}.{name}", f"trunks.{trunk}.blocks.{i}.{ours}"
            if ours.endswith("norm"):
                rules += layer_norm(a, b)
            else:
                rules += both(a, b) if _has_bias(block, ours) else [rename(f"{a}.weight", f"{b}.weight")]
    return rules


def _has_bias(block: BlockConfig, part: str) -> bool:
    """Whether the projection `part` ("attn.q", "cross.k", "ff.up") of a block has a bias."""
    where, name = part.split(".")
    if where == "ff":
        return block.ff.bias
    attn = block.cross if where == "cross" else block.attn
    return attn is not None and name in attn.bias


def head_rules(
    codec: TextCodecConfig, dense: str, norm: str, matrix: str, bias: str, second: str | None = None
) -> list[Rule | Tie | Ignore]:
    """dense, norm and the output matrix of a masked language model. `second` is another name of `bias`, the one that counts
    where matrix and embedding are not tied (transformers 5)."""
    if not codec.head:
        return []
    a, ours = f"{HEAD}.transform", f"{HEAD}.bias"
    rules: list[Rule | Tie | Ignore] = [*both(dense, a), *layer_norm(norm, f"{a}.norm")]
    if codec.tied:
        rules += [Tie(matrix, f"{STEM}.weight"), rename(bias, ours)]
        return [*rules, Tie(second, ours)] if second else rules
    rules += [rename(matrix, f"{HEAD}.weight"), rename(second or bias, ours)]
    unused = "the bias of a matrix of its own is the other one"
    return [*rules, Ignore(bias.replace(".", r"\."), unused)] if second else rules
