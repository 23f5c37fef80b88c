"""Whisper: an encoder of log-mel frames that a decoder of text looks at; layer norms before each part, keys without a bias.

Source: transformers `models/whisper/configuration_whisper.py` and `modeling_whisper.py`, read for names, defaults and scales.
`scale_embedding` is asked for and changes nothing: no version multiplies the embeddings by it.
"""

from typing import Literal

from onebase.base.config import BaseConfig
from onebase.base.links import Link
from onebase.codec.audio.config import AudioCodecConfig
from onebase.codec.text.modules import TextCodecConfig
from onebase.errors import ConfigError
from onebase.interop.families.decoder import NO_TOKENS
from onebase.interop.families.encoder import MAX_DEPTH, MAX_VOCABULARY, PLAIN, STEM, THEIRS, block_rules, both
from onebase.interop.family import Family, Tree
from onebase.interop.reader import Reader
from onebase.interop.rules import Ignore, Rule, Tie, rename
from onebase.model.config import AttnConfig, BlockConfig, FFConfig, NormConfig, Norms, Part, TrunkConfig

NORM = NormConfig(kind="layer", eps=1e-5)
BIASES: tuple[Part, ...] = ("q", "v", "o")
MAX_CONTEXT = 2**20
Side = Literal["encoder", "decoder"]
OWN = {
    "attn.q": "self_attn.q_proj",
    "attn.k": "self_attn.k_proj",
    "attn.v": "self_attn.v_proj",
    "attn.o": "self_attn.out_proj",
    "attn_norm": "self_attn_layer_norm",
    "ff.up": "fc1",
    "ff.down": "fc2",
    "ff_norm": "final_layer_norm",
}
CROSS = {
    "cross.q": "encoder_attn.q_proj",
    "cross.k": "encoder_attn.k_proj",
    "cross.v": "encoder_attn.v_proj",
    "cross.o": "encoder_attn.out_proj",
    "cross_norm": "encoder_attn_layer_norm",
}


def read(r: Reader) -> BaseConfig:
    r.must("quantization_config", None, None, "its weights are packed in a way that is not known")
    r.must("use_weighted_layer_sum", False, False, "only the last layer is read")
    r.get("scale_embedding", bool, False)
    width, vocab = r.size("d_model", 384), r.size("vocab_size", 51865, MAX_VOCABULARY)
    heard, said = (
        r.size("max_source_positions", 1500, MAX_CONTEXT),
        r.size("max_target_positions", 448, MAX_CONTEXT),
    )
    audio = AudioCodecConfig(kind="audio", mels=r.size("num_mel_bins", 80), context=2 * heard)
    text = r.checked(
        lambda: TextCodecConfig(
            vocab_size=vocab,
            context=said,
            positions=said,
            tied=r.get("tie_word_embeddings", bool, True),
        )
    )
    return BaseConfig(
        trunks={"audio": _trunk(r, "encoder", width), "text": _trunk(r, "decoder", width)},
        codecs={"audio": audio, "text": text},
        links=(Link(src="audio", dst="text", how="memory"),),
    )


def _trunk(r: Reader, side: Side, width: int) -> TrunkConfig:
    heads = r.size(f"{side}_attention_heads", 6)
    if width % heads:
        raise r.refuse(f"{side}_attention_heads", f"a divisor of d_model ({width})")
    attn = AttnConfig(heads=heads, kv_heads=heads, head_dim=width // heads, rope=None, bias=BIASES)
    ff = FFConfig(
        hidden=r.size(f"{side}_ffn_dim", 1536),
        activation=r.one_of("activation_function", PLAIN, "gelu"),
        bias=True,
    )
    block = BlockConfig(attn=attn, ff=ff, norms=Norms(norm=NORM), cross=attn if side == "decoder" else None)
    return TrunkConfig(
        width=width,
        blocks=(block,) * r.size(f"{side}_layers", 4, MAX_DEPTH),
        final_norm=NORM,
        direction="both" if side == "encoder" else "causal",
    )


def write(cfg: BaseConfig) -> Tree:
    audio, text = cfg.audio, cfg.text
    tree: Tree = {
        **NO_TOKENS.tree,
        "begin_suppress_tokens": None,
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "is_encoder_decoder": True,
        "vocab_size": text.vocab_size,
        "num_mel_bins": audio.mels,
        "d_model": cfg.trunks["text"].width,
        "max_source_positions": audio.places,
        "max_target_positions": text.context,
        "tie_word_embeddings": text.tied,
        "scale_embedding": False,
    }
    sides: tuple[tuple[Side, str], ...] = (("encoder", "audio"), ("decoder", "text"))
    for side, name in sides:
        block = cfg.trunks[name].blocks[0]
        tree |= {
            f"{side}_layers": len(cfg.trunks[name].blocks),
            f"{side}_attention_heads": block.attn.heads,
            f"{side}_ffn_dim": block.ff.hidden,
            "activation_function": THEIRS.get(block.ff.activation, block.ff.activation),
        }
    return tree


def rules(cfg: BaseConfig) -> list[Rule | Tie | Ignore]:
    if set(cfg.codecs) != {"audio", "text"}:
        raise ConfigError("this base does not turn sound into text", "export it to another layout")
    enc, dec = "model.encoder", "model.decoder"
    out: list[Rule | Tie | Ignore] = [
        *both(f"{enc}.conv1", "codecs.audio.first"),
        *both(f"{enc}.conv2", "codecs.audio.second"),
        rename(f"{enc}.embed_positions.weight", "codecs.audio.positions"),
        *both(f"{enc}.layer_norm", "trunks.audio.final_norm"),
        rename(f"{dec}.embed_tokens.weight", f"{STEM}.weight"),
        rename(f"{dec}.embed_positions.weight", f"{STEM}.positions"),
        *both(f"{dec}.layer_norm", "trunks.text.final_norm"),
    ]
    if cfg.text.tied:
        out.append(Tie("proj_out.weight", f"{STEM}.weight"))
    else:
        out.append(rename("proj_out.weight", "codecs.text.head.weight"))
    out += block_rules(cfg, f"{enc}.layers.{{i}}", OWN, "audio")
    return out + block_rules(cfg, f"{dec}.layers.{{i}}", OWN | CROSS, "text")


FAMILY = Family(("whisper",), read, write, rules, prefix="model.")
