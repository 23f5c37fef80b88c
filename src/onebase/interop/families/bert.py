"""BERT, MiniLM, and what else is saved as `bert`: norms after the residual sums, learned positions and types.

A text is of the first type. The pooler and the next-sentence head are left out: they serve a task that is not there.
Source: transformers `models/bert/`, read for names and defaults; Devlin et al., 1810.04805.
"""

from onebase.base.config import BaseConfig
from onebase.interop.families.encoder import (
    ABSOLUTE,
    COUNTED,
    MASKED,
    MASKED_EPS,
    NO_DECODER,
    POOLER,
    POST,
    VOCABULARY,
    Predicts,
    head_names,
    position_lines,
    trunk_lines,
)
from onebase.interop.family import Family
from onebase.interop.fields import Put, Table, number, size
from onebase.interop.names import Names, rules_of, under
from onebase.interop.rules import Ignore, Rules

BLOCK = {
    "attention.self.query": "block.attn.q",
    "attention.self.key": "block.attn.k",
    "attention.self.value": "block.attn.v",
    "attention.output.dense": "block.attn.o",
    "attention.output.LayerNorm": "block.attn_norm",
    "intermediate.dense": "block.ff.up",
    "output.dense": "block.ff.down",
    "output.LayerNorm": "block.ff_norm",
}
NEXT = Ignore(
    r"cls\.seq_relationship\.(weight|bias)", "whether a sentence follows another is no task of a base"
)
TYPES = size("type_vocab_size", "codec.types", 2)
TABLE = Table(
    (
        Put({"model_type": "bert"}),
        *NO_DECODER,
        ABSOLUTE,
        *trunk_lines(also="codec.transform.activation"),
        number("layer_norm_eps", MASKED_EPS, 1e-12),
        VOCABULARY,
        *position_lines(),
        TYPES,
        Predicts("Bert", "cls.predictions.transform.dense.weight"),
    ),
    POST,
    MASKED,
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
        COUNTED,
        POOLER,
    ]


def rules(cfg: BaseConfig) -> Rules:
    a = "cls.predictions"
    dense, norm = f"{a}.transform.dense", f"{a}.transform.LayerNorm"
    head = head_names(cfg, dense, norm, f"{a}.decoder.weight", f"{a}.bias", f"{a}.decoder.bias")
    return rules_of(cfg, "text", [*trunk_names("bert."), *head, NEXT])


FAMILY = Family(("bert",), TABLE.read, TABLE.write, rules, prefix="bert.")
