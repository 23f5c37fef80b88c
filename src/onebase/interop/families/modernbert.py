"""ModernBERT: pre-norm, GeGLU, rotary positions; most blocks see a window, with a rotary base of their own.

`local_attention` 128 means the 64 tokens on either side; our windows count the token itself, so theirs is 65 here. The first block's input
is the normed embedding, and the block norms it no second time. q, k, v and gate, up are fused there.
Source: transformers `models/modernbert/`, read for names and defaults; Warner et al., 2412.13663.
"""

from onebase.base.config import BaseConfig
from onebase.codec.text.modules import TextCodecConfig, TransformConfig
from onebase.interop.families.decoder import GATED, text_trunk
from onebase.interop.families.decoder import THEIRS as THEIRS_GATED
from onebase.interop.families.encoder import (
    HEAD,
    MAX_DEPTH,
    MAX_VOCABULARY,
    PLAIN,
    STEM,
    THEIRS,
    TRUNK,
    architecture,
    encoder_base,
    has_head,
)
from onebase.interop.families.rotary import one_rope, rope_map
from onebase.interop.family import Family, Tree
from onebase.interop.reader import Reader
from onebase.interop.rules import Rule, Rules, Tie, rename, split
from onebase.model.config import (
    ALL,
    AttnConfig,
    BlockConfig,
    FFConfig,
    NormConfig,
    Norms,
    RopeConfig,
    TrunkConfig,
)

FULL, LOCAL = "full_attention", "sliding_attention"


def _kinds(r: Reader, depth: int) -> list[str]:
    """Which blocks see all and which a window: `layer_types` (transformers 5), or every nth block sees all."""
    if not r.has("layer_types"):
        every = r.size("global_attn_every_n_layers", 3)
        return [LOCAL if i % every else FULL for i in range(depth)]
    kinds = r.get("layer_types", list)
    if len(kinds) != depth or any(kind not in (FULL, LOCAL) for kind in kinds):
        raise r.refuse("layer_types", f"one of {FULL}, {LOCAL} for each of the {depth} blocks")
    return kinds


def _rope(r: Reader, kind: str, key: str, base: float, head_dim: int) -> RopeConfig:
    """The rotary positions of one kind of block: its map in `rope_parameters` (transformers 5), or the base under a key of its own."""
    r.must("rope_scaling", None, None, "which of the two kinds of positions it stretches is not clear")
    parts = r.part("rope_parameters") if r.has("rope_parameters") else None
    own = parts.part(kind) if parts is not None and parts.has(kind) else Reader({}, r.where)
    return one_rope(r, own, r.positive(key, base), head_dim)


def read(r: Reader) -> BaseConfig:
    width, heads = r.size("hidden_size", 768), r.size("num_attention_heads", 12)
    norm = NormConfig(kind="layer", eps=r.positive("norm_eps", 1e-5), bias=r.get("norm_bias", bool, False))
    head_dim = width // heads
    whole = _rope(r, FULL, "global_rope_theta", 160000.0, head_dim)
    # A null base for the windows means the other one (transformers 4).
    named = "local_rope_theta" in r.data and not r.has("local_rope_theta")
    near = _rope(r, LOCAL, "local_rope_theta", whole.base if named else 10000.0, head_dim)
    window = r.size("local_attention", 128) // 2 + 1
    bias = ALL if r.get("attention_bias", bool, False) else ()
    ff = FFConfig(
        hidden=r.size("intermediate_size", 1152),
        activation=r.one_of("hidden_activation", GATED, "gelu"),
        bias=r.get("mlp_bias", bool, False),
    )
    blocks = []
    for i, kind in enumerate(_kinds(r, r.size("num_hidden_layers", 22, MAX_DEPTH))):
        attn = AttnConfig(
            heads=heads,
            kv_heads=heads,
            head_dim=head_dim,
            rope=whole if kind == FULL else near,
            window=None if kind == FULL else window,
            bias=bias,
        )
        blocks.append(BlockConfig(attn=attn, ff=ff, norms=Norms(norm=norm, attn=i > 0)))
    trunk = TrunkConfig(width=width, blocks=tuple(blocks), final_norm=norm, input_norm=norm, direction="both")
    predicts = has_head(r, "head.dense.weight")
    transform = TransformConfig(
        activation=r.one_of("classifier_activation", PLAIN, "gelu"),
        norm=norm,
        bias=r.get("classifier_bias", bool, False),
    )
    codec = TextCodecConfig(
        vocab_size=r.size("vocab_size", most=MAX_VOCABULARY),
        context=r.size("max_position_embeddings", 8192),
        tied=r.get("tie_word_embeddings", bool, True) and predicts,
        head=predicts,
        head_bias=r.get("decoder_bias", bool, True) and predicts,
        transform=transform if predicts else None,
    )
    return encoder_base(trunk, codec)


