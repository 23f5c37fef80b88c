"""DistilBERT: BERT without types and pooler, under names of its own.

Its norms have eps 1e-12, which no key says. Positions are a learned table, whatever `sinusoidal_pos_embds` says of how it began.
Source: transformers `models/distilbert/`, read for names and defaults; Sanh et al., 1910.01108.
"""

from onebase.base.config import BaseConfig
from onebase.codec.text.modules import TextCodecConfig, TransformConfig
from onebase.interop.families.decoder import text_trunk
from onebase.interop.families.encoder import (
    COUNTED,
    MAX_DEPTH,
    MAX_VOCABULARY,
    PLAIN,
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
)
from onebase.interop.family import Family, Tree
from onebase.interop.reader import Reader
from onebase.interop.rules import Rules, rename
from onebase.model.config import NormConfig

NORM = NormConfig(kind="layer", eps=1e-12)
PARTS = {
    "attn.q": "attention.q_lin",
    "attn.k": "attention.k_lin",
    "attn.v": "attention.v_lin",
    "attn.o": "attention.out_lin",
    "attn_norm": "sa_layer_norm",
    "ff.up": "ffn.lin1",
    "ff.down": "ffn.lin2",
    "ff_norm": "output_layer_norm",
}


def read(r: Reader) -> BaseConfig:
    act = r.one_of("activation", PLAIN, "gelu")
    trunk = encoder(
        width=r.size("dim", 768),
        depth=r.size("n_layers", 6, MAX_DEPTH),
        heads=r.size("n_heads", 12),
        hidden=r.size("hidden_dim", 3072),
        activation=act,
        norm=NORM,
    )
    positions = r.size("max_position_embeddings", 512)
    predicts = has_head(r, "vocab_transform.weight")
    codec = TextCodecConfig(
        vocab_size=r.size("vocab_size", most=MAX_VOCABULARY),
        context=positions,
        positions=positions,
        tied=r.get("tie_word_embeddings", bool, True) and predicts,
        head=predicts,
        head_bias=predicts,
        transform=TransformConfig(activation=act, norm=NORM) if predicts else None,
    )
    return encoder_base(trunk, codec)


def write(cfg: BaseConfig) -> Tree:
    trunk, codec = text_trunk(cfg), cfg.text
    block = trunk.blocks[0]
    return {
        "architectures": architecture(cfg, "DistilBert"),
        "model_type": "distilbert",
        "vocab_size": codec.vocab_size,
        "max_position_embeddings": codec.positions or codec.context,
        "tie_word_embeddings": codec.tied or not codec.head,
        "dim": trunk.width,
        "hidden_dim": block.ff.hidden,
        "n_layers": len(trunk.blocks),
        "n_heads": block.attn.heads,
        "activation": THEIRS.get(block.ff.activation, block.ff.activation),
    }


def rules(cfg: BaseConfig) -> Rules:
    a = "distilbert.embeddings"
    head = ("vocab_transform", "vocab_layer_norm", "vocab_projector.weight", "vocab_projector.bias")
    return [
        rename(f"{a}.word_embeddings.weight", f"{STEM}.weight"),
        rename(f"{a}.position_embeddings.weight", f"{STEM}.positions"),
        *layer_norm(f"{a}.LayerNorm", f"{TRUNK}.input_norm"),
        *block_rules(cfg, "distilbert.transformer.layer.{i}", PARTS),
        *head_rules(cfg.text, *head),
        COUNTED,
    ]


FAMILY = Family(("distilbert",), read, write, rules, prefix="distilbert.")
