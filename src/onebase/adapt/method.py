"""What a method is: which parameters adapt, and how. One file a method; the table of them is `methods`."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from onebase.base.folder import LoadedBase
from onebase.base.model import BaseModel
from onebase.codec.text.sample import Tokens
from onebase.model.proj import Active

SCRATCH = "__adapting"
"""The name under which an adapter is on its base while it learns."""
Signal = Literal["labels", "vectors", "answers", "documents", "pairs", "rewards"]
"""What a task learns from: rates differ by it."""


class MethodOptions(Protocol):
    """The options of adaptation that methods read."""

    @property
    def seed(self) -> int: ...
    @property
    def rank(self) -> int: ...
    @property
    def alpha(self) -> float: ...
    @property
    def sites(self) -> tuple[str, ...]: ...
    @property
    def ranks(self) -> dict[str, int] | None: ...
    @property
    def alphas(self) -> dict[str, float] | None: ...
    @property
    def rslora(self) -> bool: ...
    @property
    def dora(self) -> bool: ...
    @property
    def virtual(self) -> int: ...
    @property
    def soft_text(self) -> str | None: ...


@dataclass(frozen=True)
class Learner:
    """What a method has put on the base under SCRATCH.

    params: what learns. active: how it acts in a forward. fields: the fields of AdapterConfig that say what it is. before: places that it takes before the
    first token of a row, which is then one sample. rate: that of what learns at the codec's ends, or before the text, as a multiple of all
    else's. tensors: those of the base that are others now. reads_only: says that nothing but these texts will be read and no token
    predicted, before `params` is asked for. plain: inside `with plain():` a forward without `active` is the base's own, as before anything was learnt.
    """

    params: list[nn.Parameter]
    active: Active | None
    fields: dict[str, Any] = field(default_factory=dict)
    before: int = 0
    rate: float = 1.0
    tensors: Callable[[], dict[str, Tensor]] = dict
    reads_only: Callable[[Sequence[Tokens]], None] = lambda texts: None
    plain: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True)
class Part:
    """Weights on a model under an adapter's name; an adapter's config has a field called as the method, and has the part where it is set.
    Nothing of a part is left when it is taken off.

    owns: is a tensor of this name in an adapter's file of this part? tensors: the part's tensors by their names in the file; none where the model
    has no such part under the name. put: attaches saved tensors; raises ConfigError naming one that does not fit. remove: takes it off, where it is.
    """

    owns: Callable[[str], bool]
    tensors: Callable[[BaseModel, str], dict[str, Tensor]]
    put: Callable[[BaseModel, str, Any, dict[str, Tensor]], None]
    remove: Callable[[BaseModel, str], None]


Learn = Callable[[LoadedBase, MethodOptions, tuple[int, ...], str], AbstractContextManager[Learner]]
"""Of a base, options, tokens whose rows are to be learnt too where the base's own stay, and the trunk that rows go through."""


@dataclass(frozen=True)
class Method:
    """Which parameters adapt.

    part: the weights that are put on a base beside its own, and taken off. learn: puts the method on a base for the loop; at its end the base's own weights are what they were (None: nothing is learnt by steps).
    rate, rates: AdamW's peak rate where none is given, and that of some signals. virtual: places that it takes before the first token of a text.
    acts: does its part change a forward? replaces: its weights stand in the place of the base's. alone: why a stack has one of its kind at most; None: it may have more. merges:
    can it go into the base's weights? unmergeable: why that can never be, where it would be left out silently otherwise.
    """

    name: str
    part: Part | None = None
    learn: Learn | None = None
    rate: float = 1e-3
    rates: Mapping[Signal, float] = field(default_factory=dict)
    virtual: Callable[[MethodOptions], int] = lambda options: 0
    acts: bool = True
    replaces: bool = False
    alone: str | None = None
    merges: bool = False
    unmergeable: str | None = None

    def rate_of(self, signal: Signal) -> float:
        """AdamW's peak rate, where none is given."""
        return self.rates.get(signal, self.rate)