def write(cfg: BaseConfig) -> Tree:
    trunk, codec = text_trunk(cfg), cfg.text
    first = trunk.blocks[0]
    attns = [b.attn for b in trunk.blocks]
    kinds = [LOCAL if a.window else FULL for a in attns]
    ropes = {k: rope_map(a.rope or RopeConfig(), a.head_dim) for k, a in zip(kinds, attns, strict=True)}
    tree = {
        "architectures": architecture(cfg, "ModernBert"),
        "model_type": "modernbert",
        "vocab_size": codec.vocab_size,
        "max_position_embeddings": codec.context,
        "tie_word_embeddings": codec.tied or not codec.head,
        "hidden_size": trunk.width,
        "intermediate_size": first.ff.hidden,
        "num_hidden_layers": len(attns),
        "num_attention_heads": first.attn.heads,
        "hidden_activation": THEIRS_GATED.get(first.ff.activation, first.ff.activation),
        "norm_eps": first.norms.norm.eps,
        "norm_bias": first.norms.norm.bias,
        "attention_bias": bool(first.attn.bias),
        "mlp_bias": first.ff.bias,
        "decoder_bias": codec.head_bias,
        "layer_types": kinds,
        "local_attention": 2 * (next((a.window for a in attns if a.window), 65) - 1),
        "rope_parameters": ropes,
        "pad_token_id": None,  # the default lies beyond most vocabularies; the tokenizer knows it
    }
    if codec.transform is not None:
        act = codec.transform.activation
        tree |= {
            "classifier_activation": THEIRS.get(act, act),
            "classifier_bias": codec.transform.bias,
        }
    return tree


def rules(cfg: BaseConfig) -> Rules:
    trunk, codec = text_trunk(cfg), cfg.text
    width = trunk.width
    out: list[Rule | Tie] = [rename("model.embeddings.tok_embeddings.weight", f"{STEM}.weight")]

    def put(theirs: str, ours: str, bias: bool) -> None:
        out.extend(rename(f"{theirs}.{k}", f"{ours}.{k}") for k in ("weight", "bias")[: 1 + bias])

    def part(theirs: str, site: str, ours: tuple[str, ...], size: int, bias: bool) -> None:
        for k in ("weight", "bias")[: 1 + bias]:
            out.append(split(f"{theirs}.{k}", [f"{site}.{x}.{k}" for x in ours], (size,) * len(ours)))

    normed = trunk.blocks[0].norms.norm.bias
    put("model.embeddings.norm", f"{TRUNK}.input_norm", normed)
    put("model.final_norm", f"{TRUNK}.final_norm", normed)
    for i, block in enumerate(trunk.blocks):
        a, b = f"model.layers.{i}", f"{TRUNK}.blocks.{i}"
        part(f"{a}.attn.Wqkv", f"{b}.attn", ("q", "k", "v"), width, bool(block.attn.bias))
        put(f"{a}.attn.Wo", f"{b}.attn.o", bool(block.attn.bias))
        part(f"{a}.mlp.Wi", f"{b}.ff", ("gate", "up"), block.ff.hidden, block.ff.bias)
        put(f"{a}.mlp.Wo", f"{b}.ff.down", block.ff.bias)
        if block.norms.attn:
            put(f"{a}.attn_norm", f"{b}.attn_norm", normed)
        put(f"{a}.mlp_norm", f"{b}.ff_norm", normed)
    if codec.transform is not None:
        put("head.dense", f"{HEAD}.transform", codec.transform.bias)
        put("head.norm", f"{HEAD}.transform.norm", normed)
        tied = Tie("decoder.weight", f"{STEM}.weight")
        out.append(tied if codec.tied else rename("decoder.weight", f"{HEAD}.weight"))
    if codec.head_bias:
        out.append(rename("decoder.bias", f"{HEAD}.bias"))
    return out


FAMILY = Family(("modernbert",), read, write, rules, prefix="model.")
