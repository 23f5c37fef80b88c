"""Reads and writes Hugging Face folders: config.json and safetensors, in one file or in shards. Strict checks: the folder is untrusted."""

import copy
import json
import math
import os
import secrets
import shutil
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from onebase.artifact.tensors import DTYPES
from onebase.errors import ArtifactError
from onebase.formats.hf.files import CONFIG, WEIGHTS, read_json
from onebase.formats.hf.unsupported import no_weights, pointer
from onebase.formats.raw_tensors import read_tensor
from onebase.formats.rules import Shape

PART = 16 * 2**20
"""Bytes of a tensor at a time if it is not read whole."""


class HFFolder:
    """The tensors of a folder. Raises ArtifactError for missing or damaged files, and for paths outside the folder.

    listed: names that are in the index but in no shard; unlisted: the reverse (the rules of the `Family` decide whether they matter); notices:
    what was ignored. weights: the file with the tensors, where it is not split in shards."""

    fresh = True

    def __init__(self, path: Path, weights: str = WEIGHTS) -> None:
        self.path, self.where = path, str(path)
        self.weights, self.index = weights, f"{weights}.index.json"
        self.listed: frozenset[str] = frozenset()
        self.unlisted: frozenset[str] = frozenset()
        self.notices: list[str] = []
        self.config = read_json(path / CONFIG)
        self._at: dict[str, TensorEntry] = {}
        for file in self._files():
            for name, entry in read_entries(file).items():
                if name in self._at:
                    raise ArtifactError(
                        f"{file}: tensor {name!r} is in {self._at[name].file.name} too",
                        "take an intact copy of the folder",
                    )
                self._at[name] = entry

    def without(self, names: Collection[str]) -> "HFFolder":
        """The same folder without these tensors."""
        rest = copy.copy(self)
        rest._at = {name: entry for name, entry in self._at.items() if name not in names}
        rest.unlisted = self.unlisted - set(names)
        return rest

    def shapes(self) -> Mapping[str, Shape]:
        return {name: entry.shape for name, entry in self._at.items()}

    def read(self, name: str) -> Tensor:
        entry, dtype = self._typed(name)
        return read_tensor(entry.file, entry.start, entry.shape, dtype)

    def parts(self, name: str) -> Iterator[Tensor]:
        entry, dtype = self._typed(name)
        length, *rest = entry.shape or (1,)
        size = math.prod(rest) * dtype.itemsize
        step = max(1, PART // max(1, size))
        for at in range(0, length, step):
            yield read_tensor(entry.file, entry.start + at * size, (min(step, length - at), *rest), dtype)

    def _typed(self, name: str) -> tuple["TensorEntry", torch.dtype]:
        entry = self._at[name]
        if entry.dtype is None:
            raise ArtifactError(
                f"{entry.file}: tensor {name!r} has type {entry.kind}, which PyTorch does not support here",
                "give the checkpoint in another dtype",
            )
        return entry, entry.dtype

    def _files(self) -> list[Path]:
        """The weight files: the single one, or the shards of the index. Raises ArtifactError if there are both, because it is not clear which count
        (transformers reads the single file; programs that follow the index read the shards)."""
        one = self.path / self.weights
        if not (self.path / self.index).is_file():
            if not one.is_file():
                raise no_weights(self.path, f"{self.weights} nor {self.index}")
            return [one]
        index = read_json(self.path / self.index)
        table = index.get("weight_map")
        if not isinstance(table, dict) or not table:
            raise ArtifactError(
                f"{self.path / self.index} has no weight_map", "take an intact copy of the folder"
            )
        names = sorted({str(x) for x in table.values()})
        for name in names:
            if Path(name).name != name or not name.endswith(".safetensors") or len(name) > 255:
                raise ArtifactError(
                    f"{self.path / self.index} has the shard {name[:300]!r}",
                    "a shard must be a .safetensors file in the same folder",
                )
        there = [name for name in names if (self.path / name).is_file()]
        if one.is_file() and self.weights not in names:
            if there:
                raise ArtifactError(
                    f"{self.path} has two sets of weights: {self.weights}, and {there[0]} by {self.index}",
                    "remove the outdated one (transformers reads the first)",
                )
            self.notices.append(
                f"no shard of {self.index} is there: {self.weights} is read, as in transformers"
            )
            return [one]
        if missing := [name for name in names if name not in there]:
            raise ArtifactError(
                f"shard {self.path / missing[0]} is missing", "take an intact copy of the folder"
            )
        files = [self.path / name for name in names]
        stored = {name for file in files for name in read_entries(file)}
        self.listed = frozenset(map(str, table)) - stored
        self.unlisted = frozenset(stored - set(table))
        return files


@dataclass(frozen=True)
class TensorEntry:
    """One tensor: its type in the format and in PyTorch (None if PyTorch lacks it), and the start of its bytes."""

    file: Path
    kind: str
    dtype: torch.dtype | None
    shape: Shape
    start: int


def read_entries(file: Path) -> dict[str, TensorEntry]:
    """The tensors in a file. The library refuses headers that are too large, and offsets that overlap or leave the file; the header is read
    only after these checks."""
    try:
        with safe_open(str(file), framework="pt") as f:
            slices = {name: f.get_slice(name) for name in f.keys()}  # noqa: SIM118
            kinds = {name: (x.get_dtype(), tuple(x.get_shape())) for name, x in slices.items()}
        with open(file, "rb") as f:
            (size,) = struct.unpack("<Q", f.read(8))
            header = json.loads(f.read(size))
        return {
            name: TensorEntry(
                file, kind, DTYPES.get(kind), shape, 8 + size + int(header[name]["data_offsets"][0])
            )
            for name, (kind, shape) in kinds.items()
        }
    except (SafetensorError, OSError, ValueError, OverflowError, RecursionError) as e:
        raise pointer(file) or ArtifactError(
            f"{file} is not a complete safetensors file: {e}", "take an intact copy of it"
        ) from None


def save_folder(
    path: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], weights: str = WEIGHTS
) -> None:
    """Write config.json and the tensors into an existing folder."""
    from onebase.artifact.tensors import save_tensors

    dtypes = {str(t.dtype).removeprefix("torch.") for t in tensors.values() if t.is_floating_point()}
    tree = dict(config) | ({"dtype": dtypes.pop()} if len(dtypes) == 1 else {})
    (path / CONFIG).write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    save_tensors(path / weights, tensors)


def appear(out: Path, write: Callable[[Path], None]) -> None:
    """Write a foreign folder (no artifact of ours: it has no manifest) under a temporary name, then rename it. Raises ArtifactError."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ArtifactError(f"{out} already exists", "choose another --out")
    draft = out.with_name(f".{out.name}.tmp-{secrets.token_hex(4)}")
    try:
        draft.mkdir(parents=True)
        write(draft)
        if out.exists():
            out.rmdir()
        os.rename(draft, out)
    except BaseException as e:  # Ctrl-C too: never leave a draft
        shutil.rmtree(draft, ignore_errors=True)
        if isinstance(e, OSError):
            raise ArtifactError(
                f"{out} cannot be written: {e.strerror}", "check the disk and the path"
            ) from None
        raise
