"""Caches values derived from weights at run time: computed at first use, and again when the weights have changed. Never saved to disk."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

T = TypeVar("T")
Place = tuple[Mapping[str, Any], str]
"""The location of a tensor or submodule: a module's dict of parameters or modules, and the name in it. Read as a dict for speed: decoding
checks some hundred per token."""


class WeightCache(Generic[T]):
    """A cache of one value. It is invalid when one of its locations has another object, or a tensor there has moved or changed; a copy of a
    model starts with an empty cache.

    Values from trainable weights are not cached: fused optimizers change weights without a new version (`Optimizers.step` handles that,
    others do not).
    """

    def __init__(self) -> None:
        self._seen: list[tuple[Mapping[str, Any], str, Any, int, int]] = []
        self._value: T | None = None

    def current(self) -> T | None:
        """The value, if it is computed and still valid."""
        for place, name, found, pointer, version in self._seen:
            now = place.get(name)
            if now is not found or (
                pointer
                and (
                    now.data_ptr() != pointer
                    or (version >= 0 and now._version != version)
                    or now.requires_grad
                )
            ):
                self._value = None
                break
        return self._value

    def make(self, places: Sequence[Place], make: Callable[[], T]) -> T:
        """Compute the value from the current objects in these locations, and keep references to them, so that their memory is not reused."""
        self._seen = [(d, n, x, *_state(x)) for d, n in places for x in (d.get(n),)]
        self._value = make()
        return self._value

    def __deepcopy__(self, memo: dict[int, Any]) -> "WeightCache[T]":
        return WeightCache()


def place(module: nn.Module, name: str) -> Place:
    """The location of `name` in a module."""
    for kept in (module._parameters, module._modules):
        if name in kept:
            return kept, name
    return module.__dict__, name


def _state(x: Any) -> tuple[int, int]:
    """(address, version) of a tensor; an inference tensor has no version. For other objects only the identity counts."""
    if not isinstance(x, Tensor):
        return 0, -1
    return x.data_ptr(), -1 if x.is_inference() else x._version
