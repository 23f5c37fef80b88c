"""DiT: a class-conditional diffusion transformer over the latents of an autoencoder, its norms changed by time and class in every block.

Each block has its own embeddings of time and class (in published models they are copies of the first). Source: diffusers
`models/transformers/dit_transformer_2d.py` and `schedulers/`, read for names and defaults; Peebles & Xie, 2212.09748.
"""

from dataclasses import dataclass, replace

from onebase.base.config import BaseConfig
from onebase.errors import ConfigError
from onebase.formats.families.decoder import MAX_DEPTH, patterned
from onebase.formats.families.encoder import ENCODER
from onebase.formats.family import Tree
from onebase.formats.fields import (
    Field,
    Found,
    Line,
    Must,
    Put,
    Set,
    Table,
    View,
    choice,
    flag,
    number,
    placed,
    size,
)
from onebase.formats.names import Names, table_family, under
from onebase.formats.reader import ConfigReader
from onebase.formats.rules import Ignore, Reshape
from onebase.modality.latents.config import LatentsConfig
from onebase.model.config import ALL, Activation, NormConfig, Norms

CLASS = "DiTTransformer2DModel"
ACTIVATIONS: dict[str, Activation] = {
    "gelu-approximate": "gelu_tanh",
    "gelu": "gelu",
    "geglu-approximate": "gelu_sigmoid",
}
BARE = NormConfig(kind="layer", eps=1e-6, affine=False)
TRUNK = replace(
    patterned(ENCODER, norms=Norms(norm=BARE, ff_eps=1e-5), adaptive=True, ff={"activation": "gelu_tanh"}),
    final_norm=BARE,
)
LATENTS = LatentsConfig(kind="latents", size=1, patch=1)
OTHER = "the trunk reads no text beside latents"


def _width(r: ConfigReader, found: Found) -> int:
    width: int = found["block.attn.heads"] * found["block.attn.head_dim"]
    if width % 4:
        raise r.refuse("attention_head_dim", "one by which the width is a multiple of 4")
    return width


TABLE = Table(
    (
        Put({"_class_name": CLASS}),
        size("num_attention_heads", "block.attn.heads block.attn.kv_heads", 16),
        size("attention_head_dim", "block.attn.head_dim", 72),
        Set("trunk.width", _width),
        Set("block.ff.hidden", lambda r, found: 4 * found["trunk.width"]),
        size("num_layers", "trunk.depth codec.conditions", 28, MAX_DEPTH),
        size("in_channels", "codec.channels", 4),
        size("out_channels", "codec.out", lambda found: found["codec.channels"]),
        size("sample_size", "codec.size", 32),
        size("patch_size", "codec.patch", 2),
        size("num_embeds_ada_norm", "codec.classes", 1000),
        flag("attention_bias", "block.attn.bias", True, on=ALL, off=("o",)),
        choice("activation_fn", "block.ff.activation", ACTIVATIONS, "gelu-approximate"),
        number("norm_eps", "block.norms.ff_eps", 1e-5),
        Must("norm_type", "ada_norm_zero", "its blocks are of another kind"),
        Must("norm_elementwise_affine", False, "its norms have weights of their own"),
        Must("cross_attention_dim", None, OTHER),
        Must("caption_channels", None, OTHER),
        Must("num_vector_embeds", None, "its latents are discrete"),
        Must("use_linear_projection", False, "its stem is of another kind"),
        Must("double_self_attention", False, "its blocks have two attentions"),
    ),
    TRUNK,
    LATENTS,
)

BLOCK = {
    "attn1.to_q": "block.attn.q",
    "attn1.to_k": "block.attn.k",
    "attn1.to_v": "block.attn.v",
    "attn1.to_out.0": "block.attn.o",
    "ff.net.0.proj": "block.ff.up",
    "ff.net.2": "block.ff.down",
    "norm1.linear": "block.adapt",
    "norm1.emb.timestep_embedder.linear_1": "codec.conditions.{i}.time_in",
    "norm1.emb.timestep_embedder.linear_2": "codec.conditions.{i}.time_out",
    "norm1.emb.class_embedder.embedding_table.weight": "codec.conditions.{i}.classes",
}


