"""What the vision families share: a trunk over patches, the stem's tensors, and the names of classes."""

from onebase.base.config import BaseConfig
from onebase.codec.image.config import ImageCodecConfig
from onebase.interop.family import Tree
from onebase.interop.reader import Reader
from onebase.interop.rules import Ignore, Reshape, Rule, rename
from onebase.model.config import (
    Activation,
    AttnConfig,
    BlockConfig,
    FFConfig,
    NormConfig,
    Norms,
    Part,
    TrunkConfig,
)

STEM, TRUNK = "codecs.image", "trunks.image"
QKV: tuple[Part, ...] = ("q", "k", "v")
MAX_CLASSES = 2**20
MASK = Ignore(r"(.*\.)?embeddings\.mask_token", "it stands for patches hidden in pretraining")


def vision_trunk(
    *,
    width: int,
    depth: int,
    heads: int,
    hidden: int,
    activation: Activation,
    norm: NormConfig,
    qkv_bias: bool = True,
    layer_scale: bool = False,
    normed: bool = False,
) -> TrunkConfig:
    """Equal blocks that see both ways, norms before each part and at the end; `normed`: before the first block too."""
    bias: tuple[Part, ...] = (*QKV, "o") if qkv_bias else ("o",)
    block = BlockConfig(
        attn=AttnConfig(heads=heads, kv_heads=heads, head_dim=width // heads, rope=None, bias=bias),
        ff=FFConfig(hidden=hidden, activation=activation, bias=True),
        norms=Norms(norm=norm),
        layer_scale=layer_scale,
    )
    return TrunkConfig(
        width=width,
        blocks=(block,) * depth,
        final_norm=norm,
        input_norm=norm if normed else None,
        direction="both",
    )


def image_base(trunk: TrunkConfig, codec: ImageCodecConfig) -> BaseConfig:
    """The base of one image trunk."""
    return BaseConfig(trunks={"image": trunk}, codecs={"image": codec})


def vision_trunk_of(cfg: BaseConfig) -> TrunkConfig:
    """The trunk over patches. Raises ConfigError for a base that sees no images."""
    assert cfg.image.kind in cfg.trunks
    return cfg.trunks[cfg.image.kind]


def square(r: Reader, key: str, default: int) -> int:
    """A size in pixels, given as one number or as two equal ones. Raises ConfigError for a rectangle."""
    value = r.data.get(key) if r.has(key) else default
    if not isinstance(value, list):
        return r.size(key, default)
    if len(value) != 2 or value[0] != value[1]:
        raise r.refuse(key, "a square: one number, or two equal ones")
    return Reader({key: value[0]}, r.where).size(key)


def channels(r: Reader) -> int:
    """Values of a pixel: 3 (red, green, blue) or 1 (grey)."""
    found = r.size("num_channels", 3)
    if found not in (1, 3):
        raise r.refuse("num_channels", "3 or 1")
    return found


def read_classes(r: Reader, head: str) -> tuple[str, ...]:
    """Names of what the head predicts, in its order; none where the checkpoint lacks the tensor `head` (a config alone: where no
    architecture classifies)."""
    if r.tensors:
        predicts = head in r.tensors
    else:
        predicts = any(str(a).endswith("ForImageClassification") for a in r.get("architectures", list, []))
    if not predicts:
        return ()
    # transformers leaves the names out when there are two and nobody named them.
    count = r.size("num_labels", 2, MAX_CLASSES)
    names = r.get("id2label", dict, {str(i): f"LABEL_{i}" for i in range(count)})
    if set(names) != {str(i) for i in range(len(names))} or not all(
        isinstance(n, str) for n in names.values()
    ):
        raise r.refuse("id2label", 'a name for every number from "0" up')
    return tuple(names[str(i)] for i in range(len(names)))


def classes_tree(classes: tuple[str, ...]) -> Tree:
    """`id2label` and `label2id` of a config; nothing without classes."""
    if not classes:
        return {}
    return {
        "id2label": {str(i): name for i, name in enumerate(classes)},
        "label2id": {name: i for i, name in enumerate(classes)},
    }


def stem_rules(cfg: BaseConfig, patch: str, positions: str, class_token: str | None = None) -> list[Rule]:
    """The stem's tensors by their names there: the convolution that cuts and embeds patches, positions and class token, both with
    dimensions of 1 in front (ViT)."""
    codec, width = cfg.image, cfg.trunks["image"].width
    rules = [patch_rule(cfg, f"{patch}.weight"), lead(positions, f"{STEM}.positions", (codec.places, width))]
    if codec.bias:
        rules.append(rename(f"{patch}.bias", f"{STEM}.bias"))
    if class_token is not None:
        rules.append(rename(class_token, f"{STEM}.class_token", Reshape((1, 1, width), (width,))))
    return rules


def patch_rule(cfg: BaseConfig, theirs: str) -> Rule:
    """A convolution whose steps are as long as it is wide is a matrix."""
    codec, width = cfg.image, cfg.trunks["image"].width
    c, p = codec.channels, codec.patch
    return rename(theirs, f"{STEM}.patch", Reshape((width, c, p, p), (width, c * p * p)))


def lead(theirs: str, ours: str, shape: tuple[int, ...]) -> Rule:
    """One tensor that has a dimension of 1 in front there."""
    return rename(theirs, ours, Reshape((1, *shape), shape))


def head_rules(cfg: BaseConfig, theirs: str) -> list[Rule]:
    """The matrix that scores classes, and its bias; none without classes."""
    if not cfg.image.classes:
        return []
    return [rename(f"{theirs}.weight", f"{STEM}.head"), rename(f"{theirs}.bias", f"{STEM}.head_bias")]
