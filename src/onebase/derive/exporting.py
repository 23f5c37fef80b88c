"""Bases and adapters in other programs' formats. A new format is one entry in a table here."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

from onebase.adapt.folder import adapter_tensors
from onebase.adapt.peft import write
from onebase.adapt.stacking import alone, refuse_unmergeable
from onebase.base.folder import LoadedBase
from onebase.derive.merging import merged
from onebase.errors import UserError
from onebase.interop.gguf import WeightKind, write_base
from onebase.interop.hf import appear, layout_of, save_hf
from onebase.interop.peft import Target
from onebase.tasks.bound import Bound


def _write_hf(base: Bound, out: Path, options: Mapping[str, Any]) -> None:
    _known("hf", options)
    save_hf(_plain(base), out)


def _write_gguf(base: Bound, out: Path, options: Mapping[str, Any]) -> None:
    """A file: `out` itself where it ends in .gguf, else a file in the folder `out`. Options: kind, pre."""
    _known("gguf", options, "kind", "pre")
    if options.get("kind", "F16") not in get_args(WeightKind):
        raise UserError(f"kind {options['kind']!r} is not known", f"kinds: {', '.join(get_args(WeightKind))}")
    loaded = _plain(base)
    file = out if out.suffix == ".gguf" else out / "model.gguf"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_base(loaded, file, **options)


def _write_peft(base: Bound, out: Path, options: Mapping[str, Any]) -> None:
    """The adapter that is on the base, for PEFT on the same base there."""
    _known("peft", options)
    attached = base.attached
    if attached is None:
        raise UserError("there is no adapter on the base", "give --adapter REF (with_adapter in Python)")
    alone(attached, "PEFT's format")
    tensors = adapter_tensors(attached.base, attached.name)
    target = Target(attached.base.model, lambda: layout_of(attached.base)[0])
    appear(out, lambda folder: write(folder, attached.config, tensors, target, base.name))


#: name: what writes a base in that format, or the adapter that is on it
FORMATS_OUT: dict[str, Callable[[Bound, Path, Mapping[str, Any]], None]] = {
    "hf": _write_hf,
    "gguf": _write_gguf,
    "peft": _write_peft,
}


def export(base: Bound, out: Path, format: str, options: Mapping[str, Any]) -> Path:
    """Write `base` in a format by name. Raises UserError for a format or an option that is not known."""
    if format not in FORMATS_OUT:
        raise UserError(f"format {format!r} is not known", f"formats: {', '.join(FORMATS_OUT)}")
    FORMATS_OUT[format](base, out, options)
    return out


def _plain(base: Bound) -> LoadedBase:
    """The base to write: with an adapter on it, a merged copy."""
    if base.attached is None:
        return base.loaded
    refuse_unmergeable(base.attached)
    return merged(base.loaded, base.attached, base.name)


def _known(format: str, options: Mapping[str, Any], *names: str) -> None:
    odd = next((n for n in options if n not in names), None)
    if odd is not None:
        what = f"options: {', '.join(names)}" if names else "it has none"
        raise UserError(f"the format {format} has no option {odd!r}", what)
