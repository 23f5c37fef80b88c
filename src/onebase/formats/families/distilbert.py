"""DistilBERT: BERT without types and pooler, with its own names.

Its norms have eps 1e-12, without a key. Positions are a learned table; `sinusoidal_pos_embds` only describes its initialisation.
Source: transformers `models/distilbert/`, read for names and defaults; Sanh et al., 1910.01108.
"""

from onebase.base.config import BaseConfig
from onebase.formats.families import encoder
from onebase.formats.fields import Put, Set, Table
from onebase.formats.names import Names, block_names, table_family, under

BLOCK = block_names(
    "attention.q_lin attention.k_lin attention.v_lin attention.out_lin sa_layer_norm ffn.lin1 ffn.lin2 output_layer_norm"
)
HEAD = ("vocab_transform", "vocab_layer_norm", "vocab_projector.weight", "vocab_projector.bias")
TABLE = Table(
    (
        Put({"model_type": "distilbert"}),
        *encoder.trunk_lines(
            ("dim", 768),
            ("n_heads", 12),
            ("n_layers", 6),
            ("hidden_dim", 3072),
            ("activation", "gelu"),
            also="codec.transform.activation",
        ),
        Set(encoder.MASKED_EPS, lambda r, found: 1e-12),
        encoder.VOCABULARY,
        *encoder.position_lines(),
        encoder.Predicts("DistilBert", "vocab_transform.weight"),
    ),
    encoder.POST,
    encoder.MASKED,
)


def names(cfg: BaseConfig) -> Names:
    a = "distilbert.embeddings"
    trunk = [
        (f"{a}.word_embeddings", "codec.stem"),
        (f"{a}.position_embeddings.weight", "codec.stem.positions"),
        (f"{a}.LayerNorm", "trunk.input_norm"),
        *under("distilbert.transformer.layer.{i}.", BLOCK),
    ]
    return [*trunk, *encoder.head_names(cfg, *HEAD), encoder.COUNTED]


FAMILY = table_family("distilbert", TABLE, names, prefix="distilbert.")
