"""ModernBERT: pre-norm, GeGLU, rotary positions; most blocks have a sliding window and a separate rotary base.

`local_attention` 128 means the 64 tokens on either side; our windows include the token itself, so theirs is 65 here. The first block's input
is the normalised embedding, and the block has no first norm. q, k, v and gate, up are fused in the checkpoint.
Source: transformers `models/modernbert/`, read for names and defaults; Warner et al., 2412.13663.
"""

from dataclasses import replace

from onebase.formats.families import encoder
from onebase.formats.families.decoder import FULL, GATED, SLIDING, layer_kinds, patterned
from onebase.formats.families.encoder import PLAIN
from onebase.formats.families.rotary import one_rope, rope_map
from onebase.formats.family import Tree
from onebase.formats.fields import Each, Found, Put, Set, Table, View, choice, flag, number, size
from onebase.formats.names import table_family, under
from onebase.formats.reader import ConfigReader
from onebase.modality.text.config import TransformConfig
from onebase.model.config import ALL, Activation, RopeConfig


class Kinds:
    """The blocks with full attention and those with a window, by `layer_types` (transformers 5) or every nth with full attention. Rotary positions
    of the two kinds: from the maps in `rope_parameters` (transformers 5), or from separate keys of their bases."""

    def read(self, r: ConfigReader, found: Found) -> None:
        every = r.size("global_attn_every_n_layers", 3)
        kinds = layer_kinds(r, found["trunk.depth"], lambda i: i % every != 0)
        dim = found["block.attn.head_dim"]
        whole = _rope(r, FULL, "global_rope_theta", 160000.0, dim)
        # A null base for the windows means the other base (transformers 4).
        is_null = "local_rope_theta" in r.data and not r.has("local_rope_theta")
        local = _rope(r, SLIDING, "local_rope_theta", whole.base if is_null else 10000.0, dim)
        window = r.size("local_attention", 128) // 2 + 1
        found["block.attn.rope"] = Each(whole if kind == FULL else local for kind in kinds)
        found["block.attn.window"] = Each(None if kind == FULL else window for kind in kinds)

    def write(self, base: View, tree: Tree) -> None:
        windows = base.each("block.attn.window")
        kinds = [SLIDING if window else FULL for window in windows]
        dim = base["block.attn.head_dim"]
        tree |= {
            "layer_types": kinds,
            "local_attention": 2 * (next((w for w in windows if w), 65) - 1),
            "rope_parameters": {
                kind: rope_map(rope or RopeConfig(), dim)
                for kind, rope in zip(kinds, base.each("block.attn.rope"), strict=True)
            },
        }


def _rope(r: ConfigReader, kind: str, key: str, base: float, head_dim: int) -> RopeConfig:
    r.must("rope_scaling", None, None, "it is not clear which of the two kinds of positions it scales")
    parts = r.part("rope_parameters") if r.has("rope_parameters") else None
    own = parts.part(kind) if parts is not None and parts.has(kind) else ConfigReader({}, r.where)
    return one_rope(r, own, r.positive(key, base), head_dim)


def _later(r: ConfigReader, found: Found) -> Each:
    return Each(i > 0 for i in range(found["trunk.depth"]))


def _activation(r: ConfigReader, key: str, default: str) -> Activation:
    """The activation before token predictions; tanh belongs to a classifier's head (`heads`), whose config the trunk reads too."""
    no_head = r.tensors and "head.dense.weight" not in r.tensors
    return "gelu" if no_head and r.data.get(key) == "tanh" and r.has(key) else r.one_of(key, PLAIN, default)


TRANSFORM: tuple[str, dict[str, Activation], str] = ("codec.transform.activation", PLAIN, "gelu")
BIASED = "trunk.final_norm.bias trunk.input_norm.bias codec.transform.norm.bias"
TABLE = Table(
    (
        # The default padding token is outside most vocabularies; the tokenizer has the right one.
        Put({"model_type": "modernbert", "pad_token_id": None}),
        *encoder.trunk_lines(depth=("num_hidden_layers", 22), hidden=("intermediate_size", 1152))[:-1],
        choice("hidden_activation", "block.ff.activation", GATED, "gelu"),
        number("norm_eps", encoder.MASKED_EPS, 1e-5),
        flag("norm_bias", f"block.norms.norm.bias {BIASED}", False),
        flag("attention_bias", "block.attn.bias", False, on=ALL, off=()),
        flag("mlp_bias", "block.ff.bias", False),
        Set("block.norms.attn", _later),
        Kinds(),
        replace(choice("classifier_activation", *TRANSFORM), ask=_activation),
        flag("classifier_bias", "codec.transform.bias", False),
        flag("decoder_bias", "codec.head_bias", True),
        encoder.VOCABULARY,
        size("max_position_embeddings", "codec.context", 8192),
        encoder.Predicts("ModernBert", "head.dense.weight"),
    ),
    replace(patterned(encoder.ENCODER, ff={"activation": "geglu"}), input_norm=encoder.NORM),
    replace(encoder.MASKED, transform=TransformConfig(norm=encoder.NORM)),
)
BLOCK = {
    "attn.Wqkv": "block.attn.q block.attn.k block.attn.v",
    "attn.Wo": "block.attn.o",
    "mlp.Wi": "block.ff.gate block.ff.up",
    "mlp.Wo": "block.ff.down",
    "attn_norm": "block.attn_norm",
    "mlp_norm": "block.ff_norm",
}
NAMES = [
    ("model.embeddings.tok_embeddings", "codec.stem"),
    ("model.embeddings.norm", "trunk.input_norm"),
    ("model.final_norm", "trunk.final_norm"),
    *under("model.layers.{i}.", BLOCK),
    ("head.dense", "codec.head.transform"),
    ("head.norm", "codec.head.transform.norm"),
    ("decoder", "codec.head"),
]


FAMILY = table_family("modernbert", TABLE, NAMES, prefix="model.")
