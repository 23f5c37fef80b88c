"""DINOv2, with and without registers: ViT with layer scale. Positions are interpolated to the image size, with registers smoothly.

The mask token of pretraining is left out. The classifier reads the class token and the mean of the patches.
Source: transformers `models/dinov2/` and `models/dinov2_with_registers/`, read for names and defaults; Oquab et al., 2304.07193; Darcet et
al., 2309.16588.
"""

from dataclasses import replace
from functools import partial

from onebase.base.config import BaseConfig
from onebase.formats.families.decoder import patterned
from onebase.formats.families.encoder import ENCODER, PLAIN
from onebase.formats.families.vision import IMAGE, Classes, vit_lines, vit_names
from onebase.formats.families.vit import ATTENTION
from onebase.formats.family import Family, Tree
from onebase.formats.fields import Found, Line, Put, Set, Table, View, choice, size
from onebase.formats.names import Names, block_names, table_family, under
from onebase.formats.reader import MAX_SIZE, ConfigReader
from onebase.modality.image.config import ImageCodecConfig, PixelsConfig, PoolConfig

SCALES = {"layer_scale1.lambda1": "block.attn_scale.weight", "layer_scale2.lambda1": "block.ff_scale.weight"}
BLOCK = block_names(f"{ATTENTION} norm1 mlp.fc1 mlp.fc2 norm2") | SCALES
GATED_FF = {"mlp.weights_in": "block.ff.gate block.ff.up", "mlp.weights_out": "block.ff.down"}
GATED = {k: v for k, v in BLOCK.items() if not k.startswith("mlp.")} | GATED_FF
CUT = PixelsConfig(resize="crop", edge=256, size=224)
IMAGENET = replace(CUT, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""Preprocessing of the published models; their folders have it too."""
ACTIVATION = choice("hidden_act", "block.ff.activation", PLAIN, "gelu")


def _narrowed(hidden: int) -> int:
    """Width of the gated feed-forward: two thirds, so that three matrices have as many parameters as two, as a multiple of 8."""
    return (int(hidden * 2 / 3) + 7) // 8 * 8


class FeedForwardLine:
    """The feed-forward, plain or gated; its width is a multiple of the trunk's."""

    def read(self, r: ConfigReader, found: Found) -> None:
        hidden = found["trunk.width"] * r.positive("mlp_ratio", 4.0)
        if not 1 <= hidden <= MAX_SIZE:
            raise r.refuse("mlp_ratio", f"a feed-forward width of 1 to {MAX_SIZE:,}")
        if r.get("use_swiglu_ffn", bool, False):
            found |= {"block.ff.hidden": _narrowed(int(hidden)), "block.ff.activation": "swiglu"}
        else:
            found["block.ff.hidden"] = int(hidden)
            ACTIVATION.read(r, found)

    def write(self, base: View, tree: Tree) -> None:
        hidden, width = base["block.ff.hidden"], base["trunk.width"]
        gated = base["block.ff.activation"] == "swiglu"
        whole = (n for n in range(1, 33) if (_narrowed(n * width) if gated else n * width) == hidden)
        ratio = next(whole, hidden * (1.5 if gated else 1.0) / width)
        ACTIVATION.write(base, tree)
        tree |= {"use_swiglu_ffn": gated, "mlp_ratio": ratio} | ({"hidden_act": "gelu"} if gated else {})


def _pixels(r: ConfigReader, found: Found) -> PixelsConfig:
    return IMAGENET if found["codec.channels"] == 3 else CUT


def _pool(r: ConfigReader, found: Found) -> PoolConfig:
    return PoolConfig(kind="both" if found["codec.classes"] else "first")


MEMORY = (
    (r"attention\.attention\.(.)\w+$", r"attention.\1_proj"),
    (r"attention\.output\.dense$", "attention.o_proj"),
    (r"mlp\.weights_in$", "mlp.gate_proj|up_proj"),
    (r"mlp\.weights_out$", "mlp.down_proj"),
)


def _names(cfg: BaseConfig, prefix: str) -> Names:
    gated = cfg.trunks["image"].blocks[0].ff.activation == "swiglu"
    return [*vit_names(cfg, prefix), *under(prefix + "encoder.layer.{i}.", GATED if gated else BLOCK)]


def _family(model_type: str, name: str, codec: ImageCodecConfig, *more: Line) -> Family:
    lines = (
        *vit_lines(model_type, 14, 1e-6),
        FeedForwardLine(),
        Set("codec.pixels", _pixels),
        Classes(name),
        Set("codec.pool", _pool),
        *more,
    )
    table = Table(lines, patterned(ENCODER, layer_scale=True), codec)
    prefix = f"{model_type}."
    return table_family(model_type, table, partial(_names, prefix=prefix), prefix=prefix, memory=MEMORY)


FAMILY = _family("dinov2", "Dinov2", replace(IMAGE, places_fit="bicubic"), Put({"use_mask_token": False}))
REGISTERS = _family(
    "dinov2_with_registers",
    "Dinov2WithRegisters",
    replace(IMAGE, places_fit="smooth"),
    size("num_register_tokens", "codec.registers", 4),
)
