"""A base from a GGUF file, and a GGUF file from a base."""

import logging
import re
from pathlib import Path

import tokenizers
import torch

from onebase.artifact.files import sha256_file
from onebase.artifact.record import Origin, Record
from onebase.base.folder import LoadedBase
from onebase.codec.text.codec import TextCodec
from onebase.codec.text.template import ChatTemplate
from onebase.codec.text.tokenizer import Tokenizer
from onebase.errors import ArtifactError
from onebase.formats.card import called, note_general
from onebase.formats.gguf.families import family_for
from onebase.formats.gguf.open import open_gguf
from onebase.formats.gguf.write import WeightKind, save_gguf

log = logging.getLogger(__name__)
_TAG = re.compile(r"\{%([-+]?)(\s*(?:end)?generation\s*)([-+]?)%\}")
"""What marks the text that is learnt: llama.cpp's templates know no such tag, so it is written as a comment."""


def open_base(path: Path, *, dtype: torch.dtype | None = None, hashes: bool = False) -> LoadedBase:
    """Read a file, or the first of its parts. hashes: note the hash of every file, not only its size.

    Raises ArtifactError for what is damaged, ConfigError for what the file says and we lack.
    """
    found = open_gguf(path, dtype=dtype)
    tokenizer = Tokenizer(found.tokenizer, found.roles)
    template = ChatTemplate(
        found.template or "", tuple(tokenizer.specials), f"{path}: tokenizer.chat_template", found.roles
    )
    record = Record("base")
    record.add("name", *called(path.stem, lambda: found.general.get("general.name")))
    record.add("imported.from", path.name, f"{Origin.SOURCE}: its name")
    record.add("imported.format", "gguf", Origin.SOURCE)
    record.add("imported.architecture", found.architecture, f"{Origin.SOURCE}: general.architecture")
    record.add("imported.types", found.kinds, f"{Origin.COUNTED}: how many tensors were stored as what")
    record.add(
        "imported.unread", list(found.unread), f"{Origin.SOURCE}: keys of the file that no rule asked for"
    )
    files = _files(found.files, hashes)
    record.add("imported.files", files, Origin.HASHED if hashes else f"{Origin.COUNTED} on the disk")
    note_general(record, found.general)
    for key in found.unread:
        if key.startswith(f"{found.architecture}."):
            log.warning("%s: '%s' is not applied: it changes nothing here", path, key)
    words = TextCodec(tokenizer, template)
    return LoadedBase(found.model, words, record, path, embedding=found.embedding)


def _files(paths: tuple[Path, ...], hashes: bool) -> dict[str, dict[str, object]]:
    return {
        p.name: {"bytes": p.stat().st_size} | ({"sha256": sha256_file(p)} if hashes else {}) for p in paths
    }


def write_base(base: LoadedBase, out: Path, *, kind: WeightKind = "F16", pre: str | None = None) -> None:
    """Write a base as one file, in the architecture that has its parts. Raises ConfigError naming what GGUF cannot express, ArtifactError where `out`
    exists. pre: see `save_gguf`."""
    if out.exists():
        raise ArtifactError(f"{out} already exists", "choose another --out")
    codec = base.codec
    roles, source = codec.tokenizer.roles, codec.template.source
    # Our own templates leave it to the codec to begin a conversation; llama.cpp leaves it to the template.
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
