"""Adapters of PEFT in and out, whatever their method: the method says how its own reads and writes (`Method.peft`)."""

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
    """An adapter of PEFT as ours has it: the method, its config, and tensors. task: what it is for, as far as that can be seen. parts: configs of
    other methods beside it, by method (a head)."""

    method: str
    config: Any
    tensors: dict[str, Tensor]
    task: str = "complete"
    parts: dict[str, Any] = field(default_factory=dict)


def read(path: Path, target: Target) -> OpenedPeft:
    """Read an adapter folder of PEFT for a base. Raises ArtifactError for what is missing or does not fit, ConfigError for what no method here
    can express."""
    folder = PeftFolder(path)
    method = by_peft(folder.kind)
    if method is None or isinstance(method.peft, str):
        known = [m.peft.kind for m in METHODS.values() if not isinstance(m.peft, str)]
        raise ConfigError(
            f"{folder.said.where}: 'peft_type' is {folder.kind!r}: no method here is that",
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
    """Write an adapter into an existing folder. base: what its base is called there. Raises UserError (ConfigError) for what PEFT has no place for."""
    method = METHODS[config.method]
    if isinstance(method.peft, str):
        known = [m.name for m in METHODS.values() if not isinstance(m.peft, str)]
        raise UserError(
            f"an adapter of method {method.name} has no form in PEFT: {method.peft}",
            f"methods that have: {', '.join(known)}",
        )
    mine = {k: t for k, t in tensors.items() if not head.owns(k)}
    if config.head is None:
        said, found = method.peft.write(config.part(method.name), mine, target)
    else:
        more, heads, within = write_head(
            config.head, {k: t for k, t in tensors.items() if head.owns(k)}, target
        )
        said, found = method.peft.write(config.part(method.name), mine, within)
        saved = [*said.get("modules_to_save", []), *more["modules_to_save"]]
        said = {**said, **more, "modules_to_save": saved}
        found = found | {method.peft.prefix + name: t for name, t in heads.items()}
    save_peft(path, method.peft.kind, said, found, base)
