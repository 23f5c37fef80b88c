"""Opens a base from a GGUF file, and writes a base as one."""

import logging
import re
from pathlib import Path

import tokenizers
import torch

from onebase.artifact.files import sha256_file
from onebase.artifact.record import Origin, Record
from onebase.base.folder import LoadedBase
from onebase.errors import ArtifactError
from onebase.formats.card import called, note_general
from onebase.formats.gguf.families import family_for
from onebase.formats.gguf.open import open_gguf
from onebase.formats.gguf.write import WeightKind, save_gguf
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.template import ChatTemplate
from onebase.modality.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)
_TAG = re.compile(r"\{%([-+]?)(\s*(?:end)?generation\s*)([-+]?)%\}")
"""The tag around text with a loss. llama.cpp's templates do not support it, so it is written as a comment."""


def open_base(path: Path, *, dtype: torch.dtype | None = None, hashes: bool = False) -> LoadedBase:
    """Read a file, or the first of its parts. hashes: record the hash of every file, not only its size.

    Raises ArtifactError for a damaged file, ConfigError for unsupported features.
    """
    file = open_gguf(path, dtype=dtype)
    tokenizer = Tokenizer(file.tokenizer, file.roles)
    template = ChatTemplate(
        file.template or "", tuple(tokenizer.specials), f"{path}: tokenizer.chat_template", file.roles
    )
    record = Record("base")
    record.add("name", *called(path.stem, lambda: file.general.get("general.name")))
    record.add("imported.from", path.name, f"{Origin.SOURCE}: its name")
    record.add("imported.format", "gguf", Origin.SOURCE)
    record.add("imported.architecture", file.architecture, f"{Origin.SOURCE}: general.architecture")
    record.add("imported.types", file.kinds, f"{Origin.COUNTED}: how many tensors were stored as what")
    record.add(
        "imported.unread", list(file.unread), f"{Origin.SOURCE}: keys of the file that no rule asked for"
    )
    files = _files(file.files, hashes)
    record.add("imported.files", files, Origin.HASHED if hashes else f"{Origin.COUNTED} on the disk")
    note_general(record, file.general)
    for key in file.unread:
        if key.startswith(f"{file.architecture}."):
            log.warning("%s: '%s' is ignored: it has no effect here", path, key)
    codec = TextCodec(tokenizer, template)
    return LoadedBase(file.model, codec, record, path, embedding=file.embedding)


def _files(paths: tuple[Path, ...], hashes: bool) -> dict[str, dict[str, object]]:
    return {
        p.name: {"bytes": p.stat().st_size} | ({"sha256": sha256_file(p)} if hashes else {}) for p in paths
    }


def write_base(base: LoadedBase, out: Path, *, kind: WeightKind = "F16", pre: str | None = None) -> None:
    """Write a base as one file, in the architecture that fits. pre: see `save_gguf`. Raises ConfigError with what GGUF cannot express,
    ArtifactError if `out` exists."""
    if out.exists():
        raise ArtifactError(f"{out} already exists", "choose another --out")
    codec = base.codec
    roles, source = codec.tokenizer.roles, codec.template.source
    # In our own templates the codec begins a conversation; in llama.cpp the template does.
    start = "{{- bos_token -}}\n" if roles.chat_framed and source.strip() else ""
    inner = tokenizers.Tokenizer.from_str(codec.tokenizer.as_json)
    name = str(base.record.get("name") or out.stem)
    save_gguf(
        out,
        base.model,
        family_for(base.model.cfg),
        inner,
        roles,
        _TAG.sub(r"{#\1\2\3#}", start + source).strip() or None,
        kind=kind,
        name=name,
        pre=pre,
        embedding=base.embedding,
        chat=codec.template,
    )
