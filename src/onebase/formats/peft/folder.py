"""Adapters in PEFT's files: adapter_config.json and adapter_model.safetensors. What stands in them each method says (`adapt.method.Peft`).

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
"""What stands before a module's name in their tensors' names."""
IDLE = (
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_version",
    "revision",
    "task_type",
)
"""Keys of every method that say nothing of its weights."""


@dataclass(frozen=True)
class Target:
    """The base that an adapter is for. family: how its tensors are called elsewhere; raises where there is no such layout. head: the one that
    it came with. headed: is it a trunk within a class with a head there, whatever the base here is?"""

    model: BaseModel
    family: Callable[[], Family]
    head: OwnHead | None = None
    headed: bool = False


class PeftFolder:
    """A folder of PEFT. `said` reads its config, `tensors` are its tensors, read at the first use. prefix: what stands before a module's name;
    heads: those of `saved` that are a head's."""

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
        """By their names. Raises ArtifactError for a pickle, and for none."""
        if not (self.path / WEIGHTS).is_file() and (self.path / PICKLE).is_file():
            raise ArtifactError(
                f"{self.path} has its weights as a pickle ({PICKLE}), which can run any code when opened",
                "ask for safetensors, or convert in a place where nothing can be harmed",
            )
        found = load_tensors(self.path / WEIGHTS)
        if not found:
            raise ArtifactError(f"{self.where} holds no tensors", "take an intact copy")
        return found

    @cached_property
    def saved(self) -> dict[str, Tensor]:
        """Those of whole modules (`modules_to_save`, ends of their names), by their names without prefix. Raises ArtifactError where the config names
        some and none is there."""
        names = tuple(self.said.get("modules_to_save", list, []))
        if not all(isinstance(n, str) and n for n in names):
            raise self.said.refuse("modules_to_save", "a list of names of modules")
        plain = {k.removeprefix(self.prefix): t for k, t in self.tensors.items() if k.startswith(self.prefix)}
        found = {k: t for k, t in plain.items() if any(m.endswith(names) for m in _around(k))}
        if names and not found:
            raise ArtifactError(
                f"{self.where}: 'modules_to_save' is {list(names)}, and nothing of them is there",
                "take an intact copy",
            )
        return found

    @property
    def matrices(self) -> dict[str, Tensor]:
        """Those of whole modules that are no head: a method reads them or refuses them."""
        return {k: t for k, t in self.saved.items() if k not in self.heads}

    @property
    def own(self) -> dict[str, Tensor]:
        """Those of the method, by their whole names."""
        return {k: t for k, t in self.tensors.items() if k.removeprefix(self.prefix) not in self.saved}

    def done(self, what: str, idle: Sequence[str] = ()) -> None:
        """Raises ConfigError where the config switches something on that nobody asked about. what: the method alone; idle: its keys that say
        nothing of its weights."""
        r = self.said
        for key in (*IDLE, *idle):
            r.has(key)
        odd = next((k for k in r.unread if r.data[k] not in (None, False, [], {}, "")), None)
        if odd is not None:
            raise ConfigError(
                f"{r.where}: '{odd}' is {r.data[odd]!r}: nothing here reads it",
                f"give an adapter that is {what} alone",
            )


def _around(key: str) -> list[str]:
    """The modules that a tensor is in, from the outermost in."""
    parts = key.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def save_peft(
    path: Path, kind: str, said: Mapping[str, Any], tensors: Mapping[str, Tensor], base: str = ""
) -> None:
    """Write an adapter into an existing folder. base: what the adapter's base is called there."""
    tree = {"peft_type": kind, "base_model_name_or_path": base, "inference_mode": True, **said}
    (path / CONFIG).write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    save_tensors(path / WEIGHTS, {k: t.contiguous() for k, t in tensors.items()})
