"""Exports bases and adapters to the formats of other programs. A new format is one entry in the table here."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch

from onebase.base.folder import LoadedBase, base_tensors
from onebase.base.head import Head, OwnHead
from onebase.base.model import BaseModel
from onebase.config import from_dict
from onebase.derive.merging import merged
from onebase.errors import ConfigError, UserError
from onebase.formats.diffusers.write import save_pipeline
from onebase.formats.gguf import WeightKind, write_base
from onebase.formats.hf.base import layout_of, save_hf
from onebase.formats.hf.folder import appear
from onebase.formats.peft.folder import Target
from onebase.methods.bound import Bound
from onebase.methods.folder import adapter_tensors
from onebase.methods.peft import write
from onebase.methods.stacking import alone, refuse_unmergeable
from onebase.modality.image.config import PoolConfig

NO_PLACE = ("masks", "contacts")
"""What heads give that no class of transformers has."""


def _write_hf(base: Bound, out: Path, options: Mapping[str, Any]) -> None:
    """Write a transformers folder. If the adapter has a head, the model is written with it."""
    _known("hf", options)
    on = base.attached
    if on is None or on.config.head is None:
        save_hf(_plain(base), out)
        return
    if on.config.head.gives in NO_PLACE:
        raise UserError(
            f"a head that gives {on.config.head.gives} has no place in a layout of transformers",
            "export the base without it (in Python: base.plain.export), and keep the onebase folder for it",
        )
    heads_alone = all(a.method == "head" for a in on.stack)
    loaded = base.plain.loaded if heads_alone else _plain(base)
    module = on.base.model.heads[on.name]
    assert isinstance(module, Head)
    head = OwnHead(on.task, on.config.head, {k: t.cpu() for k, t in module.tensors.items()})
    if head.config.reads == "image":
        save_hf(with_classes(loaded, head), out)
    else:
        save_hf(loaded, out, head)


def with_classes(base: LoadedBase, head: OwnHead) -> LoadedBase:
    """The base with this head as its image classifier. Raises ConfigError if the base cannot hold it."""
    cfg, codec = base.model.cfg, base.model.cfg.image
    kinds = {"both": "both", "mean": "mean", "last": "first", "cls": "first"}
    if head.config.pooling not in kinds or codec.pool.kind == "attention":
        raise ConfigError(
            f"this image head uses pooling {head.config.pooling!r}", "train one with -o pooling=last or both"
        )
    pool = from_dict(PoolConfig, {"kind": kinds[head.config.pooling]})
    codec = replace(codec, classes=head.config.labels, pool=pool)
    tensors = base_tensors(base.model) | {
        "codecs.image.head": head.tensors["head.weight"],
        "codecs.image.head_bias": head.tensors["head.bias"],
    }
    with torch.device("meta"):
        model = BaseModel(replace(cfg, codecs=cfg.codecs | {"image": codec}))
    model.load_state_dict(tensors, strict=True, assign=True)
    return replace(base, model=model.requires_grad_(False).eval(), origin=None)


def _write_diffusers(base: Bound, out: Path, options: Mapping[str, Any]) -> None:
    """Write a pipeline of a diffusion transformer."""
    _known("diffusers", options)
    save_pipeline(_plain(base), out)


def _write_gguf(base: Bound, out: Path, options: Mapping[str, Any]) -> None:
    """Write a file: `out` itself if it ends in .gguf, otherwise a file in the folder `out`. Options: kind, pre."""
    _known("gguf", options, "kind", "pre")
    if options.get("kind", "F16") not in get_args(WeightKind):
        raise UserError(f"unknown kind {options['kind']!r}", f"kinds: {', '.join(get_args(WeightKind))}")
    loaded = _plain(base)
    file = out if out.suffix == ".gguf" else out / "model.gguf"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_base(loaded, file, **options)


def _write_peft(base: Bound, out: Path, options: Mapping[str, Any]) -> None:
    """Write the attached adapter, for PEFT on the same base."""
    _known("peft", options)
    attached = base.attached
    if attached is None:
        raise UserError("no adapter is attached to the base", "give --adapter REF (with_adapter in Python)")
    alone(attached, "PEFT's format")
    tensors = adapter_tensors(attached.base, attached.name)
    target = Target(attached.base.model, lambda: layout_of(attached.base)[0], attached.base.head)
    appear(out, lambda folder: write(folder, attached.config, tensors, target, base.name))


#: name: function that writes a base, or its attached adapter, in that format
FORMATS_OUT: dict[str, Callable[[Bound, Path, Mapping[str, Any]], None]] = {
    "hf": _write_hf,
    "gguf": _write_gguf,
    "diffusers": _write_diffusers,
    "peft": _write_peft,
}


def export(base: Bound, out: Path, format: str, options: Mapping[str, Any]) -> Path:
    """Write `base` in the named format. Raises UserError for an unknown format or option."""
    if format not in FORMATS_OUT:
        raise UserError(f"unknown format {format!r}", f"formats: {', '.join(FORMATS_OUT)}")
    FORMATS_OUT[format](base, out, options)
    return out


def _plain(base: Bound) -> LoadedBase:
    """The base to write: a merged copy if an adapter is attached."""
    if base.attached is None or base.own:
        return base.loaded
    refuse_unmergeable(base.attached)
    return merged(base.loaded, base.attached, base.name)


def _known(format: str, options: Mapping[str, Any], *names: str) -> None:
    odd = next((n for n in options if n not in names), None)
    if odd is not None:
        accepted = f"options: {', '.join(names)}" if names else "it has no options"
        raise UserError(f"the format {format} has no option {odd!r}", accepted)
