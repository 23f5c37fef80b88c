"""Shared by Llama-like decoders: lines of their configs, sliding windows, and tensor names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from onebase.base.config import BaseConfig
from onebase.errors import ConfigError
from onebase.formats.families.rotary import cached_angles, rope, rope_tree
from onebase.formats.family import Family, Tree
from onebase.formats.fields import Each, Field, Found, Line, Must, Put, Table, View, choice, number, size
from onebase.formats.names import Names, rules_of, under
from onebase.formats.reader import ConfigReader
from onebase.formats.rules import Rules
from onebase.modality.text.config import TextCodecConfig
from onebase.model.config import (
    Activation,
    AttnConfig,
    BlockConfig,
    FFConfig,
    RopeConfig,
    TrunkConfig,
)

GATED: dict[str, Activation] = {
    "silu": "swiglu",
    "swish": "swiglu",
    "gelu": "geglu",
    "gelu_pytorch_tanh": "geglu_tanh",
    "gelu_new": "geglu_tanh",
}
NO_TOKENS = Put({"bos_token_id": None, "eos_token_id": None, "pad_token_id": None})
"""Special tokens belong to the tokenizer. A missing key would mean those of the first model of a family."""
UNPACKED = Must("quantization_config", None, "its weights have an unsupported quantization")
MAX_DEPTH, MAX_VOCABULARY, MAX_CONTEXT = 4096, 2**24, 2**40
SLIDING, FULL = "sliding_attention", "full_attention"
BLOCK = BlockConfig(attn=AttnConfig(heads=1, kv_heads=1, head_dim=2), ff=FFConfig(hidden=1))
DECODER = TrunkConfig(width=1, blocks=(BLOCK,))
TEXT = TextCodecConfig(vocab_size=2, context=2)


def patterned(trunk: TrunkConfig, **more: Any) -> TrunkConfig:
    """A pattern with parts of its block replaced: attn and ff by fields (dicts), others as a whole."""
    block = trunk.blocks[0]
    changes = {k: replace(getattr(block, k), **v) if isinstance(v, dict) else v for k, v in more.items()}
    return replace(trunk, blocks=(replace(block, **changes),))


def heads_of(found: Found) -> int:
    """As many key heads as query heads."""
    return found["block.attn.heads"]


def shared_width(found: Found) -> int:
    """The head width if the heads share the width of the trunk."""
    return max(found["trunk.width"] // found["block.attn.heads"], 1)


def decoder_lines(
    model_type: str,
    name: str,
    *,
    context: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    eps: float = 1e-6,
    tied: bool = False,
    activation: tuple[str, str] = ("hidden_act", "silu"),
) -> tuple[Line, ...]:
    """The lines that these configs share. name: prefix of their class names; the others: defaults of missing keys."""
    key, usual = activation
    return (
        UNPACKED,
        NO_TOKENS,
        Put({"model_type": model_type}),
        size("hidden_size", "trunk.width"),
        size("num_attention_heads", "block.attn.heads"),
        size("num_key_value_heads", "block.attn.kv_heads", kv_heads or heads_of, null=heads_of),
        size("head_dim", "block.attn.head_dim", head_dim or shared_width),
        size("num_hidden_layers", "trunk.depth", most=MAX_DEPTH),
        size("intermediate_size", "block.ff.hidden"),
        choice(key, "block.ff.activation", GATED, usual),
        number("rms_norm_eps", "block.norms.norm.eps trunk.final_norm.eps", eps),
        size("vocab_size", "codec.vocab_size", most=MAX_VOCABULARY),
        size("max_position_embeddings", "codec.context", context, MAX_CONTEXT),
        HeadLine(name, tied),
    )


def window_line(default: int | None) -> Field:
    """The same window for all blocks."""
    return size("sliding_window", "block.attn.window", default, null=None)


@dataclass(frozen=True)
class HeadLine:
    """Whether tokens are predicted, and by which matrix. A checkpoint without `lm_head` that is not tied has no head. name: prefix of their class
    names; tied: default of a missing key."""

    name: str
    tied: bool
    lm: str = "ForCausalLM"

    def read(self, r: ConfigReader, found: Found) -> None:
        tied = r.get("tie_word_embeddings", bool, self.tied)
        has_head = not r.tensors or any(name.endswith("lm_head.weight") for name in r.tensors)
        found |= {"codec.tied": tied, "codec.head": tied or has_head}

    def write(self, base: View, tree: Tree) -> None:
        tree["tie_word_embeddings"] = base["codec.tied"]
        tree["architectures"] = [self.name + (self.lm if base["codec.head"] else "Model")]


@dataclass(frozen=True)
class Rope:
    """Rotary positions of a model with one kind, see `rotary.rope`. theta: default base."""

    theta: float = 10000.0
    original: int | None = None
    partial: bool = False

    def read(self, r: ConfigReader, found: Found) -> None:
        dim = found["block.attn.head_dim"]
        found["block.attn.rope"] = rope(r, self.theta, dim, original=self.original, partial=self.partial)

    def write(self, base: View, tree: Tree) -> None:
        config = next((x for x in base.each("block.attn.rope") if x), RopeConfig())
        tree |= rope_tree(config, base["block.attn.head_dim"])


@dataclass(frozen=True)
class Windows:
    """The window of each block, by `layer_types`, or by `slides` if that key is missing. default: of its size; switch: the key that turns it on;
    always: write a size even if no block has a window."""

    slides: Callable[[Found, int], bool]
    default: int | None = 4096
    switch: str | None = None
    always: bool = False

    def read(self, r: ConfigReader, found: Found) -> None:
        on = self.switch is None or r.get(self.switch, bool, False)
        window = r.size_or_none("sliding_window", self.default) if on else None
        kinds = layer_kinds(r, found["trunk.depth"], lambda i: self.slides(found, i) and window is not None)
        if window is None and SLIDING in kinds:
            raise ConfigError(
                f"{r.where}: 'layer_types' has {SLIDING}, but 'sliding_window' is not set", "set its size"
            )
        found["block.attn.window"] = Each(window if k == SLIDING else None for k in kinds)

    def write(self, base: View, tree: Tree) -> None:
        windows = base.each("block.attn.window")
        first = next((w for w in windows if w is not None), None)
        tree["sliding_window"] = first or (self.default if self.always else None)
        tree["layer_types"] = [FULL if w is None else SLIDING for w in windows]
        if self.switch is not None:
            tree[self.switch] = first is not None


def layer_kinds(r: ConfigReader, depth: int, slides: Callable[[int], bool]) -> list[str]:
    """`layer_types`; if that key is missing, by the index of each block."""
    if not r.has("layer_types"):
        return [SLIDING if slides(i) else FULL for i in range(depth)]
    kinds = r.get("layer_types", list)
    if len(kinds) != depth or any(k not in (SLIDING, FULL) for k in kinds):
        raise r.refuse("layer_types", f"a list of {depth}, each {SLIDING} or {FULL}")
    return kinds


class FirstWindow:
    """The first block with a window, in configs from before `layer_types`."""

    def read(self, r: ConfigReader, found: Found) -> None:
        found["first window"] = r.get("max_window_layers", int, 28)

    def write(self, base: View, tree: Tree) -> None:
        windows = base.each("block.attn.window")
        tree["max_window_layers"] = next((i for i, w in enumerate(windows) if w is not None), len(windows))


LATER: tuple[Line, ...] = (
    FirstWindow(),
    Windows(lambda found, i: i >= found["first window"], switch="use_sliding_window"),
)
"""Windows with a switch, and only from some block on: shared by Qwen2 and Qwen3."""

ENDS: Names = [
    ("model.embed_tokens", "codec.stem"),
    ("model.norm", "trunk.final_norm"),
    ("lm_head", "codec.head"),
]
ATTENTION = {f"self_attn.{x}_proj": f"block.attn.{x}" for x in "qkvo"}
FEED_FORWARD = {f"mlp.{x}_proj": f"block.ff.{x}" for x in ("gate", "up", "down")}
NORMS = {"input_layernorm": "block.attn_norm", "post_attention_layernorm": "block.ff_norm"}
HEAD_NORMS = {f"self_attn.{x}_norm": f"block.attn.{x}_norm" for x in "qk"}
PLAIN = ATTENTION | FEED_FORWARD | HEAD_NORMS


def decoder_rules(cfg: BaseConfig, block: Mapping[str, str] = PLAIN | NORMS) -> Rules:
    """All rules of a decoder. block: names in a block, theirs to ours."""
    ropes = [b.attn.rope for b in cfg.trunks["text"].blocks if b.attn.rope]
    angles = cached_angles(list(dict.fromkeys(ropes)), cfg.trunks["text"].blocks[0].attn.head_dim)
    return [*rules_of(cfg, "text", [*ENDS, *under("model.layers.{i}.", block)]), angles]


def decoder_family(
    model_type: str, *lines: Line, trunk: TrunkConfig = DECODER, block: Mapping[str, str] = PLAIN | NORMS
) -> Family:
    """A family of one text decoder, from its lines, its pattern and the names in a block."""
    table = Table(lines, trunk, TEXT)
    return Family(
        (model_type,), table.read, table.write, partial(decoder_rules, block=block), prefix="model."
    )
