"""MPNet (all-mpnet-base-v2): BERT without types, with a relative position bias on attention scores, shared by all blocks.

Positions begin after the padding token's row, which is always the second, whatever `pad_token_id` is; the head's activation is always GELU.
Source: transformers `models/mpnet/`, read for names, defaults and buckets; Song et al., 2004.09297.
"""

from dataclasses import replace

from onebase.base.config import BaseConfig
from onebase.formats.families import encoder
from onebase.formats.families.roberta import HEAD
from onebase.formats.fields import Must, Put, Set, Table, number
from onebase.formats.names import Names, block_names, table_family, under
from onebase.model.config import RelativeConfig

BUCKETS = 32
BLOCK = block_names(
    "attention.attn.q attention.attn.k attention.attn.v attention.attn.o attention.LayerNorm "
    "intermediate.dense output.dense output.LayerNorm"
)
TABLE = Table(
    (
        Put({"model_type": "mpnet", "pad_token_id": 1}),
        *encoder.NO_DECODER,
        Must("relative_attention_num_buckets", BUCKETS, "transformers always uses 32 buckets"),
        *encoder.trunk_lines(),
        number("layer_norm_eps", encoder.MASKED_EPS, 1e-12),
        encoder.VOCABULARY,
        Set("codec.first_position", lambda r, found: 2),
        *encoder.position_lines(),
        encoder.Predicts("MPNet", "lm_head.dense.weight"),
    ),
    replace(encoder.POST, relative=RelativeConfig(buckets=BUCKETS)),
    encoder.MASKED,
)


def names(cfg: BaseConfig) -> Names:
    a = "mpnet.embeddings"
    trunk = [
        (f"{a}.word_embeddings", "codec.stem"),
        (f"{a}.position_embeddings.weight", "codec.stem.positions"),
        (f"{a}.LayerNorm", "trunk.input_norm"),
        ("mpnet.encoder.relative_attention_bias.weight", "trunk.relative"),
        *under("mpnet.encoder.layer.{i}.", BLOCK),
    ]
    return [*trunk, *encoder.head_names(cfg, *HEAD), encoder.COUNTED, encoder.POOLER]


FAMILY = table_family("mpnet", TABLE, names, prefix="mpnet.")