def names(cfg: BaseConfig) -> Names:
    """Their names and ours."""
    width, c, p = cfg.trunks["latents"].width, cfg.latents.channels, cfg.latents.patch
    return [
        ("pos_embed.proj.weight", "codec.patch", Reshape((width, c, p, p), (width, c * p * p))),
        ("pos_embed.proj.bias", "codec.bias"),
        *under("transformer_blocks.{i}.", BLOCK),
        ("proj_out_1", "codec.modulate"),
        ("proj_out_2", "codec.head"),
        Ignore(r"pos_embed\.pos_embed", "positions are sines of row and column, computed"),
    ]


FAMILY = table_family(CLASS, TABLE, names)


# The scheduler ---------------------------------------------------------------------------------------------------------------


class Clip:
    """Whether clean latents are bounded, and at which value."""

    def read(self, r: ConfigReader, found: Found) -> None:
        bound = r.positive("clip_sample_range", 1.0)
        found["codec.noise.clip"] = bound if r.get("clip_sample", bool, True) else None

    def write(self, base: View, tree: Tree) -> None:
        bound = base["codec.noise.clip"]
        tree["clip_sample"] = bound is not None
        tree["clip_sample_range"] = 1.0 if bound is None else bound


@dataclass(frozen=True)
class Of:
    """A line that counts for one sampler alone; the other has no such key."""

    sampler: str
    line: Field

    def read(self, r: ConfigReader, found: Found) -> None:
        if found["codec.noise.sampler"] == self.sampler:
            self.line.read(r, found)

    def write(self, base: View, tree: Tree) -> None:
        if base["codec.noise.sampler"] == self.sampler:
            self.line.write(base, tree)


def _offset(r: ConfigReader, key: str, default: int) -> int:
    value = r.get(key, int, default)
    if value < 0:
        raise r.refuse(key, "a whole number of at least 0")
    return value


SCHEDULER: tuple[Line, ...] = (
    choice("_class_name", "codec.noise.sampler", {"DDIMScheduler": "ddim", "DDPMScheduler": "ddpm"}),
    size("num_train_timesteps", "codec.noise.steps", 1000),
    choice(
        "beta_schedule",
        "codec.noise.betas",
        {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"},
        "linear",
    ),
    number("beta_start", "codec.noise.first", 0.0001),
    number("beta_end", "codec.noise.last", 0.02),
    choice(
        "timestep_spacing",
        "codec.noise.spacing",
        {"leading": "leading", "trailing": "trailing", "linspace": "linspace"},
        "leading",
    ),
    Field("steps_offset", "codec.noise.offset", _offset, 0),
    Clip(),
    Of("ddim", flag("set_alpha_to_one", "codec.noise.to_one", True)),
    Of(
        "ddpm",
        choice(
            "variance_type",
            "codec.noise.variance",
            {"fixed_small": "small", "fixed_large": "large"},
            "fixed_small",
        ),
    ),
    Must("prediction_type", "epsilon", "the model predicts something else than noise"),
    Must("trained_betas", None, "its noise follows a table of its own"),
    Must("thresholding", False, "clean latents are bounded by their quantiles"),
    Must("rescale_betas_zero_snr", False, "its noise is rescaled"),
)


def with_noise(cfg: BaseConfig, r: ConfigReader) -> BaseConfig:
    """The config with the noise of a scheduler's config. Raises ConfigError."""
    found: Found = {}
    for line in SCHEDULER:
        line.read(r, found)
    values = {path.removeprefix("codec."): x for path, x in found.items()}
    codec = r.checked(lambda: placed(cfg.latents, values))
    return replace(cfg, codecs=cfg.codecs | {"latents": codec})


def noise_tree(cfg: BaseConfig) -> Tree:
    """The scheduler's config of a base, checked by reading it back. Raises ConfigError for a value that it has no key for."""
    tree: Tree = {}
    for line in SCHEDULER:
        line.write(View(cfg, "latents"), tree)
    again = with_noise(cfg, ConfigReader(tree, "the exported scheduler"))
    if again != cfg:
        raise ConfigError(
            "the noise of this base has values that its sampler does not use, which a scheduler has no key for",
            "leave to_one (ddpm) and variance (ddim) as they are by default",
        )
    return tree
