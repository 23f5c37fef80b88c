"""What is read in the place of what was given, by a saved prompt: the template filled, with examples, long texts cut. N texts, E stored examples, D width."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.nn.functional as F
from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.codec.text.long import ReadPart, parts_of
from onebase.codec.text.pooling import EmbeddingConfig
from onebase.codec.text.sample import Message, joined
from onebase.engine.features import embeddings
from onebase.errors import DataError
from onebase.methods.prompt import ANSWER, EXAMPLES, PromptConfig, filled, missing

Given = str | tuple[str, str] | Mapping[str, Any]
"""A text, a pair of texts that are read together, or a row with the columns that the prompt's variables are called by."""
T = TypeVar("T")
MARGIN = 4
"""Tokens that a part of a text may have more inside a prompt than it had in the text."""
log = logging.getLogger(__name__)
CHARS = (str, int, float)
"""What a variable's value may be."""


@dataclass(frozen=True)
class Prompted:
    """What a base reads in the place of what it was given: `read`, a text or messages; how many `examples` are in it, and how many were
    `dropped`, the least similar first, because the context has no room for them."""

    read: Any
    examples: int = 0
    dropped: int = 0


@dataclass(frozen=True)
class Prompter:
    """A saved prompt on the plain `base`. vectors_ED: of its examples, where similar ones are chosen. before: places of the context that
    other adapters take."""

    base: LoadedBase
    cfg: PromptConfig
    vectors_ED: Tensor | None = None
    before: int = 0

    def texts(self, rows: Sequence[Mapping[str, str]]) -> list[Prompted]:
        """The texts to read for rows of the template's variables."""
        tokenizer, out = self.base.codec.tokenizer, []
        for row, which in zip(rows, self._chosen([self._key(r) for r in rows]), strict=True):

            def make(some: Sequence[int], row: Mapping[str, str] = row) -> str:
                shown = "".join(self._example(i) + self.cfg.shots.between for i in some)
                assert isinstance(self.cfg.template, str)
                text = filled(self.cfg.template, {**row, EXAMPLES: shown})
                return text if EXAMPLES in self.cfg.names else shown + text

            out.append(self._fitted(which, make, lambda text: len(tokenizer.encode(text, bos=True))))
        return out

    def windows(self, rows: Sequence[Mapping[str, str]]) -> tuple[list[Mapping[str, str]], list[int]]:
        """The rows, the longest variable of those that leave no room for an answer cut as the config says, or the row once for each of its windows;
        and the number of the row that each is of."""
        cfg, tok = self.cfg, self.base.codec.tokenizer
        if cfg.long == "refuse" or not cfg.variables or not isinstance(cfg.template, str):
            return list(rows), list(range(len(rows)))
        answer = max(cfg.room, *(len(tok.encode(a, follows="text")) for a in cfg.answers.values()))
        limit = self.base.model.cfg.text.context - self.before - answer
        out: list[Mapping[str, str]] = []
        text_W, cut = [], 0
        for n, row in enumerate(rows):
            # No text has more tokens than bytes: one that surely fits is not tokenised for it.
            if len(filled(cfg.template, {**row, EXAMPLES: ""}).encode()) <= limit - MARGIN:
                out.append(row)
                text_W.append(n)
                continue
            name = max(cfg.variables, key=lambda v: len(row[v]))
            ids, places = tok.encode_placed(row[name])
            around = len(tok.encode(filled(cfg.template, {**row, name: "", EXAMPLES: ""}), bos=True))
            room = limit - around - MARGIN
            if len(ids) <= room or room < 1:  # one without any room is refused where it is scored
                parts = [ReadPart(((0, len(ids)),))]
            else:
                parts = parts_of(len(ids), room, cfg.long)
            cut += any(p.left_out for p in parts)
            for part in parts:
                text = "".join(row[name][places[a][0] : places[b - 1][1]] for a, b in part.stretches if b > a)
                out.append({**row, name: text} if len(ids) > room >= 1 else row)
                text_W.append(n)
        if cut:
            log.warning("%d of %d texts are cut to what the prompt has room for", cut, len(rows))
        return out, text_W

    def talk(self, messages: Sequence[Message], values: Mapping[str, str]) -> Prompted:
        """The conversation to read: saved messages, examples as turns, and the messages that were given. A system message of theirs goes
        behind the saved one, in the same message. Raises DataError naming a variable without a value."""
        cfg = self.cfg
        assert not isinstance(cfg.template, str)
        own = [{**m, "content": filled(m["content"], values)} for m in cfg.template]
        system = [m for m in (*own[:1], *messages[:1]) if m.get("role") == "system"]
        rest = list(messages[1:] if messages[:1] and messages[0].get("role") == "system" else messages)
        own = own[1:] if own and own[0]["role"] == "system" else own
        first = (
            [{"role": "system", "content": "\n\n".join(_plain(m)["content"] for m in system)}]
            if system
            else []
        )
        (which,) = self._chosen([(asked(messages),)])

        def make(some: Sequence[int]) -> list[Message]:
            turns = [m for i in some for m in cfg.examples[i]["messages"]]
            return [*first, *own, *turns, *rest]

        def size(made: list[Message]) -> int:
            return len(self.base.codec.chat_ids([_plain(m) for m in made]))

        return self._fitted(which, make, size)

    def _fitted(
        self, which: Sequence[int], make: Callable[[Sequence[int]], T], size: Callable[[T], int]
    ) -> Prompted:
        limit = self.base.model.cfg.text.context - self.before - self.cfg.room
        for dropped in range(len(which)):
            made = make(which[dropped:])
            if size(made) <= limit:
                return Prompted(made, len(which) - dropped, dropped)
        return Prompted(make(()), 0, len(which))

    def _example(self, i: int) -> str:
        template, row = self.cfg.shots.example, self.cfg.examples[i]
        assert isinstance(self.cfg.template, str)
        return filled(self.cfg.template, row) + row[ANSWER] if template is None else filled(template, row)

    def _key(self, row: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(row[n] for n in self.cfg.variables)

    def _chosen(self, keys: Sequence[tuple[str, ...]]) -> list[list[int]]:
        """For each question the numbers of its examples in the order in which they are shown. Nobody sees the example that is the question itself."""
        n, examples = self.cfg.shots.n, self.cfg.examples
        own = [(asked(e["messages"]),) if "messages" in e else self._key(e) for e in examples]
        allowed = [[i for i, k in enumerate(own) if k != key] for key in keys]
        if self.cfg.shots.select != "similar" or not own or not keys:
            return [some[:n] for some in allowed]
        assert self.vectors_ED is not None
        likeness_NE = vectors(self.base, keys) @ self.vectors_ED.T
        out = []
        for row_E, some in zip(likeness_NE.tolist(), allowed, strict=True):
            out.append(sorted(some, key=lambda i: (-row_E[i], i))[:n][::-1])
        return out


def vectors(base: LoadedBase, keys: Sequence[tuple[str, ...]]) -> Tensor:
    """Vectors [N, D] of length 1 of questions, as the base alone makes them; long ones are cut to its context."""
    cfg = base.embedding or EmbeddingConfig()
    return F.normalize(embeddings(base, ["\n".join(k) for k in keys], cfg, None).float(), dim=-1)


def asked(messages: Sequence[Message]) -> str:
    """What a conversation asks: the text of its last message of the user, or of its last at all."""
    said = [m for m in messages if m.get("role") == "user"] or list(messages)
    return str(_plain(said[-1])["content"]) if said else ""


def _plain(message: Message) -> dict[str, Any]:
    """The message with its text alone."""
    content = message.get("content")
    if isinstance(content, list | tuple):
        texts = [p for p in content if isinstance(p, Mapping) and p.get("type") == "text"]
        return dict(joined({**message, "content": texts}))
    return dict(message)


def checked(cfg: PromptConfig, row: Given, where: str = "") -> dict[str, str]:
    """The values of the prompt's variables in a row (a text alone is `text`). Raises DataError naming all that are missing."""
    if isinstance(row, str):
        if "text" not in cfg.variables:
            wanted = ", ".join(cfg.variables)
            raise DataError(
                f"{where}a text alone, the prompt's variables are {wanted}", "give rows with these columns"
            )
        row = {"text": row}
    if isinstance(row, tuple):
        raise DataError(f"{where}a pair of texts, which a saved prompt has no place for", "give rows")
    if lacking := [n for n in cfg.variables if row.get(n) is None]:
        e = missing(lacking, sorted(map(str, row)))
        raise DataError(f"{where}{e.cause}", e.remedy)
    return texts_of({n: row[n] for n in cfg.variables}, where)


def texts_of(values: Mapping[str, Any], where: str = "") -> dict[str, str]:
    """Values as texts. Raises DataError for what is neither text nor a number."""
    for name, value in values.items():
        if not isinstance(value, CHARS) or isinstance(value, bool):
            raise DataError(f"{where}variable {name!r} is {type(value).__name__}", "give text or a number")
    return {k: str(v) for k, v in values.items()}
