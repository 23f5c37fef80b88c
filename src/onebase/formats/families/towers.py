"""Shared by models of images and text: pre-norm towers, rules with a prefix, parts of a nested config."""

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
from onebase.formats.reader import ConfigReader
from onebase.formats.rules import Ignore, Rule, Rules, Tie

BLOCK = block_names(
    "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.out_proj layer_norm1 mlp.fc1 mlp.fc2 layer_norm2"
)
TOWER = ENCODER
"""The pattern of both towers."""


def tower_lines(
    model_type: str, like: tuple[int, int, int, int], activation: str, eps: float
) -> tuple[Line, ...]:
    """A tower by its usual keys. like: defaults of width, feed-forward width, blocks and heads."""
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
    """Embeddings of tokens and of positions; no tokens are predicted."""
    return (size("vocab_size", "codec.vocab_size", vocabulary, MAX_VOCABULARY), *position_lines(positions))


TEXT_NAMES: Names = [
    ("embeddings.token_embedding", "codec.stem"),
    ("embeddings.position_embedding.weight", "codec.stem.positions"),
    ("final_layer_norm", "trunk.final_norm"),
    *under("encoder.layers.{i}.", BLOCK),
    COUNTED,
]
"""The text tower, with the names of one saved alone."""


def image_names(cfg: BaseConfig) -> Names:
    """The image tower up to its last norm, with the names of one saved alone."""
    return [
        ("embeddings.patch_embedding.weight", "codec.patch", patch_step(cfg)),
        ("embeddings.patch_embedding.bias", "codec.bias"),
        ("embeddings.position_embedding.weight", "codec.positions"),
        ("post_layernorm", "trunk.final_norm"),
        *under("encoder.layers.{i}.", BLOCK),
        COUNTED,
    ]


def prefixed(rules: Rules, prefix: str) -> Rules:
    """The rules of a part with `prefix` before its names."""
    return moved(rules, {"": prefix})


def moved(rules: Rules, begins: Mapping[str, str]) -> Rules:
    """The rules of a part with prefixes replaced: each key of `begins` (the first that matches) by its value."""

    def named(name: str) -> str:
        old = next((b for b in begins if name.startswith(b)), "")
        return begins.get(old, "") + name.removeprefix(old)

    out: list[Rule | Tie | Ignore] = []
    for r in rules:
        if isinstance(r, Rule):
            out.append(Rule(tuple(named(n) for n in r.theirs), r.ours, r.steps))
        elif isinstance(r, Tie):
            out.append(Tie(named(r.theirs), r.ours))
        else:  # under any prefix: checkpoints differ in them
            out.append(Ignore(rf"(.*\.)?(?:{r.pattern})", r.why, r.check))
    return out


def half(cfg: BaseConfig, kind: Literal["text", "image"]) -> BaseConfig:
    """The base of one trunk of a base. Raises ConfigError if that trunk is missing."""
    if kind not in cfg.codecs:
        raise ConfigError(*LACKS[kind])
    return BaseConfig(trunks={kind: cfg.trunks[kind]}, codecs={kind: cfg.codecs[kind]})


def sub_config(r: ConfigReader, key: str) -> ConfigReader:
    """The config of a part; older writers use `<key>_dict`, which wins. Without either: the defaults."""
    name = f"{key}_dict" if r.has(f"{key}_dict") else key
    return ConfigReader(r.get(name, dict, {}), f"{r.where}: {name}", r.tensors)
