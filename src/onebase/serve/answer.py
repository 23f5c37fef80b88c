"""Responses in OpenAI's format, whole and in chunks."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from onebase.engine.request import Completion, Piece, Top
from onebase.modality.text.tokenizer import Tokenizer

Kind = Literal["chat", "text"]
_NAMES = {
    "chat": ("chatcmpl-", "chat.completion", "chat.completion.chunk"),
    "text": ("cmpl-", "text_completion", "text_completion"),
}


@dataclass
class Reply:
    """Builds the response to one request. begun: characters sent so far, by choice."""

    kind: Kind
    model: str
    fingerprint: str
    tokenizer: Tokenizer
    prompt_tokens: int = 0
    completion_tokens: int = 0
    created: int = field(default_factory=lambda: int(time.time()))
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    begun: dict[int, int] = field(default_factory=dict)

    def usage(self) -> dict[str, int]:
        p, c = self.prompt_tokens, self.completion_tokens
        return {"prompt_tokens": p, "completion_tokens": c, "total_tokens": p + c}

    def _frame(self, chunk: bool, choices: list[dict[str, Any]]) -> dict[str, Any]:
        prefix, whole, part = _NAMES[self.kind]
        return {
            "id": prefix + self.id,
            "object": part if chunk else whole,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }

    def whole(self, completions: Sequence[Completion], logprobs: bool) -> dict[str, Any]:
        """The response to a request that does not stream."""
        choices = []
        for i, c in enumerate(completions):
            content: dict[str, Any] = {"message": {"role": "assistant", "content": c.text, "refusal": None}}
            if self.kind == "text":
                content = {"text": c.text}
            shown = self._logprobs(c.ids, c.logprobs, c.top, 0) if logprobs else None
            choices.append({"index": i, **content, "logprobs": shown, "finish_reason": c.finish})
        return self._frame(False, choices) | {"usage": self.usage()}

    def opening(self) -> dict[str, Any]:
        """The first chunk of a chat: the role."""
        delta = {"role": "assistant", "content": ""}
        return self._frame(True, [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}])

    def chunk(self, piece: Piece, logprobs: bool) -> dict[str, Any]:
        """The chunk of one decoding step."""
        at = self.begun.get(piece.row, 0)
        self.begun[piece.row] = at + len(piece.text)
        content: dict[str, Any] = {"text": piece.text}
        if self.kind == "chat":
            content = {"delta": {"content": piece.text} if piece.text else {}}
        shown = self._logprobs(piece.ids, piece.logprobs, piece.top, at) if logprobs and piece.ids else None
        return self._frame(
            True, [{"index": piece.row, **content, "logprobs": shown, "finish_reason": piece.finish}]
        )

    def closing(self) -> dict[str, Any]:
        """The chunk with the usage counts, if requested."""
        return self._frame(True, []) | {"usage": self.usage()}

    def _name(self, id: int) -> str:
        return self.tokenizer.bytes_of(id).decode("utf-8", errors="replace")

    def _logprobs(
        self, ids: Sequence[int], logprobs: Sequence[float | None], top: Sequence[Top | None], at: int
    ) -> dict[str, Any]:
        tops: Sequence[Top | None] = top or [()] * len(ids)
        if self.kind == "chat":
            content = [
                self._token(i, p) | {"top_logprobs": [self._token(j, q) for j, q in t or ()]}
                for i, p, t in zip(ids, logprobs, tops, strict=True)
            ]
            return {"content": content, "refusal": None}
        tokens, offsets = [self._name(i) for i in ids], []
        for token in tokens:
            offsets.append(at)
            at += len(token)
        return {
            "tokens": tokens,
            "token_logprobs": list(logprobs),
            "top_logprobs": [None if t is None else self._best(t) for t in tops] if any(tops) else None,
            "text_offset": offsets,
        }

    def _best(self, top: Top) -> dict[str, float]:
        best: dict[str, float] = {}
        for i, p in top:
            best.setdefault(self._name(i), p)  # broken bytes share a name: keep the most likely
        return best

    def _token(self, id: int, logprob: float | None) -> dict[str, Any]:
        return {"token": self._name(id), "logprob": logprob, "bytes": list(self.tokenizer.bytes_of(id))}
