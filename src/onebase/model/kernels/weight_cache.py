"""What is made of weights at run time and kept: made when first asked for, and anew when they have changed. Never stored."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

T = TypeVar("T")
Place = tuple[Mapping[str, Any], str]
"""Where a tensor of a module (or a part of it) is found: its dict of parameters or modules, and the name there. Read as a dict because a
decoder asks some hundred times a token."""


class WeightCache(Generic[T]):
    """A cache of one value. It is made anew when another object stands in one of its places, or a tensor there has moved or changed; a
    copy of a model begins with none.

    What may learn is never kept: fused optimizers change weights without a new version (`Optimizers.step` sees to that, others do not).
    """

    def __init__(self) -> None:
        self._seen: list[tuple[Mapping[str, Any], str, Any, int, int]] = []
        self._value: T | None = None

    def current(self) -> T | None:
        """The value, if it is made and still holds."""
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
        """Make the value of what stands in these places now, and remember them: while they are held, nothing takes their memory."""
        self._seen = [(d, n, x, *_state(x)) for d, n in places for x in (d.get(n),)]
        self._value = make()
        return self._value

    def __deepcopy__(self, memo: dict[int, Any]) -> "WeightCache[T]":
        return WeightCache()


def place(module: nn.Module, name: str) -> Place:
    """Where a module keeps what is called `name`."""
    for kept in (module._parameters, module._modules):
        if name in kept:
            return kept, name
    return module.__dict__, name


def _state(x: Any) -> tuple[int, int]:
    """(address, version) of a tensor; an inference tensor has no version. Of what is none, nothing but its identity counts."""
    if not isinstance(x, Tensor):
        return 0, -1
    return x.data_ptr(), -1 if x.is_inference() else x._version
