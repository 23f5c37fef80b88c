"""DistilBERT: BERT without types and pooler, under names of its own.

Its norms have eps 1e-12, which no key says. Positions are a learned table, whatever `sinusoidal_pos_embds` says of how it began.
Source: transformers `models/distilbert/`, read for names and defaults; Sanh et al., 1910.01108.
"""

from onebase.base.config import BaseConfig
from onebase.interop.families.encoder import (
    COUNTED,
    MASKED,
    MASKED_EPS,
    POST,
    VOCABULARY,
    Predicts,
    head_names,
    position_lines,
    trunk_lines,
)
from onebase.interop.family import Family
from onebase.interop.fields import Put, Set, Table
from onebase.interop.names import rules_of, under
from onebase.interop.rules import Rules

BLOCK = {
    "attention.q_lin": "block.attn.q",
    "attention.k_lin": "block.attn.k",
    "attention.v_lin": "block.attn.v",
    "attention.out_lin": "block.attn.o",
    "sa_layer_norm": "block.attn_norm",
    "ffn.lin1": "block.ff.up",
    "ffn.lin2": "block.ff.down",
    "output_layer_norm": "block.ff_norm",
}
HEAD = ("vocab_transform", "vocab_layer_norm", "vocab_projector.weight", "vocab_projector.bias")
TABLE = Table(
    (
        Put({"model_type": "distilbert"}),
        *trunk_lines(
            ("dim", 768),
            ("n_heads", 12),
            ("n_layers", 6),
            ("hidden_dim", 3072),
            ("activation", "gelu"),
            also="codec.transform.activation",
        ),
        Set(MASKED_EPS, lambda r, found: 1e-12),
        VOCABULARY,
        *position_lines(),
        Predicts("DistilBert", "vocab_transform.weight"),
    ),
    POST,
    MASKED,
)


def rules(cfg: BaseConfig) -> Rules:
    a = "distilbert.embeddings"
    names = [
        (f"{a}.word_embeddings", "codec.stem"),
        (f"{a}.position_embeddings.weight", "codec.stem.positions"),
        (f"{a}.LayerNorm", "trunk.input_norm"),
        *under("distilbert.transformer.layer.{i}.", BLOCK),
    ]
    return rules_of(cfg, "text", [*names, *head_names(cfg, *HEAD), COUNTED])


FAMILY = Family(("distilbert",), TABLE.read, TABLE.write, rules, prefix="distilbert.")
