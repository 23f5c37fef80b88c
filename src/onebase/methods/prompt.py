"""Method prompt: saved prompts, with a template of variables, answers to compare, and examples. No weights. E examples, D width."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from onebase.base.model import BaseModel
from onebase.config import config
from onebase.config_fields import later
from onebase.errors import ConfigError, DataError, UserError
from onebase.methods.method import Method, MethodPart, option
from onebase.modality.text.long import Long

Select = Literal["similar", "first", "random", "balanced"]
Calibration = Literal["none", "batch", "content_free"]
Template = str | tuple[dict[str, str], ...]
"""Text with variables; for chat, messages with variables in their contents."""

KEY = "prompt.vectors"
ANSWER, EXAMPLES = "answer", "examples"
"""Reserved variables: an example's answer, and the position of the examples in a template."""

_PART = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]")


@config
class ShotsConfig:
    """Examples before the question (few-shot). n: the maximum number.

    select: `similar` uses those nearest to each question by the base's own vectors, the nearest last; `first`, `random` (by seed) and
    `balanced` (equally many of each label, by seed) use the same for all questions. example: the template of an example, with {answer};
    null: the prompt's template and its answer. between: the text after each example.
    """

    n: int = 0
    select: Select = "similar"
    example: str | None = None
    between: str = "\n\n"

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ConfigError(f"'shots.n' is {self.n}", "give at least 0")
        if self.example is not None and ANSWER not in names(self.example):
            raise ConfigError(
                f"the example {self.example!r} has no variable for the answer", "write {answer} in it"
            )


@config
class CompareConfig:
    """How answers are compared. calibration: `batch` subtracts the mean over the given texts (2309.17249), `content_free` that on content-free
    texts (2102.09690); null is `batch` if texts are given, else `none`. mean: use the mean of an answer's token log-probabilities, not
    their sum."""

    calibration: Calibration | None = None
    mean: bool = False


@config
class PromptOptions:
    """Options of method prompt."""

    prompt: Template = option(
        "{text}",
        "template with variables; for chat the system message, or a list of messages",
    )
    answers: dict[str, str] | None = option(
        None,
        'answer text of each label, for example {praise: " good", complaint: " bad"}',
    )
    shots: ShotsConfig = option(ShotsConfig(), "examples before the question: n, select, example, between")
    compare: CompareConfig = option(CompareConfig(), "how answers are compared: calibration, mean")


@config
class PromptConfig:
    """A saved prompt. `template` has variables, `{text}` and any other `{name}`; `{{` and `}}` are braces. For chat it is a list of messages.

    answers: for classify, the text of each label whose probability is compared. bias: subtracted from each label's log-probability
    (`CompareConfig`), which assumes about equally common labels. shots: how examples are chosen. examples: the candidates, each with the
    template's variables and `answer`, or for chat with `messages`. room: tokens reserved after the prompt, for the longest known answer.
    long: the treatment of a text that leaves no room for an answer.
    """

    template: Template
    answers: dict[str, str] = field(default_factory=dict)
    bias: dict[str, float] | None = None
    mean: bool = False
    shots: ShotsConfig = ShotsConfig()
    examples: tuple[dict[str, Any], ...] = ()
    room: int = 1
    long: Long = later("refuse")

    def __post_init__(self) -> None:
        known = self.names
        if ANSWER in known or (EXAMPLES in known and not isinstance(self.template, str)):
            reserved = ANSWER if ANSWER in known else EXAMPLES
            raise ConfigError(f"the prompt has a variable {{{reserved}}}", "give it another name")
        if EXAMPLES in known and self.shots.n and self.shots.example is None:
            raise ConfigError(
                "the prompt has {examples}, but there is no template for an example",
                "give shots.example, for example 'Review: {text}\\nVerdict:{answer}'",
            )

    @property
    def prompt(self) -> Template:
        """The template, by the option's name."""
        return self.template

    @property
    def chat(self) -> bool:
        """Is it a prompt for conversations, not for texts?"""
        return not isinstance(self.template, str)

    @property
    def names(self) -> tuple[str, ...]:
        """The variables, each once, in order, including `examples`."""
        parts = (
            [self.template]
            if isinstance(self.template, str)
            else [m.get("content", "") for m in self.template]
        )
        return tuple(dict.fromkeys(n for part in parts for n in names(part)))

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables that need a value, including the text: those of template and example."""
        more = names(self.shots.example) if self.shots.n and self.shots.example is not None else ()
        return tuple(n for n in dict.fromkeys((*self.names, *more)) if n not in (ANSWER, EXAMPLES))


def names(template: str) -> tuple[str, ...]:
    """The variables of a template, with repetitions. Raises ConfigError for a brace that is neither a variable's nor doubled."""
    return tuple(name for _, name in _parts(template) if name)


