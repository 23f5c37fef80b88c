"""Reads and writes PEFT adapters of any method, through the method's `Method.peft`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from onebase.errors import ConfigError, UserError
from onebase.formats.peft.folder import PeftFolder, Target, save_peft
from onebase.methods import head
from onebase.methods.config import AdapterConfig
from onebase.methods.peft_head import read_head, write_head
from onebase.methods.table import METHODS, by_peft


@dataclass(frozen=True)
class OpenedPeft:
    """A PEFT adapter in our terms: method, config and tensors. task: inferred from the files. parts: configs of other methods in the same
    adapter, by method (a head)."""

    method: str
    config: Any
    tensors: dict[str, Tensor]
    task: str = "complete"
    parts: dict[str, Any] = field(default_factory=dict)


def read(path: Path, target: Target) -> OpenedPeft:
    """Read a PEFT adapter folder for a base. Raises ArtifactError for what is missing or does not fit, ConfigError for settings that no
    method supports."""
    folder = PeftFolder(path)
    method = by_peft(folder.kind)
    if method is None or isinstance(method.peft, str):
        known = [m.peft.kind for m in METHODS.values() if not isinstance(m.peft, str)]
        raise ConfigError(
            f"{folder.said.where}: 'peft_type' is {folder.kind!r}, which no method supports",
            f"accepted: {', '.join(known)}",
        )
    folder.prefix = method.peft.prefix
    with_head = read_head(folder, target)
    if with_head is None:
        return OpenedPeft(method.name, *method.peft.read(folder, target))
    folder.heads = with_head.names
    config, tensors = method.peft.read(folder, with_head.target)
    return OpenedPeft(
        method.name, config, tensors | with_head.tensors, with_head.task, {"head": with_head.config}
    )


def write(
    path: Path, config: AdapterConfig, tensors: Mapping[str, Tensor], target: Target, base: str = ""
) -> None:
    """Write an adapter into an existing folder. base: the name of its base there. Raises UserError (ConfigError) for what PEFT cannot represent."""
    method = METHODS[config.method]
    if isinstance(method.peft, str):
        known = [m.name for m in METHODS.values() if not isinstance(m.peft, str)]
        raise UserError(
            f"an adapter of method {method.name} has no PEFT format: {method.peft}",
            f"methods with one: {', '.join(known)}",
        )
    mine = {k: t for k, t in tensors.items() if not head.owns(k)}
    if config.head is None:
        keys, found = method.peft.write(config.part(method.name), mine, target)
    else:
        more, heads, within = write_head(
            config.head, {k: t for k, t in tensors.items() if head.owns(k)}, target
        )
        keys, found = method.peft.write(config.part(method.name), mine, within)
        saved = [*keys.get("modules_to_save", []), *more["modules_to_save"]]
        keys = {**keys, **more, "modules_to_save": saved}
        found = found | {method.peft.prefix + name: t for name, t in heads.items()}
    save_peft(path, method.peft.kind, keys, found, base)
