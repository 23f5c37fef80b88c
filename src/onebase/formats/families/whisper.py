"""Whisper: an encoder of log-mel frames and a text decoder with cross-attention; pre-norm with layer norms, keys without a bias.

Source: transformers `models/whisper/configuration_whisper.py` and `modeling_whisper.py`, read for names, defaults and scales.
`scale_embedding` is read and has no effect: no version scales the embeddings by it.
"""

from dataclasses import replace

from onebase.base.config import BaseConfig
from onebase.base.links import Link
from onebase.errors import ConfigError
from onebase.formats.families.decoder import MAX_VOCABULARY, NO_TOKENS, TEXT, UNPACKED, patterned
from onebase.formats.families.encoder import BLOCK, ENCODER, NORM, trunk_lines
from onebase.formats.family import Family
from onebase.formats.fields import LACKS, Field, Line, Must, Part, Put, Set, Table, flag, size
from onebase.formats.names import block_names, rules_of, under
from onebase.formats.reader import ConfigReader
from onebase.formats.rules import Rules
from onebase.modality.audio.config import AudioCodecConfig

MAX_CONTEXT = 2**20
ATTN = replace(BLOCK.attn, bias=("q", "v", "o"))
AUDIO_TRUNK = patterned(replace(ENCODER, final_norm=replace(NORM, eps=1e-5)), attn={"bias": ATTN.bias})
OWN = block_names(
    "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.out_proj self_attn_layer_norm fc1 fc2 final_layer_norm"
)
CROSS = {
    **{f"encoder_attn.{x}_proj": f"block.cross.{x}" for x in "qkv"},
    "encoder_attn.out_proj": "block.cross.o",
    "encoder_attn_layer_norm": "block.cross_norm",
}


def _side(side: str) -> tuple[Line, ...]:
    """The sizes of encoder or decoder."""
    return (
        *trunk_lines(
            ("d_model", 384),
            (f"{side}_attention_heads", 6),
            (f"{side}_layers", 4),
            (f"{side}_ffn_dim", 1536),
            ("activation_function", "gelu"),
        ),
        Set("block.norms.norm.eps", lambda r, found: 1e-5),
    )


def _cross(name: str) -> Set:
    return Set(f"block.cross.{name}", lambda r, found: found[f"block.attn.{name}"])


def _frames(r: ConfigReader, key: str, default: int) -> int:
    return 2 * r.size(key, default, MAX_CONTEXT)


AUDIO = Table(
    (
        *_side("encoder"),
        size("num_mel_bins", "codec.mels", 80),
        Field("max_source_positions", "codec.context", _frames, 1500, back=lambda frames: frames // 2),
    ),
    AUDIO_TRUNK,
    AudioCodecConfig(kind="audio"),
)
DECODER = Table(
    (
        *_side("decoder"),
        *(_cross(name) for name in ("heads", "kv_heads", "head_dim")),
        size("vocab_size", "codec.vocab_size", 51865, MAX_VOCABULARY),
        size("max_target_positions", "codec.context codec.positions", 448, MAX_CONTEXT),
        flag("tie_word_embeddings", "codec.tied", True),
    ),
    replace(patterned(AUDIO_TRUNK, cross=ATTN), direction="causal"),
    TEXT,
)
TABLE = Table(
    (
        UNPACKED,
        NO_TOKENS,
        Must("use_weighted_layer_sum", False, "only the last layer is read"),
        Set("", lambda r, found: r.get("scale_embedding", bool, False)),
        Put(
            {
                "architectures": ["WhisperForConditionalGeneration"],
                "model_type": "whisper",
                "is_encoder_decoder": True,
                "begin_suppress_tokens": None,
                "scale_embedding": False,
            }
        ),
        Part(None, AUDIO),
        Part(None, DECODER),
    ),
    link=Link(src="audio", dst="text", how="memory"),
)
AUDIO_NAMES = [
    ("model.encoder.conv1", "codec.first"),
    ("model.encoder.conv2", "codec.second"),
    ("model.encoder.embed_positions.weight", "codec.positions"),
    ("model.encoder.layer_norm", "trunk.final_norm"),
    *under("model.encoder.layers.{i}.", OWN),
]
TEXT_NAMES = [
    ("model.decoder.embed_tokens", "codec.stem"),
    ("model.decoder.embed_positions.weight", "codec.stem.positions"),
    ("model.decoder.layer_norm", "trunk.final_norm"),
    ("proj_out", "codec.head"),
    *under("model.decoder.layers.{i}.", OWN | CROSS),
]


def rules(cfg: BaseConfig) -> Rules:
    if set(cfg.codecs) != {"audio", "text"}:
        raise ConfigError(*LACKS["memory"])
    return [*rules_of(cfg, "audio", AUDIO_NAMES), *rules_of(cfg, "text", TEXT_NAMES)]


FAMILY = Family(("whisper",), TABLE.read, TABLE.write, rules, prefix="model.")
