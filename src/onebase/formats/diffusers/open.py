"""Opens a base from the folder of a diffusers pipeline: `model_index.json`, `transformer/`, `vae/` and `scheduler/`."""

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from onebase.artifact.record import Origin
from onebase.base.config import BaseConfig
from onebase.base.folder import LoadedBase
from onebase.errors import ArtifactError, ConfigError
from onebase.formats.card import README
from onebase.formats.families.dit import CLASS, FAMILY, with_noise
from onebase.formats.hf.base import imported
from onebase.formats.hf.files import CONFIG, read_json
from onebase.formats.hf.folder import HFFolder
from onebase.formats.reader import ConfigReader
from onebase.formats.recognise import PIPELINE
from onebase.formats.weight_loading import load_weights, passed_over
from onebase.modality.latents.autoencoder import KIND, Autoencoder

log = logging.getLogger(__name__)
WEIGHTS = "diffusion_pytorch_model.safetensors"
SCHEDULER = "scheduler_config.json"
DIT = "DiTPipeline"
TRANSFORMERS = (CLASS, "Transformer2DModel")
"""Classes of the transformer: the second is the name under which DiT was first published."""
REMEDY = "give a DiTPipeline (class-conditional DiT), or train a base that draws from text: recipes/flow.yaml (docs/drawing.md)"
OLD = (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0"))
"""Attention of an autoencoder in files of before 2023, and today."""


def open_pipeline(path: Path, *, hashes: bool = False) -> LoadedBase:
    """Read a folder. hashes: record the hash of every file, not only its size. Raises ArtifactError for another kind of pipeline and for missing or
    damaged files, ConfigError for values that are not supported."""
    index = read_json(path / PIPELINE)
    refuse_others(index, str(path / PIPELINE))
    source = HFFolder(path / "transformer", WEIGHTS)
    reader = ConfigReader(
        source.config, str(path / "transformer" / CONFIG), frozenset(source.shapes()), source.read
    )
    cfg = reader.checked(lambda: FAMILY.read(reader))
    scheduler = ConfigReader(read_json(path / "scheduler" / SCHEDULER), str(path / "scheduler" / SCHEDULER))
    cfg = with_noise(cfg, scheduler)
    cfg = with_names(cfg, ConfigReader(index, str(path / PIPELINE)))
    autoencoder = read_autoencoder(path / "vae", cfg)
    rules = FAMILY.rules(cfg)
    for notice in source.notices + passed_over(rules, source.listed, source.unlisted, source.where):
        log.warning("%s: %s", path, notice)
    model = load_weights(cfg, FAMILY, source)
    files = [p for p in path.rglob("*") if p.suffix in (".json", ".safetensors") or p.name == README]
    unread = [
        f"{part}: {key}"
        for part, r in (("transformer", reader), ("scheduler", scheduler))
        for key in r.unread
    ]
    record = imported(path, "diffusers", {"model_type": CLASS}, unread, files, hashes)
    record.add("imported.autoencoder", KIND, f"{Origin.SOURCE}: vae/{CONFIG}")
    return LoadedBase(model, None, record, path, autoencoder=autoencoder)


def refuse_others(index: Mapping[str, Any], where: str) -> None:
    """Raises ArtifactError for every pipeline but DiT's, by its name and parts."""
    name, parts = index.get("_class_name"), {k: v for k, v in index.items() if isinstance(v, list)}
    if "unet" in parts:
        raise ArtifactError(
            f"{where}: {name} draws with a U-Net (unet/), whose convolutions and skips between layers the trunk does not have",
            REMEDY,
        )
    transformer = (parts.get("transformer") or [None])[-1]
    if name != DIT or transformer not in TRANSFORMERS:
        what = f"the transformer {transformer}" if transformer else "no transformer"
        raise ArtifactError(f"{where}: {name} has {what}, which is not supported", REMEDY)
    if (kind := (parts.get("vae") or [None])[-1]) != KIND:
        raise ArtifactError(f"{where}: its autoencoder is of class {kind}", f"only {KIND} is supported")


def with_names(cfg: BaseConfig, r: ConfigReader) -> BaseConfig:
    """The config with the names of classes in the index, in order; "" for a class without one. Raises ConfigError."""
    named, codec = r.get("id2label", dict, {}), cfg.latents
    try:
        texts = {int(k): str(v) for k, v in named.items()}
    except ValueError:
        raise r.refuse("id2label", "numbers of classes, with their names") from None
    most = max(texts, default=-1)
    if min(texts, default=0) < 0 or most >= codec.classes:
        raise ConfigError(
            f"{r.where}: 'id2label' has the class {most}, the transformer {codec.classes} classes",
            "the files do not belong together",
        )
    names = tuple(texts.get(i, "") for i in range(most + 1))
    return replace(cfg, codecs=cfg.codecs | {"latents": replace(codec, names=names)})


def read_autoencoder(path: Path, cfg: BaseConfig) -> Autoencoder:
    """The autoencoder in `vae/`, not run. Raises ArtifactError for another class, and for other latents than the transformer's."""
    source = HFFolder(path, WEIGHTS)
    if (kind := source.config.get("_class_name")) != KIND:
        raise ArtifactError(
            f"{path / CONFIG}: the autoencoder is of class {kind}", f"only {KIND} is supported"
        )
    r = ConfigReader(source.config, str(path / CONFIG))
    scaling, channels = r.positive("scaling_factor", 0.18215), r.size("latent_channels", 4)
    wanted = cfg.latents.channels
    if channels != wanted:
        raise ArtifactError(
            f"{path / CONFIG}: its latents have {channels} channels, those of the transformer {wanted}",
            "the files do not belong together",
        )
    own = {k: v for k, v in source.config.items() if not k.startswith("_")}
    tensors = {_new_name(name): source.read(name) for name in source.shapes()}
    # Matrices that were once convolutions of one pixel.
    tensors = {k: t.flatten(1) if ".attentions." in k and t.ndim == 4 else t for k, t in tensors.items()}
    return Autoencoder(own | {"scaling_factor": scaling, "latent_channels": channels}, tensors)


def _new_name(name: str) -> str:
    for old, new in OLD:
        name = re.sub(rf"(\.attentions\.\d+\.){old}\.", rf"\g<1>{new}.", name)
    return name
