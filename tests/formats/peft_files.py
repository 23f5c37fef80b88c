"""Adapters in PEFT's files for tests, for a model without the folder it came from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from onebase.base.model import BaseModel
from onebase.formats.family import Family
from onebase.formats.peft.folder import Target
from onebase.methods import peft
from onebase.methods.config import AdapterConfig, BoundTo, part_field


def load_peft(path: Path, model: BaseModel, family: Family) -> peft.Opened:
    return peft.read(path, Target(model, lambda: family))


def save_peft(
    path: Path,
    cfg: Any,
    tensors: Mapping[str, Tensor],
    model: BaseModel,
    family: Family,
    *,
    method: str = "lora",
    base: str = "",
) -> None:
    own = part_field(method, cfg)
    config = AdapterConfig(method=method, task="complete", base=BoundTo(fingerprint="x"), **own)
    peft.write(path, config, tensors, Target(model, lambda: family), base)
