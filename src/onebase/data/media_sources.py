"""Sources of documents with images or audio: folders with metadata, WebDataset tar files, Parquet structs; and FASTA files."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from onebase.artifact.odd_files import FORMATS
from onebase.data.files import check_file, rows, text_lines
from onebase.data.sources import MARK, Document, MediaFile, SourceConfig, document_split, files_of
from onebase.errors import DataError
from onebase.modality.media import MEDIA, by_suffix

METADATA = ("metadata.jsonl", "metadata.csv")
LONGEST = 256 << 20
"""Bytes of one file of media: larger ones are refused before they are read."""


def captioned(cfg: SourceConfig, media: MediaFile, text: str, id: str, meta: Mapping[str, Any]) -> Document:
    """A document of one image or sound and the text that belongs to it."""
    if MARK in text:
        raise DataError(
            f"{media.name}: its text has the character U+FFFC, which stands for media", "remove it"
        )
    return Document(MARK + text, cfg.name, cfg.licence, id, meta, (media,))


def _folder(cfg: SourceConfig) -> Iterator[Document]:
    """`imagefolder`, `audiofolder`: https://huggingface.co/docs/datasets/image_dataset; `mediafolder`: files of every modality."""
    root, only = Path(cfg.path), cfg.kind.removesuffix("folder")
    known = {s: k.name for s, k in by_suffix().items() if only in ("media", k.name)}
    if not root.is_dir():
        raise DataError(f"source '{cfg.name}': {root} is no folder", "give the folder of the files")
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in known and p.is_file())
    paths = [p for p in paths if not any(part.startswith(".") for part in p.relative_to(root).parts)]
    if not paths:
        raise DataError(
            f"source '{cfg.name}': no {only} files in {root}", f"give files that end in {', '.join(known)}"
        )
    described = _metadata(cfg, root)
    for path in paths:
        name = path.relative_to(root).as_posix()
        text, meta = described.pop(name, ("", {}))
        yield captioned(cfg, _media_file(path, known[path.suffix.lower()]), text, name, meta)
    if described:
        name = min(described)
        raise DataError(
            f"source '{cfg.name}': the metadata names {name!r}, which is not in {root}"
            + (f" ({len(described):,} such names)" if len(described) > 1 else ""),
            "add the files, or remove the rows",
        )


