"""Forms of saved prompts: compared answers, a completion, or a conversation. Each form has its columns, and turns rows into examples."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from onebase.base.folder import LoadedBase
from onebase.engine.prompter import checked, question_of
from onebase.errors import DataError
from onebase.methods.prompt import ANSWER, PromptConfig, PromptOptions, ShotsConfig
from onebase.modality.text.sample import chat_sample

Row = Mapping[str, Any]
Example = Callable[[Row], dict[str, Any]]
"""Builds the example of a row. Raises DataError."""
AnswerSize = Callable[[Row], int]
"""Tokens of an example's answer."""


@dataclass(frozen=True)
class PromptForm:
    """A form of prompts. answer: the column of an example's answer. examples: for a base and a prompt, the functions that build the example of
    a row and count the tokens of its answer.

    columns_of: the columns of variables whose names differ in rows. compares: are answers compared, and calibrated? chat: is the template a
    list of messages, and a row a conversation?
    """

    answer: str
    examples: Callable[[LoadedBase, PromptConfig], tuple[Example, AnswerSize]]
    columns_of: Mapping[str, str] = field(default_factory=dict)
    compares: bool = False
    chat: bool = False

    def columns(self, options: PromptOptions) -> tuple[str, ...]:
        """The required columns: the prompt's variables, and the answer where rows are examples."""
        if self.chat:
            return ("messages",)
        answers = (self.answer,) if options.shots.n else ()
        return (*self._variables(options.prompt, options.shots), *answers)

    def asks(self, options: PromptOptions) -> tuple[str, ...]:
        """The columns of a row that form its question."""
        return ("messages",) if self.chat else self._variables(options.prompt, ShotsConfig())

    def _variables(self, template: Any, shots: ShotsConfig) -> tuple[str, ...]:
        if not isinstance(template, str):
            return ()
        return tuple(
            self.columns_of.get(n, n) for n in PromptConfig(template=template, shots=shots).variables
        )

    def question(self, cfg: PromptConfig, row: Row) -> str:
        """The question of a row as a text."""
        if self.chat:
            return question_of(row["messages"])
        return "\n".join(str(row[n]) for n in self._variables(cfg.template, ShotsConfig()))

    def values(self, cfg: PromptConfig, row: Row) -> dict[str, str]:
        """The values of the prompt's variables in a row. Raises DataError that names all missing ones."""
        return checked(cfg, {**row, **{name: row.get(column) for name, column in self.columns_of.items()}})

    def key(self, cfg: PromptConfig, example: Row) -> tuple[str, ...]:
        """The texts by which similar examples are retrieved."""
        return (question_of(example["messages"]),) if self.chat else tuple(example[n] for n in cfg.variables)


def _labelled(base: LoadedBase, cfg: PromptConfig) -> tuple[Example, AnswerSize]:
    answers = cfg.answers
    longest = max(len(base.codec.tokenizer.encode(a)) for a in answers.values())

    def example(row: Row) -> dict[str, Any]:
        label = str(row["label"])
        if label not in answers:
            raise DataError(f"the label {label!r} has no answer", f"answers are for: {', '.join(answers)}")
        return {**LABELS.values(cfg, row), ANSWER: answers[label]}

    return example, lambda _: longest


def _completed(base: LoadedBase, cfg: PromptConfig) -> tuple[Example, AnswerSize]:
    encode = base.codec.tokenizer.encode
    return (
        lambda row: {**COMPLETIONS.values(cfg, row), ANSWER: str(row["completion"])},
        lambda example: len(encode(example[ANSWER])),
    )


def _answered(base: LoadedBase, cfg: PromptConfig) -> tuple[Example, AnswerSize]:
    codec = base.codec

    def example(row: Row) -> dict[str, Any]:
        codec.tokens(chat_sample(row["messages"]))  # raises for bad messages
        turns = [
            {"role": m["role"], "content": m["content"]} for m in row["messages"] if m["role"] != "system"
        ]
        if len(turns) < 2 or turns[-1]["role"] != "assistant":
            raise DataError("does not end with an answer of the assistant", "make it the last message")
        return {"messages": turns}

    return example, lambda example: len(codec.tokenizer.encode(example["messages"][-1]["content"]))


LABELS = PromptForm("label", _labelled, compares=True)
COMPLETIONS = PromptForm("completion", _completed, {"text": "prompt"})
MESSAGES = PromptForm("messages", _answered, chat=True)
