"""BERT, MiniLM and other models saved as `bert`: norms after the residual sums, learned positions and types.

A text has token type 0. The pooler and the next-sentence head are left out: their task is not supported.
Source: transformers `models/bert/`, read for names and defaults; Devlin et al., 1810.04805.
"""

from onebase.base.config import BaseConfig
from onebase.formats.families import encoder
from onebase.formats.fields import Put, Table, number, size
from onebase.formats.names import Names, block_names, table_family, under
from onebase.formats.rules import Ignore

BLOCK = block_names(
    "attention.self.query attention.self.key attention.self.value attention.output.dense "
    "attention.output.LayerNorm intermediate.dense output.dense output.LayerNorm"
)
NEXT = Ignore(r"cls\.seq_relationship\.(weight|bias)", "next-sentence prediction is not a task of a base")
TYPES = size("type_vocab_size", "codec.types", 2)
TABLE = Table(
    (
        Put({"model_type": "bert"}),
        *encoder.NO_DECODER,
        encoder.ABSOLUTE,
        *encoder.trunk_lines(also="codec.transform.activation"),
        number("layer_norm_eps", encoder.MASKED_EPS, 1e-12),
        encoder.VOCABULARY,
        *encoder.position_lines(),
        TYPES,
        encoder.Predicts("Bert", "cls.predictions.transform.dense.weight"),
    ),
    encoder.POST,
    encoder.MASKED,
)


def trunk_names(prefix: str) -> Names:
    """Embeddings and blocks."""
    a = f"{prefix}embeddings"
    return [
        (f"{a}.word_embeddings", "codec.stem"),
        (f"{a}.position_embeddings.weight", "codec.stem.positions"),
        (f"{a}.token_type_embeddings.weight", "codec.stem.types"),
        (f"{a}.LayerNorm", "trunk.input_norm"),
        *under(prefix + "encoder.layer.{i}.", BLOCK),
        encoder.COUNTED,
        encoder.POOLER,
    ]


def names(cfg: BaseConfig) -> Names:
    a = "cls.predictions"
    dense, norm = f"{a}.transform.dense", f"{a}.transform.LayerNorm"
    head = encoder.head_names(cfg, dense, norm, f"{a}.decoder.weight", f"{a}.bias", f"{a}.decoder.bias")
    return [*trunk_names("bert."), *head, NEXT]


FAMILY = table_family("bert", TABLE, names, prefix="bert.")
