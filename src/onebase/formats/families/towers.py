"""What models of images and text share: towers with their norms before their parts, rules under a prefix, parts of a nested config."""

from collections.abc import Mapping
from typing import Literal

from onebase.base.config import BaseConfig
from onebase.errors import ConfigError
from onebase.formats.families.decoder import MAX_VOCABULARY
from onebase.formats.families.encoder import (
    COUNTED,
    ENCODER,
    EPS,
    position_lines,
    trunk_lines,
)
from onebase.formats.families.vision import patch_step
from onebase.formats.fields import LACKS, Line, Put, number, size
from onebase.formats.names import Names, block_names, under
from onebase.formats.reader import Reader
from onebase.formats.rules import Ignore, Rule, Rules, Tie

BLOCK = block_names(
    "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.out_proj layer_norm1 mlp.fc1 mlp.fc2 layer_norm2"
)
TOWER = ENCODER
"""The pattern of both."""


def tower_lines(
    model_type: str, like: tuple[int, int, int, int], activation: str, eps: float
) -> tuple[Line, ...]:
    """A tower by its usual keys. `like`: width, features of the feed-forward, blocks and heads where they are missing."""
    width, hidden, depth, heads = like
    return (
        Put({"model_type": model_type}),
        *trunk_lines(
            ("hidden_size", width),
            ("num_attention_heads", heads),
            ("num_hidden_layers", depth),
            ("intermediate_size", hidden),
            ("hidden_act", activation),
        ),
        number("layer_norm_eps", EPS, eps),
    )


def text_lines(vocabulary: int, positions: int) -> tuple[Line, ...]:
    """A table of tokens and one of positions; no tokens are predicted."""
    return (size("vocab_size", "codec.vocab_size", vocabulary, MAX_VOCABULARY), *position_lines(positions))


TEXT_NAMES: Names = [
    ("embeddings.token_embedding", "codec.stem"),
    ("embeddings.position_embedding.weight", "codec.stem.positions"),
    ("final_layer_norm", "trunk.final_norm"),
    *under("encoder.layers.{i}.", BLOCK),
    COUNTED,
]
"""The text tower, by the names of one saved alone."""


def image_names(cfg: BaseConfig) -> Names:
    """The image tower up to its last norm, by the names of one saved alone."""
    return [
        ("embeddings.patch_embedding.weight", "codec.patch", patch_step(cfg)),
        ("embeddings.patch_embedding.bias", "codec.bias"),
        ("embeddings.position_embedding.weight", "codec.positions"),
        ("post_layernorm", "trunk.final_norm"),
        *under("encoder.layers.{i}.", BLOCK),
        COUNTED,
    ]


def prefixed(rules: Rules, prefix: str) -> Rules:
    """The rules of a part as those of a whole where its names begin with `prefix`."""
    return moved(rules, {"": prefix})


def moved(rules: Rules, begins: Mapping[str, str]) -> Rules:
    """The rules of a part, with names that begin with a key of `begins` (the first that fits) beginning with its value."""

    def named(name: str) -> str:
        old = next((b for b in begins if name.startswith(b)), "")
        return begins.get(old, "") + name.removeprefix(old)

    out: list[Rule | Tie | Ignore] = []
    for r in rules:
        if isinstance(r, Rule):
            out.append(Rule(tuple(named(n) for n in r.theirs), r.ours, r.steps))
        elif isinstance(r, Tie):
            out.append(Tie(named(r.theirs), r.ours))
        else:  # wherever the part's names begin: a checkpoint may spell that in several ways
            out.append(Ignore(rf"(.*\.)?(?:{r.pattern})", r.why, r.check))
    return out


def half(cfg: BaseConfig, kind: Literal["text", "image"]) -> BaseConfig:
    """The base of one trunk of a base. Raises ConfigError where it lacks that."""
    if kind not in cfg.codecs:
        raise ConfigError(*LACKS[kind])
    return BaseConfig(trunks={kind: cfg.trunks[kind]}, codecs={kind: cfg.codecs[kind]})


def sub_config(r: Reader, key: str) -> Reader:
    """The config of a part; older writers put the same under `<key>_dict`, which wins there. Without either, one of defaults."""
    name = f"{key}_dict" if r.has(f"{key}_dict") else key
    return Reader(r.get(name, dict, {}), f"{r.where}: {name}", r.tensors)
