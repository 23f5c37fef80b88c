"""Applies a saved prompt to inputs: fills the template, adds examples, and cuts long texts. N texts, E stored examples, D width."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.nn.functional as F
from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.engine.features import embeddings
from onebase.errors import DataError
from onebase.methods.prompt import ANSWER, EXAMPLES, PromptConfig, filled, missing
from onebase.modality.text.long import ReadPart, parts_of
from onebase.modality.text.pooling import EmbeddingConfig
from onebase.modality.text.sample import Message, joined

Given = str | tuple[str, str] | Mapping[str, Any]
"""A text, a pair of texts that are read together, or a row whose columns are the prompt's variables."""
T = TypeVar("T")
MARGIN = 4
"""Tokens by which a part of a text may be longer inside a prompt than in the text."""
log = logging.getLogger(__name__)
CHARS = (str, int, float)
"""Accepted types of a variable's value."""


@dataclass(frozen=True)
class Prompted:
    """An input with the saved prompt applied. read: a text or messages. examples: number of examples in it. dropped: number of examples that did not fit
    in the context, the least similar first."""

    read: Any
    examples: int = 0
    dropped: int = 0


@dataclass(frozen=True)
class Prompter:
    """A saved prompt on the plain `base`. vectors_ED: of its examples, if similar ones are selected. before: context positions that other adapters use."""

    base: LoadedBase
    cfg: PromptConfig
    vectors_ED: Tensor | None = None
    before: int = 0

    def texts(self, rows: Sequence[Mapping[str, str]]) -> list[Prompted]:
        """The filled prompts of rows with the template's variables."""
        tokenizer, out = self.base.codec.tokenizer, []
        for row, which in zip(rows, self._chosen([self._key(r) for r in rows]), strict=True):

            def make(chosen: Sequence[int], row: Mapping[str, str] = row) -> str:
                shown = "".join(self._example(i) + self.cfg.shots.between for i in chosen)
                assert isinstance(self.cfg.template, str)
                text = filled(self.cfg.template, {**row, EXAMPLES: shown})
                return text if EXAMPLES in self.cfg.names else shown + text

            out.append(self._fitted(which, make, lambda text: len(tokenizer.encode(text, bos=True))))
        return out

    def windows(self, rows: Sequence[Mapping[str, str]]) -> tuple[list[Mapping[str, str]], list[int]]:
        """The rows, long ones shortened: if no answer fits after a row, its longest variable is cut, or split into one row per window, as the config says.
        Also returns the index of the row that each result belongs to."""
        cfg, tok = self.cfg, self.base.codec.tokenizer
        if cfg.long == "refuse" or not cfg.variables or not isinstance(cfg.template, str):
            return list(rows), list(range(len(rows)))
        answer = max(cfg.room, *(len(tok.encode(a, follows="text")) for a in cfg.answers.values()))
        limit = self.base.model.cfg.text.context - self.before - answer
        out: list[Mapping[str, str]] = []
        text_W, cut = [], 0
        for n, row in enumerate(rows):
            # No text has more tokens than bytes: one that certainly fits is not tokenised.
            if len(filled(cfg.template, {**row, EXAMPLES: ""}).encode()) <= limit - MARGIN:
                out.append(row)
                text_W.append(n)
                continue
            name = max(cfg.variables, key=lambda v: len(row[v]))
            ids, places = tok.encode_placed(row[name])
            around = len(tok.encode(filled(cfg.template, {**row, name: "", EXAMPLES: ""}), bos=True))
            most = limit - around - MARGIN
            if len(ids) <= most or most < 1:  # if nothing fits, the row is refused when it is scored
                parts = [ReadPart(((0, len(ids)),))]
            else:
                parts = parts_of(len(ids), most, cfg.long)
            cut += any(p.left_out for p in parts)
            for part in parts:
                text = "".join(row[name][places[a][0] : places[b - 1][1]] for a, b in part.stretches if b > a)
                out.append({**row, name: text} if len(ids) > most >= 1 else row)
                text_W.append(n)
        if cut:
            log.warning("%d of %d texts are truncated to fit in the prompt", cut, len(rows))
        return out, text_W

    def talk(self, messages: Sequence[Message], values: Mapping[str, str]) -> Prompted:
        """The conversation with the saved prompt: saved messages, examples as turns, then `messages`. Their system message is appended to the saved one.
        Raises DataError naming a variable without a value."""
        cfg = self.cfg
        assert not isinstance(cfg.template, str)
        saved = [{**m, "content": filled(m["content"], values)} for m in cfg.template]
        system = [m for m in (*saved[:1], *messages[:1]) if m.get("role") == "system"]
        rest = list(messages[1:] if messages[:1] and messages[0].get("role") == "system" else messages)
        saved = saved[1:] if saved and saved[0]["role"] == "system" else saved
        first = (
            [{"role": "system", "content": "\n\n".join(_plain(m)["content"] for m in system)}]
            if system
            else []
        )
        (which,) = self._chosen([(question_of(messages),)])

        def make(chosen: Sequence[int]) -> list[Message]:
            turns = [m for i in chosen for m in cfg.examples[i]["messages"]]
            return [*first, *saved, *turns, *rest]

        def size(conversation: list[Message]) -> int:
            return len(self.base.codec.chat_ids([_plain(m) for m in conversation]))

        return self._fitted(which, make, size)

    def _fitted(
        self, which: Sequence[int], make: Callable[[Sequence[int]], T], size: Callable[[T], int]
    ) -> Prompted:
        limit = self.base.model.cfg.text.context - self.before - self.cfg.room
        for dropped in range(len(which)):
            prompt = make(which[dropped:])
            if size(prompt) <= limit:
                return Prompted(prompt, len(which) - dropped, dropped)
        return Prompted(make(()), 0, len(which))

    def _example(self, i: int) -> str:
        template, row = self.cfg.shots.example, self.cfg.examples[i]
        assert isinstance(self.cfg.template, str)
        return filled(self.cfg.template, row) + row[ANSWER] if template is None else filled(template, row)

    def _key(self, row: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(row[n] for n in self.cfg.variables)

    def _chosen(self, keys: Sequence[tuple[str, ...]]) -> list[list[int]]:
        """For each question the indices of its examples, in prompt order. An example that equals the question is left out."""
        n, examples = self.cfg.shots.n, self.cfg.examples
        example_keys = [(question_of(e["messages"]),) if "messages" in e else self._key(e) for e in examples]
        allowed = [[i for i, k in enumerate(example_keys) if k != key] for key in keys]
        if self.cfg.shots.select != "similar" or not example_keys or not keys:
            return [candidates[:n] for candidates in allowed]
        assert self.vectors_ED is not None
        similarity_NE = vectors(self.base, keys) @ self.vectors_ED.T
        out = []
        for row_E, candidates in zip(similarity_NE.tolist(), allowed, strict=True):
            out.append(sorted(candidates, key=lambda i: (-row_E[i], i))[:n][::-1])
        return out


def vectors(base: LoadedBase, keys: Sequence[tuple[str, ...]]) -> Tensor:
    """Vectors [N, D] of length 1 of questions, by the base without adapters; long ones are cut to its context."""
    cfg = base.embedding or EmbeddingConfig()
    return F.normalize(embeddings(base, ["\n".join(k) for k in keys], cfg, None).float(), dim=-1)


def question_of(messages: Sequence[Message]) -> str:
    """The question of a conversation: the text of the last user message, or of the last message if there is none."""
    candidates = [m for m in messages if m.get("role") == "user"] or list(messages)
    return str(_plain(candidates[-1])["content"]) if candidates else ""


def _plain(message: Message) -> dict[str, Any]:
    """The message with only its text parts."""
    content = message.get("content")
    if isinstance(content, list | tuple):
        texts = [p for p in content if isinstance(p, Mapping) and p.get("type") == "text"]
        return dict(joined({**message, "content": texts}))
    return dict(message)


def checked(cfg: PromptConfig, row: Given, where: str = "") -> dict[str, str]:
    """The values of the prompt's variables in a row (a plain text is the value of `text`). Raises DataError naming all missing variables."""
    if isinstance(row, str):
        if "text" not in cfg.variables:
            wanted = ", ".join(cfg.variables)
            raise DataError(
                f"{where}only a text is given, the prompt's variables are {wanted}",
                "give rows with these columns",
            )
        row = {"text": row}
    if isinstance(row, tuple):
        raise DataError(f"{where}a pair of texts is given, which a saved prompt does not take", "give rows")
    if lacking := [n for n in cfg.variables if row.get(n) is None]:
        e = missing(lacking, sorted(map(str, row)))
        raise DataError(f"{where}{e.cause}", e.remedy)
    return texts_of({n: row[n] for n in cfg.variables}, where)


def texts_of(values: Mapping[str, Any], where: str = "") -> dict[str, str]:
    """Values as texts. Raises DataError for a value that is neither text nor number."""
    for name, value in values.items():
        if not isinstance(value, CHARS) or isinstance(value, bool):
            raise DataError(f"{where}variable {name!r} is {type(value).__name__}", "give text or a number")
    return {k: str(v) for k, v in values.items()}
