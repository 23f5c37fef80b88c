"""Saved prompts: a template with variables, answers that are compared, and examples. No weights. E examples, D width."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from onebase.base.model import BaseModel
from onebase.codec.text.long import Long
from onebase.config import config
from onebase.config_fields import later
from onebase.errors import ConfigError, DataError, UserError
from onebase.methods.method import Method, MethodPart, option

Select = Literal["similar", "first", "random", "balanced"]
Calibration = Literal["none", "batch", "content_free"]
Template = str | tuple[dict[str, str], ...]
"""Text with variables, or for chat messages with variables in their contents."""

KEY = "prompt.vectors"
ANSWER, EXAMPLES = "answer", "examples"
"""What an example's template calls its answer, and what a template calls the place of the examples."""

_PART = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]")


@config
class ShotsConfig:
    """Examples before the question (few-shot). n: how many at most.

    select: `similar` takes those nearest to each question by the base's own vectors, the nearest last; `first`, `random` (by seed) and
    `balanced` (the same number of each label, by seed) take the same for all questions. example: the template of one, with {answer};
    when null the prompt's template and its answer. between: what stands behind each.
    """

    n: int = 0
    select: Select = "similar"
    example: str | None = None
    between: str = "\n\n"

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ConfigError(f"'shots.n' is {self.n}", "give 0 or more")
        if self.example is not None and ANSWER not in names(self.example):
            raise ConfigError(
                f"the example {self.example!r} does not say where the answer goes", "write {answer} in it"
            )


@config
class CompareConfig:
    """How answers are compared. calibration: `batch` takes out the mean over the texts given (2309.17249), `content_free` what is said of texts
    that say nothing (2102.09690); null is `batch` where texts are given, else `none`. mean: an answer of several tokens counts by the
    mean of its tokens' log-probabilities, not by their sum."""

    calibration: Calibration | None = None
    mean: bool = False


@config
class PromptOptions:
    """What users say of a prompt."""

    prompt: Template = option(
        "{text}",
        "the template, with variables; for chat the system message, or a list of messages",
    )
    answers: dict[str, str] | None = option(
        None,
        'label to the text whose probability is compared, for example {praise: " good", complaint: " bad"}',
    )
    shots: ShotsConfig = option(ShotsConfig(), "examples before the question: n, select, example, between")
    compare: CompareConfig = option(CompareConfig(), "how answers are compared: calibration, mean")


@config
class PromptConfig:
    """A saved prompt. `template` has variables, `{text}` and any other `{name}`; `{{` and `}}` are braces. For chat it is a list of messages.

    answers: for classify, each label's text whose probability is compared. bias: taken from each label's log-probability (`CompareConfig`).
    It supposes that the labels are about equally common. shots: how examples are chosen; examples: those to choose from, each with the template's variables and
    `answer`, or for chat with `messages`. room: tokens that are left free behind the prompt, as many as the longest answer known. long: what is done with a text
    that leaves no room for an answer.
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
            taken = ANSWER if ANSWER in known else EXAMPLES
            raise ConfigError(f"the prompt has a variable {{{taken}}}", "give it another name")
        if EXAMPLES in known and self.shots.n and self.shots.example is None:
            raise ConfigError(
                "the prompt says where the examples go, and nothing says how one looks",
                "give shots.example, for example 'Review: {text}\\nVerdict:{answer}'",
            )

    @property
    def prompt(self) -> Template:
        """The template, as the option is called."""
        return self.template

    @property
    def chat(self) -> bool:
        """Is it put around a conversation, not a text?"""
        return not isinstance(self.template, str)

    @property
    def names(self) -> tuple[str, ...]:
        """The variables, each once, in order; the place of the examples among them."""
        parts = (
            [self.template]
            if isinstance(self.template, str)
            else [m.get("content", "") for m in self.template]
        )
        return tuple(dict.fromkeys(n for part in parts for n in names(part)))

    @property
    def variables(self) -> tuple[str, ...]:
        """What has to be given, the text among it: the variables of template and example."""
        more = names(self.shots.example) if self.shots.n and self.shots.example is not None else ()
        return tuple(n for n in dict.fromkeys((*self.names, *more)) if n not in (ANSWER, EXAMPLES))


def names(template: str) -> tuple[str, ...]:
    """The variables of a template, as often as they stand there. Raises ConfigError for a brace that is neither a variable's nor doubled."""
    return tuple(name for _, name in _parts(template) if name)


def filled(template: str, values: Mapping[str, str]) -> str:
    """The template with its variables' values, which are text and never read as a template. Raises DataError naming what is missing."""
    parts = _parts(template)
    if lacking := sorted({n for _, n in parts if n and n not in values}):
        raise missing(lacking, sorted(values))
    return "".join(values[name] if name else text for text, name in parts)


def missing(lacking: Sequence[str], given: Sequence[str]) -> DataError:
    """The one error for variables that nothing was given for."""
    has = f", given: {', '.join(given)}" if given else ""
    return DataError(
        f"the prompt has no value for {', '.join(map(repr, lacking))}{has}",
        "give each of them: variables={...}, --var NAME=VALUE, or a column of that name",
    )


def _parts(template: str) -> list[tuple[str, str]]:
    """Stretches of text and names of variables in order: (text, "") or ("", name)."""
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
    """A vector of length 1 for each stored example [E, D], by which the similar ones are found."""

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
    """Attach saved vectors. Raises ConfigError where there is not one for each example."""
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
    """Take them off."""
    if name in model.virtual and isinstance(model.virtual[name], Vectors):
        del model.virtual[name]


def stacks(stack: Sequence[Method], place: int, has_tensors: bool) -> None:
    """A prompt is the last of a stack, and vectors of its examples are those of the base as it was. Raises UserError."""
    if place < len(stack) - 1:
        raise UserError(
            "a saved prompt is not the last of the stack", "give it last: it says what the others are for"
        )
    if has_tensors and any(m.replaces for m in stack):
        raise UserError(
            "a saved prompt that chooses examples by the base's vectors cannot stand on replaced weights",
            "make it with shots.select=random, or on the merged base",
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
    merge="a prompt is put around a text, and changes no weights",
    peft="a prompt has no weights",
)
