"""What a name means, in memory: bases and adapters of ours or of formats that are known, and rows of the Hub. A new format is one entry in the table
here, and one in `formats.recognise`; `find` says what is there without opening it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from onebase.artifact.files import MANIFEST, read_manifest
from onebase.artifact.record import Origin, Record, state
from onebase.base.folder import LoadedBase, load_base
from onebase.codec.text.codec import TextCodec
from onebase.data.labelled import Data, Fetched
from onebase.errors import UserError
from onebase.formats.card import note_card
from onebase.formats.ctranslate2.whisper import open_ctranslate2
from onebase.formats.gguf import open_base as open_gguf
from onebase.formats.hf.base import layout_of, open_folder
from onebase.formats.hf.tokenizer_files import with_end_of_turn
from onebase.formats.hf.unsupported import what_it_is
from onebase.formats.hub import datasets, models
from onebase.formats.hub.models import fetch
from onebase.formats.hub.names import is_name
from onebase.formats.peft.folder import Target
from onebase.formats.recognise import FORMATS_IN, is_ctranslate2, is_folder, is_gguf, is_peft
from onebase.methods.config import AdapterConfig, part_field
from onebase.methods.folder import AdapterParts, bound_to, load_adapter
from onebase.methods.peft import read
from onebase.model.device import compute_dtype, pick_device
from onebase.opening.find import find_base


def _open_hf(path: Path, hashes: bool) -> LoadedBase:
    return open_folder(path, hashes=hashes)


def _open_ctranslate2(path: Path, hashes: bool) -> LoadedBase:
    return open_ctranslate2(path, hashes=hashes)


def _open_gguf(path: Path, hashes: bool) -> LoadedBase:
    found = open_gguf(path, hashes=hashes)
    codec = found.codec
    return replace(
        found, text_codec=TextCodec(with_end_of_turn(codec.tokenizer, codec.template), codec.template)
    )


OPENERS: Mapping[Callable[[Path], bool], Callable[[Path, bool], LoadedBase]] = {
    is_ctranslate2: _open_ctranslate2,
    is_folder: _open_hf,
    is_gguf: _open_gguf,
}
"""What opens a format, by what says that a path is of it (`formats.recognise`); the flag: hash every file for the record."""


def open_foreign(path: Path, *, hashes: bool = False) -> LoadedBase | None:
    """The model at `path`, or None where it is in no foreign format (an artifact of ours, say). Raises UserError for one that cannot be read,
    and for a form that is known and not read."""
    for fits in FORMATS_IN.values():
        if fits(path):
            found = OPENERS[fits](path, hashes)
            note_hub(found.record, path)
            return found
    if not (path / MANIFEST).is_file() and (odd := what_it_is(path)) is not None:
        raise odd
    return None


def open_to_keep(path: Path, stated: Mapping[str, str | None], log: Callable[[str], object]) -> LoadedBase:
    """The model at `path` with the hash of every file, and what the user states of fields of its record. Raises UserError."""
    found = open_foreign(path, hashes=True)
    if found is None:
        if (path / MANIFEST).is_file():
            kind = read_manifest(path)["kind"]
            raise UserError(
                f"{path} is of kind {kind!r}, made by onebase: there is nothing to import", "use it as it is"
            )
        raise UserError(f"{path} is no model in a format that is known", f"accepted: {', '.join(FORMATS_IN)}")
    for field, value in stated.items():
        state(found.record, field, value, log)
    return found


def note_hub(record: Record, path: Path) -> None:
    """Say in the record which repo and commit of the Hub it was, where the Hub's cache holds the source."""
    if (came := models.origin(path)) is None:
        return
    repo, commit = came
    if path.is_dir():  # its name is the commit's there
        record.add("name", repo.rsplit("/", 1)[-1], f"{Origin.SOURCE}: the repo on the Hub")
    record.add("imported.hub", {"repo": repo, "revision": commit}, f"{Origin.SOURCE}: the Hub's cache")


def open_base(ref: str | Path, *, device: str = "cpu", dtype: str = "fp32") -> LoadedBase:
    """`onebase.load`, without the face."""
    path, where = find_base(ref), pick_device(device)
    found = open_foreign(path)
    if found is None:
        return load_base(path, device=where, dtype=lambda d: compute_dtype(dtype, d))
    found.model.to(where)
    found.model.compute_dtype = compute_dtype(dtype, where)
    return found


def read_adapter(base: LoadedBase, path: Path) -> AdapterParts:
    """An adapter folder of ours, or one that PEFT saved for this base (perhaps on the Hub). Raises ArtifactError or ConfigError."""
    path = fetch(path) if is_name(path) else path
    if not is_peft(path):
        return load_adapter(path)
    found = read(path, Target(base.model, lambda: layout_of(base)[0], base.head))
    record = Record("adapter")
    relied = {k: v for k, v in base.hashes.items() if k != "fingerprint"}
    # PEFT does not say which weights an adapter was made on: that it belongs to this base is the user's word.
    record.add_parent("base", base.fingerprint, base.name, **relied)
    record.add("imported.from", path.resolve().name, f"{Origin.SOURCE}: its name")
    record.add("imported.format", "peft", Origin.SOURCE)
    note_hub(record, path)
    record.add("base", base.fingerprint, "stated by the user, who put it on this base")
    note_card(record, path)
    own = part_field(found.method, found.config)
    cfg = AdapterConfig(method=found.method, task=found.task, base=bound_to(base), **own, **found.parts)
    return AdapterParts(cfg, found.tensors, record, path)


def resolved(data: Data) -> Data:
    """The files of `hf:org/name[@revision][:[config/]split]`; all else as it is. Raises UserError for what is not there or not allowed, DataError for
    a split that is not there or has to be named."""
    if not isinstance(data, (str, Path)) or not is_name(data):
        return data
    paths, source = datasets.fetch(data)
    return Fetched(tuple(paths), source)