def _metadata(cfg: SourceConfig, root: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Text and split by the name of the file below the root; metadata files may stand in any of its folders."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for path in sorted(p for name in METADATA for p in root.rglob(name)):
        columns = ["file_name", cfg.text_column] + ([cfg.split_column] if cfg.split_column else [])
        for where, row in rows(path, FORMATS[path.suffix], columns):
            name, text = row["file_name"], row[cfg.text_column]
            if not isinstance(name, str) or not isinstance(text, str):
                raise DataError(
                    f"{where}: file_name is {name!r} and {cfg.text_column} {text!r}", "give two texts"
                )
            inside = (path.parent / name).relative_to(root).as_posix()
            if inside in found:
                raise DataError(f"{where}: {name!r} has two rows", "remove one of them")
            found[inside] = text, document_split(cfg, where, row)
    return found


def _media_file(path: Path, kind: str, where: str = "") -> MediaFile:
    name, data = f"{where}: {path}" if where else str(path), b""
    if not (problem := _problem(path.stat().st_size, name)):
        try:
            data = path.read_bytes()
        except OSError as e:
            problem = f"{name} cannot be read: {e.strerror}"
    return MediaFile(kind, data, name, problem)


def _problem(size: int, name: str) -> str:
    """Why a file of so many bytes is not read."""
    if not size:
        return f"{name} is empty"
    return f"{name} has {size:,} bytes, at most {LONGEST:,} are read" if size > LONGEST else ""


def _webdataset(cfg: SourceConfig) -> Iterator[Document]:
    """Members of a tar file that share a name make a sample (https://github.com/webdataset/webdataset): the media, and a text (.txt) or an object
    with the text column (.json)."""
    for name, path in files_of(cfg):
        check_file(path)
        try:
            with tarfile.open(path, "r:*") as tar:
                key, members = "", dict[str, MediaFile]()
                for member in tar:
                    if not member.isfile():
                        continue
                    folder, _, base = member.name.rpartition("/")
                    stem, _, suffix = base.partition(".")
                    own = f"{folder}/{stem}"
                    if own != key and members:
                        yield _sample(cfg, f"{path}: {key.lstrip('/')}", f"{name}#{key.lstrip('/')}", members)
                        members = {}
                    problem = _problem(member.size, f"{path}: {member.name}")
                    file, key = tar.extractfile(member), own
                    assert file is not None, "a regular member"
                    data = b"" if problem else file.read()
                    members["." + suffix.lower()] = MediaFile("", data, f"{path}: {member.name}", problem)
                if members:
                    yield _sample(cfg, f"{path}: {key.lstrip('/')}", f"{name}#{key.lstrip('/')}", members)
        except (tarfile.TarError, EOFError, OSError) as e:
            raise DataError(f"{path}: not a tar file, or damaged: {e}", "give an intact .tar file") from None


def _sample(cfg: SourceConfig, where: str, id: str, members: Mapping[str, MediaFile]) -> Document:
    known = by_suffix()
    media = [replace(m, kind=known[s].name) for s, m in members.items() if s in known]
    if len(media) != 1:
        raise DataError(
            f"{where}: {len(media)} media files in one sample", "give one beside its .txt or .json"
        )
    meta: dict[str, Any] = {}
    try:
        text = members[".txt"].data.decode() if ".txt" in members else ""
        if ".json" in members:
            row = json.loads(members[".json"].data)
            if not isinstance(row, dict) or not isinstance(row.get(cfg.text_column, ""), str):
                raise DataError(
                    f"{where}: its .json has no text '{cfg.text_column}'", "write an object with a text"
                )
            text = row.get(cfg.text_column, text)
            meta = document_split(cfg, where, row)
    except (UnicodeDecodeError, json.JSONDecodeError) as e:
        raise DataError(f"{where}: its text cannot be read: {e}", "write it as UTF-8 text or JSON") from None
    return captioned(cfg, media[0], text, id, meta)


def _parquet(cfg: SourceConfig) -> Iterator[Document]:
    """Structs {bytes, path}, as HF datasets writes features Image and Audio."""
    column = cfg.media_column
    assert column is not None
    wanted = [column, cfg.text_column] + ([cfg.split_column] if cfg.split_column else [])
    for name, path in files_of(cfg):
        for number, (where, row) in enumerate(rows(path, "parquet", wanted), 1):
            text, cell = row[cfg.text_column], row[column]
            if not isinstance(text, str):
                raise DataError(
                    f"{where}: column '{cfg.text_column}' is {type(text).__name__}", "fix or remove the row"
                )
            data = cell.get("bytes") if isinstance(cell, dict) else cell
            if not isinstance(data, bytes):
                raise DataError(
                    f"{where}: column '{column}' has no bytes",
                    "write the files into the Parquet file (datasets: embed_external_files), or use a folder",
                )
            kind = _kind_of(data, str(cell.get("path") or "") if isinstance(cell, dict) else "")
            problem = _problem(len(data), where) or ("" if kind else f"{where}: neither an image nor audio")
            meta = document_split(cfg, where, row)
            media = MediaFile(kind, b"" if problem else data, where, problem)
            yield captioned(cfg, media, text, f"{name}#{number}", meta)


def _kind_of(data: bytes, path: str) -> str:
    """By the name of the file, or else by how its bytes begin; "" where neither says it."""
    if (kind := by_suffix().get(Path(path).suffix.lower())) is not None:
        return kind.name
    if (
        data[:4] in (b"fLaC", b"OggS")
        or data[:3] == b"ID3"
        or (data[:4] == b"RIFF" and data[8:12] == b"WAVE")
    ):
        return "audio"
    if data[:4] in (b"\x89PNG", b"RIFF", b"GIF8", b"II*\0", b"MM\0*") or data[:2] in (b"\xff\xd8", b"BM"):
        return "image"
    return "audio" if data[:1] == b"\xff" else ""  # an MP3 frame


def interleaved(cfg: SourceConfig, where: str, parts: list[Any], folder: Path) -> tuple[str, list[MediaFile]]:
    """A document of parts in any order, as messages have them: `{"type": "text", "text": ...}`, `{"type": "image", "path": ...}`, a path being
    relative to `folder`. Raises DataError."""
    text, media = "", []
    for number, part in enumerate(parts, 1):
        kind = part.get("type") if isinstance(part, dict) else None
        value = part.get("text" if kind == "text" else "path") if isinstance(part, dict) else None
        if not isinstance(value, str) or (kind != "text" and kind not in MEDIA):
            raise DataError(
                f"{where}: part {number} of '{cfg.text_column}' is {str(part)[:80]}",
                f'give {{"type": "text", "text": ...}}, or a "path" with type {", ".join(MEDIA)}',
            )
        if kind == "text":
            if MARK in value:
                raise DataError(
                    f"{where}: part {number} has the character U+FFFC, which stands for media", "remove it"
                )
            text += value
        else:
            if not (path := folder / value).is_file():
                raise DataError(f"{where}: there is no file {path}", f"paths are relative to {folder}")
            text += MARK
            media.append(_media_file(path, str(kind), where))
    return text, media


def _fasta(cfg: SourceConfig) -> Iterator[Document]:
    """A line `>name description`, then the residues in lines of any length; the text is `<name>` less: the residues alone."""
    for name, path in files_of(cfg):
        title, residues, line_number = "", list[str](), 0
        for number, line in enumerate(text_lines(path), 1):
            line = line.strip()
            if line.startswith(">"):
                if residues:
                    yield _protein(cfg, f"{path}:{line_number}", f"{name}#{title}", "".join(residues))
                title, residues, line_number = line[1:].split(" ")[0] or str(number), [], number
            elif line and not line.startswith(";"):
                if not line_number:
                    raise DataError(f"{path}:{number}: residues before the first '>'", "give a FASTA file")
                residues.append(line)
        if residues:
            yield _protein(cfg, f"{path}:{line_number}", f"{name}#{title}", "".join(residues))


def _protein(cfg: SourceConfig, where: str, id: str, residues: str) -> Document:
    residues = residues.replace(" ", "").rstrip("*").upper()
    if wrong := sorted({c for c in residues if not ("A" <= c <= "Z" or c in "*-")}):
        raise DataError(f"{where}: {wrong[0]!r} is no residue", "give letters of IUPAC's code")
    return Document(residues, cfg.name, cfg.licence, id)


READERS: dict[str, Callable[[SourceConfig], Iterator[Document]]] = {
    "imagefolder": _folder,
    "audiofolder": _folder,
    "mediafolder": _folder,
    "webdataset": _webdataset,
    "parquet": _parquet,
    "fasta": _fasta,
}
"""Kinds of sources with media, and FASTA; each yields documents in a fixed order, and raises DataError naming file and row."""
