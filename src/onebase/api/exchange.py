"""Open weights in and out: which formats there are, and who reads and writes each. A new format is one entry in a table here."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from onebase.adapt import soft
from onebase.adapt.config import AdapterConfig
from onebase.adapt.folder import AdapterParts, adapter_tensors, bound_to, load_adapter
from onebase.adapt.lora import LoraConfig
from onebase.adapt.soft import SoftConfig
from onebase.api.bound import Bound
from onebase.api.merging import merged
from onebase.api.stacking import alone, refuse_unmergeable
from onebase.artifact.files import MANIFEST
from onebase.artifact.record import Record
from onebase.base.folder import LoadedBase
from onebase.codec.text.codec import TextCodec
from onebase.errors import UserError
from onebase.interop.ct2_whisper import open_ctranslate2
from onebase.interop.ctranslate2 import is_ctranslate2
from onebase.interop.gguf import WeightKind, is_gguf, open_base, write_base
from onebase.interop.hf import appear, is_folder, layout_of, open_folder, save_hf
from onebase.interop.hub import fetch, is_name, origin
from onebase.interop.peft import LowRank, is_peft, load_peft, save_peft
from onebase.interop.prompts import is_soft, load_soft, save_soft
from onebase.interop.strange import what_it_is
from onebase.interop.words import with_turns


def _open_hf(path: Path, hashes: bool) -> LoadedBase:
    return open_folder(path, hashes=hashes)


def _open_ctranslate2(path: Path, hashes: bool) -> LoadedBase:
    return open_ctranslate2(path, hashes=hashes)


def _open_gguf(path: Path, hashes: bool) -> LoadedBase:
    found = open_base(path, hashes=hashes)
    codec = found.codec
    return replace(found, words=TextCodec(with_turns(codec.tokenizer, codec.template), codec.template))


#: name: whether a path is of this format, and what opens it (the flag: hash every file for the record)
FORMATS_IN: dict[str, tuple[Callable[[Path], bool], Callable[[Path, bool], LoadedBase]]] = {
    "a CTranslate2 folder of a Whisper (model.bin, tokenizer.json)": (is_ctranslate2, _open_ctranslate2),
    "a Hugging Face folder (config.json and safetensors)": (is_folder, _open_hf),
    "a .gguf file": (is_gguf, _open_gguf),
}


def open_foreign(path: Path, *, hashes: bool = False) -> LoadedBase | None:
    """The model at `path`, or None where it is in no foreign format (an artifact of ours, say). Raises UserError for one that cannot be read,
    and for a form that is known and not read."""
    for fits, opener in FORMATS_IN.values():
        if fits(path):
            found = opener(path, hashes)
            _note_hub(found.record, path)
            return found
    if not (path / MANIFEST).is_file() and (odd := what_it_is(path)) is not None:
        raise odd
    return None


def _note_hub(record: Record, path: Path) -> None:
    """Say in the record which repo and commit of the Hub it was, where the Hub's cache holds the source."""
    if (came := origin(path)) is None:
        return
    repo, commit = came
    if path.is_dir():  # its name is the commit's there
        record.add("name", repo.rsplit("/", 1)[-1], "name of the repo on the Hub")
    record.add("imported.hub", {"repo": repo, "revision": commit}, "the Hub's cache")


def refuse_foreign(path: Path) -> None:
    """Raises UserError for what has no record because it is no artifact of ours, but could have one."""
    for name, (fits, _) in FORMATS_IN.items():
        if fits(path):
            raise UserError(
                f"{path} is {name}, it has no record", f"make a base of it: onebase import {path} --out DIR"
            )


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
    if attached is None or not (attached.config.lora or attached.config.soft):
        raise UserError(
            "there is no LoRA adapter and no soft prompt on the base",
            "give --adapter REF (with_adapter in Python)",
        )
    alone(attached, "PEFT's format")
    if attached.config.head is not None:
        raise UserError("the adapter has a head, which PEFT has no place for", "export the base alone")
    if attached.config.lora is None:
        (vectors_PD,) = adapter_tensors(attached.base, attached.name).values()
        appear(out, lambda folder: save_soft(folder, vectors_PD, attached.base.model, base=base.name))
        return
    lora, model = attached.config.lora, attached.base.model
    low = LowRank(
        lora.rank,
        lora.alpha,
        lora.sites,
        adapter_tensors(attached.base, attached.name),
        lora.ranks,
        lora.alphas,
        lora.rslora,
        lora.dora,
    )
    family = layout_of(attached.base)[0]
    appear(out, lambda folder: save_peft(folder, low, model, family, base=base.name))


#: name: what writes a base in that format, or the adapter that is on it
FORMATS_OUT: dict[str, Callable[[Bound, Path, Mapping[str, Any]], None]] = {
    "hf": _write_hf,
    "gguf": _write_gguf,
    "peft": _write_peft,
}


def read_adapter(base: LoadedBase, path: Path) -> AdapterParts:
    """An adapter folder of ours, or one that PEFT saved for this base (perhaps on the Hub). Raises ArtifactError or ConfigError."""
    path = fetch(path) if is_name(path) else path
    if not is_peft(path):
        return load_adapter(path)
    if is_soft(path):
        tensors = {soft.KEY: load_soft(path, base.model)}
        made: dict[str, Any] = {"method": "soft", "soft": SoftConfig(virtual=len(tensors[soft.KEY]))}
    else:
        low = load_peft(path, base.model, layout_of(base)[0])
        tensors, made = low.tensors, {"method": "lora", "lora": LoraConfig(**low.settings)}
    record = Record("adapter")
    relied = {k: v for k, v in base.hashes.items() if k != "fingerprint"}
    # PEFT does not say which weights an adapter was made on: that it belongs to this base is the user's word.
    record.add_parent("base", base.fingerprint, base.path.name if base.path else "", **relied)
    record.add("imported.from", path.resolve().name, "name of the source")
    record.add("imported.format", "peft", "read from the source")
    _note_hub(record, path)
    record.add("base", base.fingerprint, "stated by the user, who put it on this base")
    record.add("data", None, "not known: the source does not say what the adapter learnt from")
    cfg = AdapterConfig(task="complete", base=bound_to(base), **made)
    return AdapterParts(cfg, tensors, record, path)


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
