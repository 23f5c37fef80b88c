"""Opens bases and adapters, in our formats and others, and rows on the Hub, by name. A new format is one entry in the table here, and one in
`formats.recognise`. `find` resolves names without opening anything."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from onebase.artifact.files import MANIFEST, read_manifest
from onebase.artifact.record import Origin, Record, state
from onebase.base.folder import LoadedBase, load_base
from onebase.data.labelled import Data, Fetched
from onebase.errors import UserError
from onebase.formats.card import note_card
from onebase.formats.ctranslate2.whisper import open_ctranslate2
from onebase.formats.diffusers.open import open_pipeline
from onebase.formats.gguf import open_base as open_gguf
from onebase.formats.hf.base import layout_of, open_folder
from onebase.formats.hf.tokenizer_files import with_end_of_turn
from onebase.formats.hf.unsupported import what_it_is
from onebase.formats.hub import datasets, models
from onebase.formats.hub.models import fetch
from onebase.formats.hub.names import is_name
from onebase.formats.peft.folder import Target
from onebase.formats.recognise import (
    FORMATS_IN,
    is_ctranslate2,
    is_folder,
    is_gguf,
    is_peft,
    is_pipeline,
)
from onebase.methods.config import AdapterConfig, part_field
from onebase.methods.folder import AdapterParts, bound_to, load_adapter
from onebase.methods.peft import read
from onebase.modality.text.codec import TextCodec
from onebase.model.device import compute_dtype, pick_device
from onebase.opening.find import find_base


def _open_hf(path: Path, hashes: bool) -> LoadedBase:
    return open_folder(path, hashes=hashes)


def _open_pipeline(path: Path, hashes: bool) -> LoadedBase:
    return open_pipeline(path, hashes=hashes)


def _open_ctranslate2(path: Path, hashes: bool) -> LoadedBase:
    return open_ctranslate2(path, hashes=hashes)


def _open_gguf(path: Path, hashes: bool) -> LoadedBase:
    base = open_gguf(path, hashes=hashes)
    codec = base.codec
    return replace(
        base, text_codec=TextCodec(with_end_of_turn(codec.tokenizer, codec.template), codec.template)
    )


OPENERS: Mapping[Callable[[Path], bool], Callable[[Path, bool], LoadedBase]] = {
    is_ctranslate2: _open_ctranslate2,
    is_folder: _open_hf,
    is_gguf: _open_gguf,
    is_pipeline: _open_pipeline,
}
"""The function that opens each format, by the one that recognises it (`formats.recognise`). Its flag: hash every file for the record."""


def open_foreign(path: Path, *, hashes: bool = False) -> LoadedBase | None:
    """The model at `path`, or None if it is in no foreign format (but an artifact of ours, say). Raises UserError for a model that cannot be
    read, and for a known but unsupported format."""
    for fits in FORMATS_IN.values():
        if fits(path):
            base = OPENERS[fits](path, hashes)
            note_hub(base.record, path)
            return base
    if not (path / MANIFEST).is_file() and (odd := what_it_is(path)) is not None:
        raise odd
    return None


def open_to_keep(path: Path, stated: Mapping[str, str | None], log: Callable[[str], object]) -> LoadedBase:
    """The model at `path`. Its record has the hash of every file, and the fields in `stated`, as stated by the user. Raises UserError."""
    base = open_foreign(path, hashes=True)
    if base is None:
        if (path / MANIFEST).is_file():
            kind = read_manifest(path)["kind"]
            raise UserError(
                f"{path} is an artifact of onebase (kind {kind!r}): nothing to import", "use it as it is"
            )
        raise UserError(f"{path} is not a model in a known format", f"accepted: {', '.join(FORMATS_IN)}")
    for field, value in stated.items():
        state(base.record, field, value, log)
    return base


def note_hub(record: Record, path: Path) -> None:
    """Record repo and commit if the source is in the Hub's cache."""
    if (origin := models.origin(path)) is None:
        return
    repo, commit = origin
    if path.is_dir():  # in the cache its name is the commit
        record.add("name", repo.rsplit("/", 1)[-1], f"{Origin.SOURCE}: the repo on the Hub")
    record.add("imported.hub", {"repo": repo, "revision": commit}, f"{Origin.SOURCE}: the Hub's cache")


def open_base(ref: str | Path, *, device: str = "cpu", dtype: str = "fp32") -> LoadedBase:
    """`onebase.load`, without the public `Base`."""
    path, target = find_base(ref), pick_device(device)
    base = open_foreign(path)
    if base is None:
        return load_base(path, device=target, dtype=lambda d: compute_dtype(dtype, d))
    base.model.to(target)
    base.model.compute_dtype = compute_dtype(dtype, target)
    return base


def read_adapter(base: LoadedBase, path: Path) -> AdapterParts:
    """Read an adapter folder of ours, or one that PEFT saved for this base (possibly on the Hub). Raises ArtifactError or ConfigError."""
    path = fetch(path) if is_name(path) else path
    if not is_peft(path):
        return load_adapter(path)
    adapter = read(path, Target(base.model, lambda: layout_of(base)[0], base.head))
    record = Record("adapter")
    hashes = {k: v for k, v in base.hashes.items() if k != "fingerprint"}
    # PEFT does not record which weights an adapter was trained on: the user states that it belongs to this base.
    record.add_parent("base", base.fingerprint, base.name, **hashes)
    record.add("imported.from", path.resolve().name, f"{Origin.SOURCE}: its name")
    record.add("imported.format", "peft", Origin.SOURCE)
    note_hub(record, path)
    record.add("base", base.fingerprint, "stated by the user, who put it on this base")
    note_card(record, path)
    own = part_field(adapter.method, adapter.config)
    cfg = AdapterConfig(method=adapter.method, task=adapter.task, base=bound_to(base), **own, **adapter.parts)
    return AdapterParts(cfg, adapter.tensors, record, path)


def resolved(data: Data) -> Data:
    """The files of `hf:org/name[@revision][:[config/]split]`; other data unchanged. Raises UserError for names that are missing or not allowed,
    DataError for a split that is missing or must be named."""
    if not isinstance(data, (str, Path)) or not is_name(data):
        return data
    paths, source = datasets.fetch(data)
    return Fetched(tuple(paths), source)
