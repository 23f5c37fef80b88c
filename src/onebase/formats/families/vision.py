"""Shared by vision families: a trunk over patches, lines and tensors of the stem, and names of classes."""

from dataclasses import dataclass

from onebase.base.config import BaseConfig
from onebase.formats.families.encoder import EPS, trunk_lines
from onebase.formats.family import Tree
from onebase.formats.fields import Field, Found, Line, Put, Set, View, flag, number
from onebase.formats.names import Names
from onebase.formats.reader import ConfigReader
from onebase.formats.rules import Ignore, Lead, Reshape
from onebase.modality.image.config import ImageCodecConfig
from onebase.model.config import ALL

MAX_CLASSES = 2**20
MASK = Ignore(r"(.*\.)?embeddings\.mask_token", "it replaces masked patches in pretraining")
IMAGE = ImageCodecConfig(kind="image", size=1, patch=1)


def square(r: ConfigReader, key: str, default: int) -> int:
    """A size in pixels, given as one number or as two equal ones. Raises ConfigError for a rectangle."""
    value = r.data.get(key) if r.has(key) else default
    if not isinstance(value, list):
        return r.size(key, default)
    if len(value) != 2 or value[0] != value[1]:
        raise r.refuse(key, "a square: one number, or two equal ones")
    return ConfigReader({key: value[0]}, r.where).size(key)


def channels(r: ConfigReader, key: str, default: int) -> int:
    """Values of a pixel: 3 (red, green, blue) or 1 (grey)."""
    count = r.size(key, default)
    if count not in (1, 3):
        raise r.refuse(key, "3 or 1")
    return count


def picture_lines(patch: int) -> tuple[Line, ...]:
    """Sizes of image and patch in pixels, and channels. patch: default of the patch size."""
    return (
        Field("image_size", "codec.size", square, 224),
        Field("patch_size", "codec.patch", square, patch),
        Field("num_channels", "codec.channels", channels, 3),
    )


def vit_lines(model_type: str, patch: int, eps: float) -> tuple[Line, ...]:
    """The lines that ViT and its descendants share, without those of their feed-forwards."""

    def shared(r: ConfigReader, found: Found) -> None:
        dim = found["block.attn.head_dim"]
        r.must("head_dim", dim, dim, "heads share the width")

    return (
        Put({"model_type": model_type}),
        *trunk_lines()[:4],
        Set("", shared),
        number("layer_norm_eps", EPS, eps),
        flag("qkv_bias", "block.attn.bias", True, on=ALL, off=("o",)),
        *picture_lines(patch),
    )


@dataclass(frozen=True)
class Classes:
    """Names of the head's classes, in order; empty if the checkpoint lacks the head's tensor (for a config without checkpoint: if no architecture
    classifies). name: prefix of their class names."""

    name: str
    tensor: str = "classifier.weight"

    def read(self, r: ConfigReader, found: Found) -> None:
        found["codec.classes"] = self._names(r)

    def _names(self, r: ConfigReader) -> tuple[str, ...]:
        predicts = self.tensor in r.tensors
        if not r.tensors:
            architectures = r.get("architectures", list, [])
            predicts = any(str(a).endswith("ForImageClassification") for a in architectures)
        if not predicts:
            return ()
        # transformers omits the names if there are two default ones.
        count = r.size("num_labels", 2, MAX_CLASSES)
        names = r.get("id2label", dict, {str(i): f"LABEL_{i}" for i in range(count)})
        if set(names) != {str(i) for i in range(len(names))} or not all(
            isinstance(n, str) for n in names.values()
        ):
            raise r.refuse("id2label", 'a name for every number from "0" up')
        return tuple(names[str(i)] for i in range(len(names)))

    def write(self, base: View, tree: Tree) -> None:
        names = base["codec.classes"]
        tree["architectures"] = [self.name + ("ForImageClassification" if names else "Model")]
        if names:
            tree["id2label"] = {str(i): name for i, name in enumerate(names)}
            tree["label2id"] = {name: i for i, name in enumerate(names)}


def patch_step(cfg: BaseConfig) -> Reshape:
    """A convolution with stride equal to its width is a matrix."""
    codec, width = cfg.image, cfg.trunks["image"].width
    c, p = codec.channels, codec.patch
    return Reshape((width, c, p, p), (width, c * p * p))


def vit_names(cfg: BaseConfig, prefix: str) -> Names:
    """Stem, last norm and classifier of ViT and its descendants; positions and class token have leading dimensions of size 1."""
    a = f"{prefix}embeddings"
    return [
        (f"{a}.patch_embeddings.projection.weight", "codec.patch", patch_step(cfg)),
        (f"{a}.patch_embeddings.projection.bias", "codec.bias"),
        (f"{a}.position_embeddings", "codec.positions", Lead()),
        (f"{a}.cls_token", "codec.class_token", Lead(2)),
        (f"{a}.register_tokens", "codec.registers", Lead()),
        (f"{prefix}layernorm", "trunk.final_norm"),
        ("classifier.weight", "codec.head"),
        ("classifier.bias", "codec.head_bias"),
        MASK,
    ]
