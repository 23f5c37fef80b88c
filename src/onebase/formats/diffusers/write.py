"""Writes a base of latents as a folder that `diffusers.DiTPipeline` opens."""

import json
from pathlib import Path

from onebase.artifact.tensors import save_tensors
from onebase.base.folder import LoadedBase
from onebase.errors import ConfigError
from onebase.formats.diffusers.open import DIT, SCHEDULER, WEIGHTS
from onebase.formats.families.dit import CLASS, FAMILY, noise_tree
from onebase.formats.family import Tree, written
from onebase.formats.hf.files import CONFIG
from onebase.formats.hf.folder import appear
from onebase.formats.recognise import PIPELINE
from onebase.formats.weight_loading import given_back
from onebase.modality.latents.autoencoder import KIND

VERSION = "0.30.0"
"""Of diffusers, since which all the files' keys mean what they do here."""


def save_pipeline(base: LoadedBase, out: Path) -> None:
    """Write the folder, completely or not at all. Raises ConfigError with what the layout cannot express, ArtifactError if `out` exists."""
    cfg = base.model.cfg
    config, scheduler = written(FAMILY, cfg), noise_tree(cfg)
    codec, autoencoder = cfg.latents, base.autoencoder
    if autoencoder is None:
        raise ConfigError("this base has no autoencoder", "export one that was opened from a pipeline")
    tree = {"_class_name": DIT, "_diffusers_version": VERSION}
    index: Tree = {
        **tree,
        "id2label": {str(i): name for i, name in enumerate(codec.names) if name} or None,
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "transformer": ["diffusers", CLASS],
        "vae": ["diffusers", KIND],
    }

    def write(folder: Path) -> None:
        parts = {
            "transformer": (config, given_back(base.model, FAMILY.rules(cfg))),
            "vae": ({"_class_name": KIND} | dict(autoencoder.config), dict(autoencoder.tensors)),
        }
        for name, (own, tensors) in parts.items():
            (folder / name).mkdir()
            _dump(folder / name / CONFIG, own | {"_diffusers_version": VERSION})
            save_tensors(folder / name / WEIGHTS, tensors)
        (folder / "scheduler").mkdir()
        _dump(folder / "scheduler" / SCHEDULER, scheduler | {"_diffusers_version": VERSION})
        _dump(folder / PIPELINE, index)
        base.record.save(folder / "onebase_record.json")

    appear(out, write)


def _dump(path: Path, tree: Tree) -> None:
    path.write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
