"""BERT, MiniLM, and what else is saved as `bert`: norms after the residual sums, learned positions and types.

A text is of the first type. The pooler and the next-sentence head are left out: they serve a task that is not there.
Source: transformers `models/bert/`, read for names and defaults; Devlin et al., 1810.04805.
"""

from onebase.base.config import BaseConfig
from onebase.codec.text.modules import TextCodecConfig, TransformConfig
from onebase.interop.families.decoder import text_trunk
from onebase.interop.families.encoder import (
    COUNTED,
    MAX_DEPTH,
    MAX_VOCABULARY,
    PLAIN,
    POOLER,
    STEM,
    THEIRS,
    TRUNK,
    architecture,
    block_rules,
    encoder,
    encoder_base,
    has_head,
    head_rules,
    layer_norm,
    no_decoder,
)
from onebase.interop.family import Family, Tree
from onebase.interop.reader import Reader
from onebase.interop.rules import Ignore, Rules, rename
from onebase.model.config import Activation, NormConfig

PARTS = {
    "attn.q": "attention.self.query",
    "attn.k": "attention.self.key",
    "attn.v": "attention.self.value",
    "attn.o": "attention.output.dense",
    "attn_norm": "attention.output.LayerNorm",
    "ff.up": "intermediate.dense",
    "ff.down": "output.dense",
    "ff_norm": "output.LayerNorm",
}
NEXT = Ignore(
    r"cls\.seq_relationship\.(weight|bias)", "whether a sentence follows another is no task of a base"
)


def read(
    r: Reader,
    first_position: int = 0,
    head: str = "cls.predictions.transform.dense.weight",
    activation: Activation | None = None,
) -> BaseConfig:
    """The config. Other families of this shape say at which row positions begin, which tensor tells of a head, and its activation."""
    no_decoder(r)
    r.must(
        "position_embedding_type", "absolute", "absolute", "the trunk has no relative positions of this kind"
    )
    norm = NormConfig(kind="layer", eps=r.positive("layer_norm_eps", 1e-12))
    act = r.one_of("hidden_act", PLAIN, "gelu")
    trunk = encoder(
        width=r.size("hidden_size", 768),
        depth=r.size("num_hidden_layers", 12, MAX_DEPTH),
        heads=r.size("num_attention_heads", 12),
        hidden=r.size("intermediate_size", 3072),
        activation=act,
        norm=norm,
    )
    positions = r.size("max_position_embeddings", 512)
    predicts = has_head(r, head)
    codec = TextCodecConfig(
        vocab_size=r.size("vocab_size", most=MAX_VOCABULARY),
        context=positions - first_position,
        positions=positions,
        first_position=first_position,
        types=r.size("type_vocab_size", 2),
        tied=r.get("tie_word_embeddings", bool, True) and predicts,
        head=predicts,
        head_bias=predicts,
        transform=TransformConfig(activation=activation or act, norm=norm) if predicts else None,
    )
    return encoder_base(trunk, codec)


def tree(cfg: BaseConfig, model_type: str, stem: str) -> Tree:
    """The keys that the configs of this shape share, from the first block."""
    trunk, codec = text_trunk(cfg), cfg.text
    block = trunk.blocks[0]
    return {
        "architectures": architecture(cfg, stem),
        "model_type": model_type,
        "vocab_size": codec.vocab_size,
        "max_position_embeddings": codec.positions or codec.context,
        "type_vocab_size": codec.types,
        "tie_word_embeddings": codec.tied or not codec.head,
        "hidden_size": trunk.width,
        "intermediate_size": block.ff.hidden,
        "num_hidden_layers": len(trunk.blocks),
        "num_attention_heads": block.attn.heads,
        "hidden_act": THEIRS.get(block.ff.activation, block.ff.activation),
        "layer_norm_eps": block.norms.norm.eps,
    }


def write(cfg: BaseConfig) -> Tree:
    return tree(cfg, "bert", "Bert")


def trunk_rules(cfg: BaseConfig, prefix: str) -> Rules:
    """Embeddings and blocks."""
    tables = {"word": "weight", "position": "positions", "token_type": "types"}
    return [
        *(rename(f"{prefix}embeddings.{a}_embeddings.weight", f"{STEM}.{b}") for a, b in tables.items()),
        *layer_norm(f"{prefix}embeddings.LayerNorm", f"{TRUNK}.input_norm"),
        *block_rules(cfg, prefix + "encoder.layer.{i}", PARTS),
        COUNTED,
        POOLER,
    ]


def rules(cfg: BaseConfig) -> Rules:
    a = "cls.predictions"
    dense, norm = f"{a}.transform.dense", f"{a}.transform.LayerNorm"
    head = head_rules(cfg.text, dense, norm, f"{a}.decoder.weight", f"{a}.bias", f"{a}.decoder.bias")
    return [*trunk_rules(cfg, "bert."), *head, NEXT]


FAMILY = Family(("bert",), read, write, rules, prefix="bert.")
