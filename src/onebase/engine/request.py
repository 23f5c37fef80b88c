"""Types of decoding results, and the check of prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from onebase.base.folder import LoadedBase
from onebase.errors import UserError
from onebase.model.proj import AdapterRouting

Finish = Literal["stop", "length"]
Top = tuple[tuple[int, float], ...]
"""The most likely tokens at one position: (id, log-probability in nats), most likely first."""


class PromptTooLong(UserError):
    """A prompt after which no answer fits in the base's context."""


@dataclass(frozen=True)
class Piece:
    """The output of one step for one answer.

    row: index of the prompt. text: may be empty (held back) or contain text of earlier steps. ids: chosen tokens, including the stop token.
    logprobs (nats, of the model itself: before temperature and filters) and top: for these tokens, if requested. finish: set on the row's last
    piece.
    """

    row: int
    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    top: tuple[Top, ...] = ()
    finish: Finish | None = None


@dataclass(frozen=True)
class Completion:
    """A whole answer. `ids` include the stop token, `text` does not. finish: "stop" or "length"."""

    text: str
    ids: tuple[int, ...]
    finish: Finish
    logprobs: tuple[float, ...] = ()
    prompt_tokens: int = 0
    top: tuple[Top, ...] = ()


def check_prompts(
    base: LoadedBase,
    prompts: Sequence[Sequence[int]],
    *,
    room: int = 1,
    routing: AdapterRouting | None = None,
) -> None:
    """Refuse prompts that cannot be continued: empty, with unknown ids, or without `room` free tokens in the context.

    Virtual tokens of an active adapter count. Raises PromptTooLong or UserError, with the number of the prompt if there are several.
    """
    cfg = base.model.cfg.text
    if base.model.trunk.cfg.direction != "causal":
        raise UserError(
            "this base reads in both directions and predicts no next token",
            "use a causal base (a decoder); an encoder is for embed, search, adapt and apply",
        )
    before = base.model.virtual_counts(routing, len(prompts))
    for n, prompt in enumerate(prompts, 1):
        name = f"prompt {n} of {len(prompts)}" if len(prompts) > 1 else "the prompt"
        if not len(prompt):
            begins = base.codec.tokenizer.begun([])
            raise UserError(
                f"{name} has no tokens",
                "give at least the BOS token, as Tokenizer.encode(text, bos=True) does"
                if begins
                else "give some text: this base has no BOS token",
            )
        if min(prompt) < 0 or max(prompt) >= cfg.vocab_size:
            raise UserError(
                f"{name} has a token id outside 0 .. {cfg.vocab_size - 1}",
                "encode it with this base's tokenizer",
            )
        taken = len(prompt) + before[n - 1]
        if taken + room > cfg.context:
            answer = ", and the answer needs at least one of them" if room else ""
            over = taken + room - cfg.context
            adapter = f", the adapter adds {before[n - 1]} before it" if before[n - 1] else ""
            raise PromptTooLong(
                f"{name} has {len(prompt)} tokens{adapter}; the context of this base is {cfg.context} tokens{answer}",
                f"shorten the prompt by {over} token{'s' * (over > 1)} or more, or use a base with a longer context",
            )
