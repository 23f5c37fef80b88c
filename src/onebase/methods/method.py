"""What a method is: which parameters adapt, and how. One file a method; the table of them is `methods`."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from onebase.base.folder import LoadedBase
from onebase.base.model import BaseModel
from onebase.codec.text.sample import Tokens
from onebase.config import config
from onebase.formats.peft.folder import PREFIX, PeftFolder, Target
from onebase.model.proj import AdapterRouting

SCRATCH = "__adapting"
"""The name under which an adapter is on its base while it learns."""
Signal = Literal["labels", "vectors", "answers", "documents", "pairs", "rewards"]
"""What a task learns from: rates differ by it."""


def option(default: Any, about: str, *, later: bool = False, was: str | None = None) -> Any:
    """A field of an options class: its default, and what users read of it (`onebase adapt -o help`). later: earlier versions did not have it
    (`onebase.config_fields.later`). was: what they called it (`onebase.config_fields.renamed`)."""
    names = {} if was is None else {"was": was}
    return field(default=default, metadata={"about": about, "later": later, **names})


@config
class NoOptions:
    """The options of a method that has none."""


@dataclass(frozen=True)
class Start:
    """What a method is asked to put on a base. options: of the method's own class. tokens: ids whose rows are to be learnt too where the
    base's own stay. trunk: the one that rows go through."""

    base: LoadedBase
    options: Any
    seed: int = 0
    tokens: tuple[int, ...] = ()
    trunk: str = "text"


@dataclass(frozen=True)
class Learner:
    """What a method has put on the base under SCRATCH.

    params: what learns. active: how it acts in a forward. config: what says what it is, of the method's config class (None: it put nothing beside the weights).
    before: places that it takes before the first token of a row, which is then one sample. rate: that of what learns at the codec's ends, or before the
    text, as a multiple of all else's. tensors: those of the base that are others now. reads_only: says that nothing but these texts will be read and no token
    predicted, before `params` is asked for. plain: inside `with plain():` a forward without `routing` is the base's own, as before anything was learnt.
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
    """Weights on a model under an adapter's name, as the method's config says. Nothing of a part is left when it is taken off.

    owns: is a tensor of this name in an adapter's file of this part? tensors: the part's tensors by their names in the file; none where the model
    has no such part under the name. put: attaches saved tensors; raises ConfigError naming one that does not fit. remove: takes it off, where it is.
    """

    owns: Callable[[str], bool]
    tensors: Callable[[BaseModel, str], dict[str, Tensor]]
    put: Callable[[BaseModel, str, Any, dict[str, Tensor]], None]
    remove: Callable[[BaseModel, str], None]


@dataclass(frozen=True)
class Whole:
    """A matrix of the base with an adapter in it, in fp32 or finer, and the bias where that changes too."""

    weight: Tensor
    bias: Tensor | None = None


Merge = Callable[[BaseModel, str], Mapping[str, Callable[[], Whole]]]
"""Of a model and an adapter's name on it: what each matrix that it changes becomes, made when it is asked for. Matrices go by the names of
`merge.places`: the sites of projections, and the two ends of the text."""


@dataclass(frozen=True)
class Weighed:
    """An adapter, and how much of it is taken."""

    cfg: Any
    tensors: Mapping[str, Tensor]
    weight: float


@dataclass(frozen=True)
class Combined:
    """The adapter that is made of several. error: the length of what its rank leaves out of the wanted deltas, as a share of theirs (Frobenius, over
    all sites together); None where nothing is left out, for the deltas are kept as they are."""

    cfg: Any
    tensors: dict[str, Tensor]
    error: float | None


How = Literal["linear", "ties"]


class Combine(Protocol):
    """How several adapters of a method become one: `derive.combining.combine` explains it."""

    def __call__(
        self, parts: Sequence[Weighed], how: How = "linear", *, density: float = 0.2, rank: int | None = None
    ) -> Combined: ...


@dataclass(frozen=True)
class Peft:
    """A method in PEFT's files. kind: its `peft_type`; prefix: what stands before a module's name in those of its tensors. read: config and tensors as ours have them. write: what adapter_config.json says beside
    the type and the base's name, and PEFT's tensors. Both raise ConfigError for what one side cannot say, ArtifactError for a folder that does not fit the model."""

    kind: str
    read: Callable[[PeftFolder, Target], tuple[Any, dict[str, Tensor]]]
    write: Callable[[Any, dict[str, Tensor], Target], tuple[dict[str, Any], dict[str, Tensor]]]
    prefix: str = PREFIX


@dataclass(frozen=True)
class Method:
    """Which parameters adapt.

    options: the class of what users may say of it (fields by `option`). config: the class of what an adapter keeps of it (None: its options); part: the weights that are put
    on a base beside its own, and taken off. learn: puts the method on a base for the loop; at its end the base's own weights are what they were
    (None: nothing is learnt by steps). rate, rates: AdamW's peak rate where none is given, and that of some signals. tuned: options that trials vary, and the values they take.
    virtual: places that it takes before the first token of a text, by its options.

    acts: does its part change a forward? replaces: its weights stand in the place of the base's. needs_rows: can it not be made of options alone?
    predicts: is it asked by predicting tokens, whatever the task? text: does it need a base that reads text? alone: why a stack has one of its kind at
    most; None: it may have more. stacks: raises UserError for a stack that it cannot be in, of its place in it, and whether its adapter has tensors.

    merge: how it goes into the base's weights, or in one sentence why it does not. What does not act is left behind by a merge of others. combine: how several of its
    adapters become one, or why not. peft: how PEFT has it, or why it does not.
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
    merge: Merge | str = "it does not say how it would go into the base's weights"
    combine: Combine | str = "its changes do not add up"
    peft: Peft | str = "PEFT has no such method"

    def rate_of(self, signal: Signal) -> float:
        """AdamW's peak rate, where none is given."""
        return self.rates.get(signal, self.rate)

    @property
    def kept(self) -> type[Any]:
        """The class of what an adapter keeps of it."""
        return self.config or self.options

    @property
    def option_names(self) -> tuple[str, ...]:
        """What users may say of it, in the order of its class."""
        return tuple(f.name for f in fields(self.options))
