"""Reads and writes adapter folders of PEFT: adapter_config.json and adapter_model.safetensors. Each method defines its content.

Source: peft `config.py` and `utils/save_and_load.py`, read for names and meaning.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from onebase.artifact.tensors import load_tensors, save_tensors
from onebase.base.head import OwnHead
from onebase.base.model import BaseModel
from onebase.errors import ArtifactError, ConfigError
from onebase.formats.family import Family
from onebase.formats.hf.files import read_json
from onebase.formats.reader import ConfigReader
from onebase.formats.recognise import PEFT_CONFIG

CONFIG, WEIGHTS, PICKLE = PEFT_CONFIG, "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."
"""Prefix of tensor names, before a module's name."""
IDLE = (
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_version",
    "revision",
    "task_type",
)
"""Keys of every method that do not affect its weights."""


@dataclass(frozen=True)
class Target:
    """The base of an adapter. family: its foreign tensor names; raises if no layout fits. head: the head that the base was imported with.
    headed: is the trunk inside a class with a head in the foreign format, whatever the base here is?"""

    model: BaseModel
    family: Callable[[], Family]
    head: OwnHead | None = None
    headed: bool = False


class PeftFolder:
    """A folder of PEFT. said: reads its config; tensors: read at the first use; prefix: of module names; heads: names in `saved` that belong to
    a head."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said = ConfigReader(read_json(path / CONFIG), str(path / CONFIG))
        self.kind = self.said.get("peft_type", str)
        self.prefix = PREFIX
        self.heads: frozenset[str] = frozenset()

    @property
    def where(self) -> str:
        """The file of the tensors, for messages."""
        return str(self.path / WEIGHTS)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Tensors by name. Raises ArtifactError for a pickle, and if there are no tensors."""
        if not (self.path / WEIGHTS).is_file() and (self.path / PICKLE).is_file():
            raise ArtifactError(
                f"{self.path} has its weights as a pickle ({PICKLE}), which can run any code when opened",
                "use safetensors, or convert it in an isolated environment",
            )
        tensors = load_tensors(self.path / WEIGHTS)
        if not tensors:
            raise ArtifactError(f"{self.where} has no tensors", "take an intact copy")
        return tensors

    @cached_property
    def saved(self) -> dict[str, Tensor]:
        """Tensors of whole modules (`modules_to_save`, suffixes of module names), by name without prefix. Raises ArtifactError if the config
        lists modules and none is there."""
        names = tuple(self.said.get("modules_to_save", list, []))
        if not all(isinstance(n, str) and n for n in names):
            raise self.said.refuse("modules_to_save", "a list of module names")
        plain = {k.removeprefix(self.prefix): t for k, t in self.tensors.items() if k.startswith(self.prefix)}
        saved = {k: t for k, t in plain.items() if any(m.endswith(names) for m in _around(k))}
        if names and not saved:
            raise ArtifactError(
                f"{self.where}: 'modules_to_save' is {list(names)}, but it has no tensors of these modules",
                "take an intact copy",
            )
        return saved

    @property
    def matrices(self) -> dict[str, Tensor]:
        """Tensors of whole modules other than heads: a method reads them or refuses them."""
        return {k: t for k, t in self.saved.items() if k not in self.heads}

    @property
    def own(self) -> dict[str, Tensor]:
        """Tensors of the method, by full name."""
        return {k: t for k, t in self.tensors.items() if k.removeprefix(self.prefix) not in self.saved}

    def done(self, what: str, idle: Sequence[str] = ()) -> None:
        """Raises ConfigError if the config enables something that was not read. what: the method, for the message; idle: its keys that do not
        affect its weights."""
        r = self.said
        for key in (*IDLE, *idle):
            r.has(key)
        odd = next((k for k in r.unread if r.data[k] not in (None, False, [], {}, "")), None)
        if odd is not None:
            raise ConfigError(
                f"{r.where}: '{odd}' is {r.data[odd]!r}, which is not supported",
                f"give an adapter that is plain {what}",
            )


def _around(key: str) -> list[str]:
    """The modules that contain a tensor, outermost first."""
    parts = key.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def save_peft(
    path: Path, kind: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], base: str = ""
) -> None:
    """Write an adapter into an existing folder. base: the name of the adapter's base."""
    tree = {"peft_type": kind, "base_model_name_or_path": base, "inference_mode": True, **config}
    (path / CONFIG).write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    save_tensors(path / WEIGHTS, {k: t.contiguous() for k, t in tensors.items()})
