"""DINOv2, with and without registers: ViT with layer scale. Positions are stretched to the picture's size, with registers smoothly.

The token that stands for hidden patches in pretraining is left out. Its classifier reads the class token and the mean of the patches.
Source: transformers `models/dinov2/` and `models/dinov2_with_registers/`, read for names and defaults; Oquab et al., 2304.07193; Darcet et
al., 2309.16588.
"""

from dataclasses import replace

from onebase.base.config import BaseConfig
from onebase.codec.image.config import ImageCodecConfig, PixelsConfig, PoolConfig
from onebase.interop.families.encoder import MAX_DEPTH, PLAIN, block_rules, layer_norm
from onebase.interop.families.vision import (
    MASK,
    STEM,
    TRUNK,
    channels,
    head_rules,
    image_base,
    lead,
    read_classes,
    square,
    stem_rules,
    vision_trunk,
    vision_trunk_of,
)
from onebase.interop.families.vit import tree
from onebase.interop.family import Family, Tree
from onebase.interop.reader import MAX_SIZE, Reader
from onebase.interop.rules import Rule, Rules, rename, split
from onebase.model.config import NormConfig

PARTS = {
    "attn.q": "attention.attention.query",
    "attn.k": "attention.attention.key",
    "attn.v": "attention.attention.value",
    "attn.o": "attention.output.dense",
    "attn_norm": "norm1",
    "ff_norm": "norm2",
}
PLAIN_FF = {"ff.up": "mlp.fc1", "ff.down": "mlp.fc2"}
GATED_FF = {"ff.down": "mlp.weights_out"}
IMAGENET = PixelsConfig(
    resize="crop", edge=256, size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
"""What published models were trained on; their folders say so too."""


def _narrowed(hidden: int) -> int:
    """Features of the gated feed-forward: two thirds, so that three matrices weigh as much as two, as a multiple of 8."""
    return (int(hidden * 2 / 3) + 7) // 8 * 8


def read(r: Reader) -> BaseConfig:
    norm = NormConfig(kind="layer", eps=r.positive("layer_norm_eps", 1e-6))
    width, heads = r.size("hidden_size", 768), r.size("num_attention_heads", 12)
    r.must("head_dim", width // heads, width // heads, "heads share the width")
    gated = r.get("use_swiglu_ffn", bool, False)
    ratio = r.positive("mlp_ratio", 4.0)
    if not 1 <= width * ratio <= MAX_SIZE:
        raise r.refuse("mlp_ratio", f"a feed-forward of 1 to {MAX_SIZE:,} features")
    trunk = vision_trunk(
        width=width,
        depth=r.size("num_hidden_layers", 12, MAX_DEPTH),
        heads=heads,
        hidden=_narrowed(int(width * ratio)) if gated else int(width * ratio),
        activation="swiglu" if gated else r.one_of("hidden_act", PLAIN, "gelu"),
        norm=norm,
        qkv_bias=r.get("qkv_bias", bool, True),
        layer_scale=True,
    )
    classes = read_classes(r, "classifier.weight")
    found = channels(r)
    codec = ImageCodecConfig(
        kind="image",
        size=square(r, "image_size", 224),
        patch=square(r, "patch_size", 14),
        channels=found,
        pixels=IMAGENET if found == 3 else PixelsConfig(resize="crop", edge=256, size=224),
        pool=PoolConfig(kind="both" if classes else "first"),
        classes=classes,
        places_fit="bicubic",
    )
    return image_base(trunk, codec)


def read_registers(r: Reader) -> BaseConfig:
    cfg = read(r)
    registers = r.size("num_register_tokens", 4)
    return replace(cfg, codecs={"image": replace(cfg.image, registers=registers, places_fit="smooth")})


def write(cfg: BaseConfig) -> Tree:
    return _tree(cfg, "dinov2", "Dinov2") | {"use_mask_token": False}


def write_registers(cfg: BaseConfig) -> Tree:
    more = {"num_register_tokens": cfg.image.registers}
    return _tree(cfg, "dinov2_with_registers", "Dinov2WithRegisters") | more


def _tree(cfg: BaseConfig, model_type: str, stem: str) -> Tree:
    trunk = vision_trunk_of(cfg)
    ff, gated = trunk.blocks[0].ff, trunk.blocks[0].ff.activation == "swiglu"
    whole = (
        n for n in range(1, 33) if (_narrowed(n * trunk.width) if gated else n * trunk.width) == ff.hidden
    )
    ratio = next(whole, ff.hidden * (1.5 if gated else 1.0) / trunk.width)
    made = tree(cfg, model_type, stem) | {"use_swiglu_ffn": gated, "mlp_ratio": ratio}
    return made | ({"hidden_act": "gelu"} if gated else {})


def rules(cfg: BaseConfig) -> Rules:
    return _rules(cfg, "dinov2")


def rules_registers(cfg: BaseConfig) -> Rules:
    a = "dinov2_with_registers"
    shape = (cfg.image.registers, cfg.trunks["image"].width)
    return [*_rules(cfg, a), lead(f"{a}.embeddings.register_tokens", f"{STEM}.registers", shape)]


def _rules(cfg: BaseConfig, name: str) -> Rules:
    a, block = f"{name}.embeddings", name + ".encoder.layer.{i}"
    ff = cfg.trunks["image"].blocks[0].ff
    gated = ff.activation == "swiglu"
    found: list[Rule] = []
    for i in range(len(cfg.trunks["image"].blocks)):
        theirs, ours = block.format(i=i), f"{TRUNK}.blocks.{i}"
        found.append(rename(f"{theirs}.layer_scale1.lambda1", f"{ours}.attn_scale.weight"))
        found.append(rename(f"{theirs}.layer_scale2.lambda1", f"{ours}.ff_scale.weight"))
        for kind in ("weight", "bias") if gated else ():
            parts = [f"{ours}.ff.{part}.{kind}" for part in ("gate", "up")]
            found.append(split(f"{theirs}.mlp.weights_in.{kind}", parts, (ff.hidden, ff.hidden)))
    return [
        *stem_rules(cfg, f"{a}.patch_embeddings.projection", f"{a}.position_embeddings", f"{a}.cls_token"),
        *block_rules(cfg, block, PARTS | (GATED_FF if gated else PLAIN_FF), "image"),
        *found,
        *layer_norm(f"{name}.layernorm", f"{TRUNK}.final_norm"),
        *head_rules(cfg, "classifier"),
        MASK,
    ]


MEMORY = (
    (r"attention\.attention\.(.)\w+$", r"attention.\1_proj"),
    (r"attention\.output\.dense$", "attention.o_proj"),
    (r"mlp\.weights_in$", "mlp.gate_proj|up_proj"),
    (r"mlp\.weights_out$", "mlp.down_proj"),
)
FAMILY = Family(("dinov2",), read, write, rules, prefix="dinov2.", memory=MEMORY)
REGISTERS = Family(
    ("dinov2_with_registers",),
    read_registers,
    write_registers,
    rules_registers,
    prefix="dinov2_with_registers.",
    memory=MEMORY,
)
