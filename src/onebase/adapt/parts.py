"""The kinds of weights that an adapter may have. Each is a module of this room with the functions of `Part`; an adapter's config has a field
of that name, and has the part where the field is set."""

from typing import Any, Protocol

from torch import Tensor

from onebase.adapt import head, lora, prefix, prompt, soft
from onebase.base.model import BaseModel


class Part(Protocol):
    """Weights on a model under an adapter's name. Nothing of a part is left when it is taken off."""

    def owns(self, key: str) -> bool:
        """Is a tensor of this name in an adapter's file of this part?"""
        ...

    def tensors(self, model: BaseModel, name: str) -> dict[str, Tensor]:
        """The part's tensors by their names in the file; none where the model has no such part under `name`."""
        ...

    def put(self, model: BaseModel, name: str, cfg: Any, found: dict[str, Tensor]) -> None:
        """Attach saved tensors. Raises ConfigError naming one that does not fit."""
        ...

    def remove(self, model: BaseModel, name: str) -> None:
        """Take it off, where it is."""
        ...


PARTS: dict[str, Part] = {"lora": lora, "head": head, "soft": soft, "prefix": prefix, "prompt": prompt}