def filled(template: str, values: Mapping[str, str]) -> str:
    """The template filled with values, which are text and never parsed as a template. Raises DataError that names missing variables."""
    parts = _parts(template)
    if lacking := sorted({n for _, n in parts if n and n not in values}):
        raise missing(lacking, sorted(values))
    return "".join(values[name] if name else text for text, name in parts)


def missing(lacking: Sequence[str], given: Sequence[str]) -> DataError:
    """The error for variables without a value."""
    has = f", given: {', '.join(given)}" if given else ""
    return DataError(
        f"the prompt has no value for {', '.join(map(repr, lacking))}{has}",
        "give each of them: variables={...}, --var NAME=VALUE, or a column of that name",
    )


def _parts(template: str) -> list[tuple[str, str]]:
    """Texts and names of variables in order: (text, "") or ("", name)."""
    out, at = [], 0
    for found in _PART.finditer(template):
        out.append((template[at : found.start()], ""))
        at, token = found.end(), found.group()
        if token in "{}":
            raise ConfigError(
                f"the template has a lone {token!r} at character {found.start()}: {template[max(0, found.start() - 20) : at + 20]!r}",
                "write {name} for a variable (letters, digits and _), and {{ or }} for a brace",
            )
        out.append((token[0], "") if token in ("{{", "}}") else ("", found.group(1)))
    return [*out, (template[at:], "")]


class Vectors(nn.Module):
    """A vector of length 1 for each stored example [E, D], for similarity search."""

    def __init__(self, vectors_ED: Tensor) -> None:
        super().__init__()
        self.vectors_ED = nn.Parameter(vectors_ED, requires_grad=False)


def owns(key: str) -> bool:
    """See `tensors`."""
    return key == KEY


def tensors(model: BaseModel, name: str) -> dict[str, Tensor]:
    """`prompt.vectors` [E, D], where examples are chosen by similarity."""
    if name not in model.virtual or not isinstance(found := model.virtual[name], Vectors):
        return {}
    return {KEY: found.vectors_ED.detach()}


def put(model: BaseModel, name: str, cfg: PromptConfig, found: dict[str, Tensor]) -> None:
    """Attach saved vectors. Raises ConfigError unless there is one for each example."""
    wanted = len(cfg.examples) if cfg.shots.select == "similar" else 0
    vectors_ED = found.get(KEY, torch.empty(0, 0))
    if vectors_ED.ndim != 2 or len(vectors_ED) != wanted:
        raise ConfigError(
            f"the prompt has vectors of shape {list(vectors_ED.shape)} for {wanted} examples",
            "use the adapter as it was saved",
        )
    if wanted:
        model.virtual[name] = Vectors(vectors_ED)


def remove(model: BaseModel, name: str) -> None:
    """Remove the vectors."""
    if name in model.virtual and isinstance(model.virtual[name], Vectors):
        del model.virtual[name]


def stacks(stack: Sequence[Method], place: int, has_tensors: bool) -> None:
    """A prompt must be the last of a stack, and vectors of its examples need the base's own weights. Raises UserError."""
    if place < len(stack) - 1:
        raise UserError(
            "a saved prompt is not the last of the stack", "give it last: it defines the task of the stack"
        )
    if has_tensors and any(m.replaces for m in stack):
        raise UserError(
            "a saved prompt that selects examples by the base's vectors cannot be stacked on replaced weights",
            "create it with shots.select=random, or on the merged base",
        )


METHOD = Method(
    name="prompt",
    options=PromptOptions,
    config=PromptConfig,
    part=MethodPart(owns, tensors, put, remove),
    acts=False,
    needs_rows=False,
    predicts=True,
    text=True,
    stacks=stacks,
    merge="a prompt changes no weights",
    peft="a prompt has no weights",
)
