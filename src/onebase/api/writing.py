"""The generation half of `Base`: completions of prompts and chat answers, whole or streamed."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from onebase.engine import image_prompts as seeing
from onebase.engine.constrain import Constraint
from onebase.engine.decoder import generate, stream
from onebase.engine.infilling import infill_ids
from onebase.engine.prompter import Prompted
from onebase.engine.prompting import prompted
from onebase.engine.sampler import Sampling
from onebase.errors import DataError, UserError
from onebase.methods.bound import Bound

Message = Mapping[str, Any]


class Generation(Bound):
    """Text generation, whole or streamed."""

    def generate(
        self,
        prompt: str = "",
        *,
        max_tokens: int = 128,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        top_p: float = 1.0,
        seed: int | None = None,
        images: Sequence[str | Path] = (),
        variables: Mapping[str, object] | None = None,
        constraint: Constraint | None = None,
        suffix: str | None = None,
    ) -> str:
        """Continue `prompt`; greedy at temperature 0. images: files, one for each image token in the prompt (docs/images_and_text.md). variables:
        values for the variables of a saved prompt (docs/prompting.md). constraint: schema or regex that the output must match
        (docs/structured.md). suffix: infill, returns the text between `prompt` and suffix (for a base trained for infill). Raises UserError
        for a prompt longer than the context, a constraint that cannot be met, or a suffix without infill training."""
        sampling = _sampling(max_tokens, temperature, stop, top_p, seed, constraint)
        read = self._read(prompt, images, variables, suffix)
        return self._write(read, sampling)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int = 128,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        top_p: float = 1.0,
        seed: int | None = None,
        variables: Mapping[str, object] | None = None,
        constraint: Constraint | None = None,
    ) -> str:
        """The assistant's answer to `messages` ({"role", "content"} each), with the base's chat template. A content is text, or a list of
        {"type": "text", "text": ...} and, for a base with an image codec, {"type": "image", "image": path}. variables: as for `generate`."""
        sampling = _sampling(max_tokens, temperature, stop, top_p, seed, constraint)
        prompt = self.prompted(messages, variables).read
        if isinstance(prompt, str):
            raise DataError("chat takes a list of messages, not a text", "use generate to continue a text")
        read = seeing.chat_prompt(self.loaded, prompt, self.routing)
        return self._write(read, sampling)

    def stream(
        self,
        prompt: str | Sequence[Message],
        *,
        max_tokens: int = 128,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        top_p: float = 1.0,
        seed: int | None = None,
        images: Sequence[str | Path] = (),
        variables: Mapping[str, object] | None = None,
        constraint: Constraint | None = None,
        suffix: str | None = None,
    ) -> Iterator[str]:
        """Stream the text of `generate` (for a str) or `chat` (for messages), piece by piece."""
        sampling = _sampling(max_tokens, temperature, stop, top_p, seed, constraint)
        read = self._read(prompt, images, variables, suffix)
        for pieces in stream(self.loaded, [read.ids], sampling, self.routing, [read.inserts], [read.media]):
            for piece in pieces:
                if piece.text:
                    yield piece.text

    def prompted(
        self, given: str | Sequence[Message], variables: Mapping[str, object] | None = None
    ) -> Prompted:
        """The rendered prompt for a text or a conversation, from the saved prompt attached to the base: `read` (a text or messages), and the
        number of stored `examples` in it and `dropped` from it. Without a saved prompt the input is unchanged. Raises UserError."""
        return prompted(self.attached, given, variables)

    def _write(self, read: seeing.Prompt, sampling: Sampling) -> str:
        vectors, media = [read.inserts], [read.media]
        return generate(self.loaded, [read.ids], sampling, self.routing, inserts=vectors, media=media)[0].text

    def _read(
        self,
        given: str | Sequence[Message],
        images: Sequence[str | Path],
        variables: Mapping[str, object] | None,
        suffix: str | None = None,
    ) -> seeing.Prompt:
        """The ids of a prompt or a conversation, and the vectors of its images."""
        prompt = self.prompted(given, variables).read
        if suffix is not None:
            if images or not isinstance(prompt, str):
                raise UserError(
                    "a suffix needs a text prompt, without images", "call generate(prompt, suffix=...)"
                )
            return seeing.Prompt(infill_ids(self.loaded, prompt, suffix), None)
        if not isinstance(prompt, str):
            if images:
                raise UserError(
                    "images given separately from messages", 'put them in: {"type": "image", "image": path}'
                )
            return seeing.chat_prompt(self.loaded, prompt, self.routing)
        if images:
            return seeing.text_prompt(self.loaded, prompt, images, self.routing)
        return seeing.Prompt(self.tokenizer.encode(prompt, bos=True), None)


def _sampling(
    max_tokens: int,
    temperature: float,
    stop: Sequence[str],
    top_p: float,
    seed: int | None,
    constraint: Constraint | None,
) -> Sampling:
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    return Sampling(max_tokens, temperature, top_p, seed=seed, stop=stops, constraint=constraint)
