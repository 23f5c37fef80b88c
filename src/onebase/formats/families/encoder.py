"""Shared by encoders: a bidirectional trunk, the lines of its sizes, heads of masked language models."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from onebase.base.config import BaseConfig
from onebase.formats.families.decoder import MAX_DEPTH, MAX_VOCABULARY, TEXT
from onebase.formats.family import Tree
from onebase.formats.fields import Default, Field, Found, Line, Must, Set, View, choice, size
from onebase.formats.names import Names
from onebase.formats.reader import ConfigReader
from onebase.formats.rules import Ignore, Tie
from onebase.modality.text.config import TransformConfig
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
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "quick_gelu": "gelu_sigmoid",
    "relu": "relu",
    "relu2": "relu2",
    "silu": "silu",
    "swish": "silu",
}
STEM, HEAD, TRUNK = "codecs.text.stem", "codecs.text.head", "trunks.text"
NORM = NormConfig(kind="layer")
EPS = "block.norms.norm.eps trunk.final_norm.eps trunk.input_norm.eps"
"""Epsilon of all norms of a trunk."""
MASKED_EPS = f"{EPS} codec.transform.norm.eps"
"""The same, with the norm before the logits of a masked language model."""
BLOCK = BlockConfig(
    attn=AttnConfig(heads=1, kv_heads=1, head_dim=1, rope=None, bias=ALL),
    ff=FFConfig(hidden=1, activation="gelu", bias=True),
    norms=Norms(norm=NORM),
)
ENCODER = TrunkConfig(width=1, blocks=(BLOCK,), final_norm=NORM, direction="both")
"""Norms before attention and feed-forward and at the end, all biases."""
POST = replace(
    ENCODER,
    blocks=(replace(BLOCK, norms=Norms(norm=NORM, where="post")),),
    final_norm=None,
    input_norm=NORM,
)
"""Norms after each residual sum, and on the embeddings."""
MASKED = replace(TEXT, transform=TransformConfig(norm=NORM))


def _counted(x: Tensor) -> bool:
    return torch.equal(x.flatten().long(), torch.arange(x.numel()))


COUNTED = Ignore(r".*embeddings\.position_ids", "positions count up from 0", _counted)
POOLER = Ignore(
    r"(.*\.)?pooler\.dense\.(weight|bias)",
    "only next-sentence prediction uses it; hidden states, token predictions and sentence embeddings do not",
)
NO_DECODER: tuple[Line, ...] = (
    Must("is_decoder", False, "this family is an encoder"),
    Must("add_cross_attention", False, "the trunk has no cross-attention"),
)
ABSOLUTE = Must("position_embedding_type", "absolute", "the trunk has no relative positions of this kind")
VOCABULARY = size("vocab_size", "codec.vocab_size", most=MAX_VOCABULARY)


def trunk_lines(
    width: tuple[str, Default] = ("hidden_size", 768),
    heads: tuple[str, Default] = ("num_attention_heads", 12),
    depth: tuple[str, Default] = ("num_hidden_layers", 12),
    hidden: tuple[str, Default] = ("intermediate_size", 3072),
    act: tuple[str, str] = ("hidden_act", "gelu"),
    also: str = "",
) -> tuple[Line, ...]:
    """Sizes and activation by their keys and defaults; heads share the width. also: another path of the activation."""

    def shared(r: ConfigReader, found: Found) -> int:
        features, count = found["trunk.width"], found["block.attn.heads"]
        if features % count:
            raise r.refuse(heads[0], f"a divisor of {width[0]} ({features})")
        return features // count

    return (
        size(width[0], "trunk.width", width[1]),
        size(heads[0], "block.attn.heads block.attn.kv_heads", heads[1]),
        Set("block.attn.head_dim", shared),
        size(depth[0], "trunk.depth", depth[1], MAX_DEPTH),
        size(hidden[0], "block.ff.hidden", hidden[1]),
        choice(act[0], f"block.ff.activation {also}", PLAIN, act[1]),
    )


def position_lines(default: Default = 512) -> tuple[Line, ...]:
    """A table of positions; the context is its length after the row of the first position."""
    return (
        size("max_position_embeddings", "codec.positions", default),
        Set("codec.context", lambda r, v: v["codec.positions"] - v.get("codec.first_position", 0)),
    )


def _behind(r: ConfigReader, key: str, default: int) -> int:
    pad = r.get(key, int, default)
    if not 0 <= pad < MAX_VOCABULARY:
        raise r.refuse(key, "a whole number of at least 0")
    return pad + 1


BEHIND_PADDING = Field("pad_token_id", "codec.first_position", _behind, 1, back=lambda first: first - 1)
"""Positions begin after the padding token's id: the first of a text is the next one (fairseq)."""


@dataclass(frozen=True)
class Predicts:
    """Whether tokens are predicted: if the checkpoint has `tensor`; for a config without checkpoint, by its `architectures`. name: prefix of
    their class names."""

    name: str
    tensor: str

    def read(self, r: ConfigReader, found: Found) -> None:
        tied, predicts = r.get("tie_word_embeddings", bool, True), self.tensor in r.tensors
        if not r.tensors:
            names = [str(name) for name in r.get("architectures", list, [])]
            predicts = any(name.endswith("ForMaskedLM") for name in names)
        found |= {"codec.tied": tied and predicts, "codec.head": predicts}
        found["codec.head_bias"] = found.get("codec.head_bias", True) and predicts
        if not predicts:
            found["codec.transform"] = None

    def write(self, base: View, tree: Tree) -> None:
        head = base["codec.head"]
        tree["architectures"] = [f"{self.name}ForMaskedLM" if head else f"{self.name}Model"]
        tree["tie_word_embeddings"] = base["codec.tied"] or not head


def head_names(
    cfg: BaseConfig, dense: str, norm: str, matrix: str, bias: str, second: str | None = None
) -> Names:
    """Names of dense layer, norm and output matrix of a masked language model. second: another name of `bias`; it counts if matrix and embedding
    are not tied (transformers 5)."""
    if not cfg.text.head:
        return []
    names = [
        (dense, "codec.head.transform"),
        (norm, "codec.head.transform.norm"),
        (matrix, "codec.head.weight"),
    ]
    if second is None or cfg.text.tied:
        return [*names, (bias, "codec.head.bias"), *([Tie(second, f"{HEAD}.bias")] if second else [])]
    unused = "an untied matrix uses the other bias"
    return [*names, (second, "codec.head.bias"), Ignore(bias.replace(".", r"\."), unused)]
