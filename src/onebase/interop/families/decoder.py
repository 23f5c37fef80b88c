"""What the Llama-like decoders share: their config keys, their windows, and the names of their tensors."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from onebase.base.config import BaseConfig
from onebase.codec.text.modules import TextCodecConfig
from onebase.errors import ConfigError
from onebase.interop.families.rotary import cached_angles, rope_tree
from onebase.interop.family import Tree
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
    Part,
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
THEIRS = {"swiglu": "silu", "geglu": "gelu", "geglu_tanh": "gelu_pytorch_tanh"}
NO_TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
"""Special tokens are the tokenizer's. A key that is missing would mean those of the first model of a family."""
SLIDING, FULL = "sliding_attention", "full_attention"


class Sizes(NamedTuple):
    """The sizes of a decoder: features, heads of queries and of keys, features of a head, blocks."""

    width: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: int


def sizes(r: Reader, *, kv_heads: int | None = None, head_dim: int | None = None) -> Sizes:
    """By their usual keys; `kv_heads` and `head_dim` where those are missing (None: as many as heads; width / heads)."""
    width, heads = r.size("hidden_size"), r.size("num_attention_heads")
    return Sizes(
        width=width,
        heads=heads,
        kv_heads=r.size_or_none("num_key_value_heads", kv_heads) or heads,
        head_dim=r.size("head_dim", head_dim or max(width // heads, 1)),
        layers=r.size("num_hidden_layers", most=4096),
    )


def attention(
    r: Reader,
    s: Sizes,
    *,
    rope: RopeConfig | None,
    window: int | None = None,
    bias: tuple[Part, ...] = (),
    qk_norm: NormConfig | None = None,
    scale: float | None = None,
    softcap: float | None = None,
) -> AttnConfig:
    """Attention of these sizes. Raises ConfigError naming the file for sizes that do not go together."""
    return r.checked(
        lambda: AttnConfig(
            heads=s.heads,
            kv_heads=s.kv_heads,
            head_dim=s.head_dim,
            rope=rope,
            window=window,
            bias=bias,
            qk_norm=qk_norm,
            scale=scale,
            softcap=softcap,
        )
    )


def text_codec(
    r: Reader, *, tied: bool, context: int, scale: float | None = None, softcap: float | None = None
) -> TextCodecConfig:
    """Vocabulary and ends; `tied` and `context` where no key says it. A checkpoint of a trunk alone (no `lm_head`, not tied) has
    no head."""
    r.must("quantization_config", None, None, "its weights are packed in a way that is not known")
    tied = r.get("tie_word_embeddings", bool, tied)
    has_head = any(name.endswith("lm_head.weight") for name in r.tensors)
    return r.checked(
        lambda: TextCodecConfig(
            vocab_size=r.size("vocab_size", most=2**24),
            context=r.size("max_position_embeddings", context, 2**40),
            tied=tied,
            scale=scale,
            softcap=softcap,
            head=tied or not r.tensors or has_head,
        )
    )


def gated_decoder(
    r: Reader,
    s: Sizes,
    attns: Sequence[AttnConfig],
    norms: Norms,
    codec: TextCodecConfig,
    *,
    activation: Activation | None = None,
    ff_bias: bool = False,
) -> BaseConfig:
    """A decoder with attention `attns` in its blocks and gated feed-forwards (`hidden_act` where no activation is given)."""
    act = r.one_of("hidden_act", GATED, "silu") if activation is None else activation
    ff = FFConfig(hidden=r.size("intermediate_size"), activation=act, bias=ff_bias)
    blocks = tuple(BlockConfig(attn=attn, ff=ff, norms=norms) for attn in attns)
    trunk = TrunkConfig(width=s.width, blocks=blocks, final_norm=norms.norm)
    return BaseConfig(trunks={"text": trunk}, codecs={"text": codec})


def layer_windows(
    r: Reader, layers: int, window: int | None, slides: Callable[[int], bool]
) -> list[int | None]:
    """The window of each block: as `layer_types` says, or for the blocks that `slides` where that key is missing."""
    if not r.has("layer_types"):
        kinds = [SLIDING if slides(i) and window is not None else FULL for i in range(layers)]
    else:
        kinds = r.get("layer_types", list)
        if len(kinds) != layers or any(k not in (SLIDING, FULL) for k in kinds):
            raise r.refuse("layer_types", f"a list of {layers}, each {SLIDING} or {FULL}")
    if window is None and SLIDING in kinds:
        raise ConfigError(
            f"{r.where}: 'layer_types' has {SLIDING}, but no 'sliding_window' is set", "give its size"
        )
    return [window if k == SLIDING else None for k in kinds]


def windows_tree(cfg: BaseConfig) -> Tree:
    """`sliding_window` (the first that is there) and `layer_types`."""
    windows = [b.attn.window for b in text_trunk(cfg).blocks]
    kinds = [FULL if w is None else SLIDING for w in windows]
    return {
        "sliding_window": next((w for w in windows if w is not None), None),
        "layer_types": kinds,
    }


def switched_windows(r: Reader, layers: int) -> list[int | None]:
    """Windows behind a switch, and only from `max_window_layers` on: what Qwen2 and Qwen3 share."""
    window = r.size_or_none("sliding_window", 4096) if r.get("use_sliding_window", bool, False) else None
    start = r.get("max_window_layers", int, 28)
    return layer_windows(r, layers, window, lambda i: i >= start)


def switched_windows_tree(cfg: BaseConfig) -> Tree:
    """The keys that `switched_windows` reads."""
    tree = windows_tree(cfg)
    kinds = tree["layer_types"]
    start = kinds.index(SLIDING) if SLIDING in kinds else len(kinds)
    return tree | {"use_sliding_window": SLIDING in kinds, "max_window_layers": start}


def text_trunk(cfg: BaseConfig) -> TrunkConfig:
    """The trunk of text. Raises ConfigError for a base without one."""
    if "text" not in cfg.codecs:
        raise ConfigError("this base reads no text", "this layout is of text decoders: export to another")
    return cfg.trunks["text"]


def architecture(cfg: BaseConfig, name: str) -> list[str]:
    """Their class: of a model with its head, or of a trunk alone."""
    return [f"{name}ForCausalLM" if cfg.text.head else f"{name}Model"]


def common_tree(cfg: BaseConfig, model_type: str, name: str) -> Tree:
    """The keys that all of these configs have, from the first block."""
    trunk, codec = text_trunk(cfg), cfg.text
    attn, ff = trunk.blocks[0].attn, trunk.blocks[0].ff
    rope = next((b.attn.rope for b in trunk.blocks if b.attn.rope), RopeConfig())
    return {
        **NO_TOKENS,
        "architectures": architecture(cfg, name),
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
    } | rope_tree(rope, attn.head_dim)


PRE = (("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ff_norm"))


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
    for part in ALL:
        rules.append(rename(f"{a}.{part}_proj.weight", f"{b}.{part}.weight"))
        if part in trunk.blocks[i].attn.bias:
            rules.append(rename(f"{a}.{part}_proj.bias", f"{b}.{part}.bias"))
    return rules


def feedforward_rules(trunk: TrunkConfig, i: int) -> list[Rule]:
    """gate, up and down of block `i`."""
    a, b = f"model.layers.{i}.mlp", f"trunks.text.blocks.{i}.ff"
    kinds = ("weight", "bias") if trunk.blocks[i].ff.bias else ("weight",)
    return [rename(f"{a}.{x}_proj.{k}", f"{b}.{x}.{k}") for x in ("gate", "up", "down") for k in kinds]


BlockRules = Callable[[TrunkConfig, int], list[Rule]]


def decoder_rules(
    cfg: BaseConfig,
    norms: Sequence[tuple[str, str]] = PRE,
    attention: BlockRules = attention_rules,
    feedforward: BlockRules = feedforward_rules,
) -> list[Rule | Tie | Ignore]:
    """All rules of a decoder. norms: (their name, ours) in a block."""
    trunk = text_trunk(cfg)
    ropes = [b.attn.rope for b in trunk.blocks if b.attn.rope]
    rules: list[Rule | Tie | Ignore] = [
        rename("model.embed_tokens.weight", "codecs.text.stem.weight"),
        rename("model.norm.weight", "trunks.text.final_norm.weight"),
        *head_rules(cfg.text),
        cached_angles(list(dict.fromkeys(ropes)), trunk.blocks[0].attn.head_dim),
    ]
    for i, block in enumerate(trunk.blocks):
        a, b = f"model.layers.{i}", f"trunks.text.blocks.{i}"
        rules += [*attention(trunk, i), *feedforward(trunk, i)]
        rules += [rename(f"{a}.{x}.weight", f"{b}.{y}.weight") for x, y in norms]
        if block.attn.qk_norm is not None and block.attn.qk_norm.affine:
            rules += [
                rename(f"{a}.self_attn.{x}_norm.weight", f"{b}.attn.{x}_norm.weight") for x in ("q", "k")
            ]
    return rules
