"""Defines a method: which parameters adapt, and how. Each method has one file; `table` lists them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from onebase.base.folder import LoadedBase
from onebase.base.model import BaseModel
from onebase.config import config
from onebase.formats.peft.folder import PREFIX, PeftFolder, Target
from onebase.modality.text.sample import Tokens
from onebase.model.proj import AdapterRouting

SCRATCH = "__adapting"
"""The name of an adapter on its base during training."""
Signal = Literal["labels", "vectors", "answers", "documents", "pairs", "rewards"]
"""What a task is trained on; learning rates depend on it."""


def option(default: Any, about: str, *, later: bool = False, was: str | None = None) -> Any:
    """A field of an options class: its default and its help text (`onebase adapt -o help`). later: earlier versions did not have it
    (`onebase.config_fields.later`). was: its earlier name (`onebase.config_fields.renamed`)."""
    names = {} if was is None else {"was": was}
    return field(default=default, metadata={"about": about, "later": later, **names})


@config
class NoOptions:
    """The options of a method without options."""


@dataclass(frozen=True)
class Start:
    """The request to put a method on a base. options: of the method's own class. tokens: ids whose embedding rows are trained too, by methods
    that freeze the base's own. trunk: the trunk that reads the rows ("": all of them do)."""

    base: LoadedBase
    options: Any
    seed: int = 0
    tokens: tuple[int, ...] = ()
    trunk: str = "text"


@dataclass(frozen=True)
class Learner:
    """A method on the base under SCRATCH, ready to train.

    params: the trained parameters. routing: applies the adapter in a forward. config: its config, of the method's config class (None: it
    added no weights). before: virtual tokens before the first token of a row, which is then one sample. rate: learning rate of token rows,
    or of virtual tokens, as a multiple of the others. tensors: the base's tensors that changed. reads_only: declares, before `params` is
    used, that only these texts are read and no token is predicted. plain: inside `with plain():` a forward without `routing` is that of the
    untrained base.
    """

    params: list[nn.Parameter]
    routing: AdapterRouting | None
    config: Any = None
    before: int = 0
    rate: float = 1.0
    tensors: Callable[[], dict[str, Tensor]] = dict
    reads_only: Callable[[Sequence[Tokens]], None] = lambda texts: None
    plain: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True)
class MethodPart:
    """A method's weights on a model under an adapter's name. Removing a part leaves nothing behind.

    owns: does a tensor of this name in an adapter's file belong to this part? tensors: the part's tensors by their names in the file; empty
    where the model has no such part under the name. put: attaches saved tensors; raises ConfigError that names one that does not fit.
    remove: removes the part, if it is there.
    """

    owns: Callable[[str], bool]
    tensors: Callable[[BaseModel, str], dict[str, Tensor]]
    put: Callable[[BaseModel, str, Any, dict[str, Tensor]], None]
    remove: Callable[[BaseModel, str], None]


@dataclass(frozen=True)
class Whole:
    """A matrix of the base with an adapter merged, in fp32 or finer, and the bias if that changes too."""

    weight: Tensor
    bias: Tensor | None = None


Merge = Callable[[BaseModel, str], Mapping[str, Callable[[], Whole]]]
"""For a model and an adapter's name: functions that compute each changed matrix, by the site of a projection or by `merge.STEM` and
`merge.HEAD`."""


@dataclass(frozen=True)
class Weighed:
    """An adapter and its weight in a combination."""

    cfg: Any
    tensors: Mapping[str, Tensor]
    weight: float


@dataclass(frozen=True)
class Combined:
    """An adapter combined from several. error: the relative error of its low-rank approximation of the combined deltas (Frobenius norm, over all
    sites together); None where they are represented exactly."""

    cfg: Any
    tensors: dict[str, Tensor]
    error: float | None


How = Literal["linear", "ties"]


class Combine(Protocol):
    """Combines several adapters of a method into one; see `derive.combining.combine`."""

    def __call__(
        self, parts: Sequence[Weighed], how: How = "linear", *, density: float = 0.2, rank: int | None = None
    ) -> Combined: ...


@dataclass(frozen=True)
class Peft:
    """A method in PEFT's format. kind: its `peft_type`; prefix: the prefix of module names in tensor names. read: returns our config and
    tensors. write: returns adapter_config.json without the type and the base's name, and PEFT's tensors. Both raise ConfigError for
    settings that the other side does not support, ArtifactError for a folder that does not fit the model."""

    kind: str
    read: Callable[[PeftFolder, Target], tuple[Any, dict[str, Tensor]]]
    write: Callable[[Any, dict[str, Tensor], Target], tuple[dict[str, Any], dict[str, Tensor]]]
    prefix: str = PREFIX


@dataclass(frozen=True)
class Method:
    """Which parameters adapt.

    options: the class of its options (fields by `option`). config: the class of its config in an adapter (None: its options). part: the
    weights that it adds to a base. learn: puts the method on a base for training, and restores the base's own weights at the end (None: it
    does not train by steps). rate, rates: AdamW's default peak learning rate, and that for some signals. tuned: options that trials vary,
    with their values. virtual: virtual tokens before the first token of a text, from its options.

    acts: does its part change a forward? replaces: do its weights replace the base's? needs_rows: does it need rows, not options only?
    predicts: does it answer by predicting tokens, whatever the task? text: does it need a base that reads text? alone: why a stack has at
    most one adapter of the method; None: it may have more. stacks: raises UserError for a stack that it cannot be part of; called with the
    stack, its position, and whether its adapter has tensors.

    merge: merges it into the base's weights, or states in a sentence why not. Merging others drops adapters that do not act. combine:
    combines several of its adapters into one, or states why not. peft: its PEFT format, or why there is none.
    """

    name: str
    options: type[Any] = NoOptions
    config: type[Any] | None = None
    part: MethodPart | None = None
    learn: Callable[[Start], AbstractContextManager[Learner]] | None = None
    rate: float = 1e-3
    rates: Mapping[Signal, float] = field(default_factory=dict)
    tuned: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    virtual: Callable[[Any], int] = lambda options: 0
    acts: bool = True
    replaces: bool = False
    needs_rows: bool = True
    predicts: bool = False
    text: bool = False
    alone: str | None = None
    stacks: Callable[[Sequence["Method"], int, bool], None] = lambda stack, place, tensors: None
    merge: Merge | str = "the method does not support merging"
    combine: Combine | str = "its changes do not add up"
    peft: Peft | str = "PEFT has no such method"

    def rate_of(self, signal: Signal) -> float:
        """AdamW's default peak learning rate for a signal."""
        return self.rates.get(signal, self.rate)

    @property
    def kept(self) -> type[Any]:
        """The class of its config in an adapter."""
        return self.config or self.options

    @property
    def option_names(self) -> tuple[str, ...]:
        """The names of its options, in the order of their class."""
        return tuple(f.name for f in fields(self.options))
