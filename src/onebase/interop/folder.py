"""Hugging Face folders: config.json and safetensors, whole or in shards. Opened strictly: the folder may come from anywhere."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from onebase.errors import ArtifactError
from onebase.interop.rules import Shape

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_JSON = 64 * 2**20
"""A config or an index is some kilobytes; what is far larger is not read."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON map of sane size. Raises ArtifactError naming the file."""
    try:
        if path.stat().st_size > MAX_JSON:
            raise ArtifactError(
                f"{path} has {path.stat().st_size:,} bytes", f"at most {MAX_JSON:,} are read as JSON"
            )
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing", "take an intact copy of the folder") from None
    except (OSError, ValueError, RecursionError) as e:
        raise ArtifactError(f"{path} is not JSON: {e}", "take an intact copy of the folder") from None
    if not isinstance(tree, dict):
        raise ArtifactError(f"{path} holds no map", "take an intact copy of the folder")
    return tree


class HFFolder:
    """The tensors of a folder, memory-mapped. Raises ArtifactError for what is missing, damaged, or would leave the folder."""

    fresh = False

    def __init__(self, path: Path) -> None:
        self.path, self.where = path, str(path)
        self.config = read_json(path / CONFIG)
        self._file: dict[str, Path] = {}
        self._shape: dict[str, Shape] = {}
        for file in self._files():
            for name, shape in _header(file).items():
                if name in self._file:
                    raise ArtifactError(
                        f"{file}: tensor {name!r} is in {self._file[name].name} too",
                        "take an intact copy of the folder",
                    )
                self._file[name], self._shape[name] = file, shape

    def shapes(self) -> Mapping[str, Shape]:
        return self._shape

    def read(self, name: str) -> Tensor:
        # Opened for each tensor: a handle that stays open keeps every page that was read, twice the weights in the end.
        with safe_open(str(self._file[name]), framework="pt") as f:
            tensor: Tensor = f.get_tensor(name)
        return tensor

    def _files(self) -> list[Path]:
        if not (self.path / INDEX).is_file():
            if not (self.path / WEIGHTS).is_file():
                raise self._none()
            return [self.path / WEIGHTS]
        index = read_json(self.path / INDEX)
        table = index.get("weight_map")
        if not isinstance(table, dict) or not table:
            raise ArtifactError(f"{self.path / INDEX} has no weight_map", "take an intact copy of the folder")
        files = []
        for name in sorted({str(x) for x in table.values()}):
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise ArtifactError(
                    f"{self.path / INDEX} names the shard {name!r}",
                    "a shard is a .safetensors file in the same folder",
                )
            file = self.path / name
            if not file.is_file():
                raise ArtifactError(f"shard {file} is missing", "take an intact copy of the folder")
            files.append(file)
        listed = set(table)
        held = {name for file in files for name in _header(file)}
        for name in sorted(listed ^ held):
            what = "is in no shard" if name in listed else "is not in the index"
            raise ArtifactError(f"{self.path}: tensor {name!r} {what}", "take an intact copy of the folder")
        return files

    def _none(self) -> ArtifactError:
        pickled = sorted(
            p.name for p in self.path.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")
        )
        if pickled:
            return ArtifactError(
                f"{self.path} has its weights as a pickle ({pickled[0]}), which can run any code when opened",
                "ask for safetensors: most models have them, or convert in a place where nothing can be harmed",
            )
        return ArtifactError(
            f"{self.path} has neither {WEIGHTS} nor {INDEX}", "give a folder of a saved model"
        )


def _header(file: Path) -> dict[str, Shape]:
    """Names and shapes. The library refuses headers that are too large and offsets that overlap or leave the file."""
    try:
        with safe_open(str(file), framework="pt") as f:
            return {name: tuple(f.get_slice(name).get_shape()) for name in f.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, OverflowError) as e:
        raise ArtifactError(
            f"{file} is not a whole safetensors file: {e}", "take an intact copy of it"
        ) from None


def save_folder(path: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write config.json and model.safetensors into an existing folder."""
    from onebase.artifact.tensors import save_tensors

    dtypes = {str(t.dtype).removeprefix("torch.") for t in tensors.values() if t.is_floating_point()}
    tree = dict(config) | ({"dtype": dtypes.pop()} if len(dtypes) == 1 else {})
    (path / CONFIG).write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    save_tensors(path / WEIGHTS, tensors)
