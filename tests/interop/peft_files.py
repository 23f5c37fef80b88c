"""Adapters in PEFT's files for tests, for a model without the folder it came from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from onebase.adapt import peft
from onebase.adapt.config import AdapterConfig, BoundTo, part_field
from onebase.base.model import BaseModel
from onebase.interop.family import Family
from onebase.interop.peft import Target


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
