"""Saved prompts at work: what is read in the place of what was given, and the probability of answers.

N texts, E stored examples, C answers, D width.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.codec.text.long import ReadPart, parts_of
from onebase.codec.text.pooling import EmbeddingConfig
from onebase.codec.text.sample import Message, joined
from onebase.engine.features import embeddings, features, given_tokens
from onebase.engine.scoring import score
from onebase.errors import DataError, UserError
from onebase.methods import prompt as saved
from onebase.methods.folder import Attached
from onebase.methods.prompt import ANSWER, EXAMPLES, PromptConfig, filled, missing
from onebase.model.proj import AdapterRouting
from onebase.objective.pooled import mean_of_windows

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


def prompter(on: Attached) -> Prompter:
    """The saved prompt of an adapter that has one."""
    assert on.config.prompt is not None
    found = saved.tensors(on.base.model, on.name).get(saved.KEY)
    before = on.base.model.virtual_counts(on.routing, 1)[0]
    return Prompter(on.base, on.config.prompt, None if found is None else found.cpu(), before)


def prompted(
    on: Attached | None, given: str | Sequence[Message], variables: Mapping[str, Any] | None = None
) -> Prompted:
    """What a base with this adapter reads for a text or a conversation: the same, where no saved prompt is on it.

    Raises UserError for variables that nobody asks for, and for a saved prompt of another task; DataError for a variable without a value.
    """
    if on is None or on.config.prompt is None or on.config.prompt.answers:
        if variables:
            raise UserError(
                f"variables ({', '.join(sorted(variables))}) without a saved prompt that has them",
                "put an adapter of method prompt on the base, or leave them out",
            )
        return Prompted(given)
    cfg = on.config.prompt
    if cfg.chat == isinstance(given, str):
        raise UserError(
            f"the saved prompt is for {on.task}",
            "use chat (base.chat, onebase chat, /v1/chat/completions)"
            if cfg.chat
            else "use generate (base.generate, onebase generate, /v1/completions)",
        )
    values = texts_of(variables or {})
    if unknown := sorted(values.keys() - set(cfg.variables)):
        has = f"its variables: {', '.join(cfg.variables)}" if cfg.variables else "it has none"
        raise UserError(f"the prompt has no variable {', '.join(map(repr, unknown))}", has)
    if not cfg.chat:
        if "text" in cfg.variables and "text" not in values:
            values["text"] = str(given)
        elif given:
            said = "was given twice" if "text" in values else "has no place in the prompt"
            raise UserError(f"a text {said}", "give it once" if "text" in values else "give variables alone")
        return prompter(on).texts([checked(cfg, values)])[0]
    messages: Any = given
    if not isinstance(messages, Sequence) or not all(isinstance(m, Mapping) for m in messages):
        return Prompted(messages)  # who reads it says what is wrong
    return prompter(on).talk(messages, checked(cfg, values))


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


def columns(on: Attached | None) -> tuple[str, ...]:
    """The columns of a row that an adapter which sorts texts reads."""
    cfg = on.config.prompt if on is not None else None
    return ("text",) if cfg is None else cfg.variables


def inputs(on: Attached | None, rows: Sequence[Mapping[str, Any]]) -> list[Given]:
    """What of rows `Base.classify` is given: texts (of rows that have a `text_pair` the two), or whole rows where a saved prompt has other
    variables."""
    if columns(on) != ("text",):
        return list(rows)
    if on is not None and on.config.head is not None and on.config.head.pairs and "text_pair" in rows[0]:
        return [(str(r["text"]), str(r.get("text_pair"))) for r in rows]
    return [str(r["text"]) for r in rows]


def answer_scores(
    base: LoadedBase,
    prompt: PromptConfig,
    texts: Sequence[Given],
    routing: AdapterRouting | None = None,
    vectors_ED: Tensor | None = None,
) -> Tensor:
    """log P(answer | prompt) for each label less its bias, normalised over the labels, [N, C]."""
    rows = [checked(prompt, t, f"row {i}: ") for i, t in enumerate(texts, 1)]
    before = base.model.virtual_counts(routing, 1)[0]
    prompter = Prompter(base, prompt, vectors_ED, before)
    windows, text_W = prompter.windows(rows)
    logp_WC = scores_of(base, prompt, [p.read for p in prompter.texts(windows)], routing)
    if len(windows) == len(rows):
        return logp_WC
    return mean_of_windows(logp_WC, torch.tensor(text_W), "mean").log_softmax(-1)


def scores_of(
    base: LoadedBase, prompt: PromptConfig, forms: Sequence[str], routing: AdapterRouting | None = None
) -> Tensor:
    """`answer_scores` of whole prompts."""
    tok = base.codec.tokenizer
    heads = [tok.begun(h) for h in tok.encode_batch(list(forms))]
    tails = tok.encode_batch(list(prompt.answers.values()), follows="text")
    context = base.model.cfg.text.context - base.model.virtual_counts(routing, 1)[0]
    for i, head in enumerate(heads, 1):
        if not head:
            raise DataError(f"row {i} has no token", "give a text or a prompt that is not empty")
        if len(head) + max(map(len, tails)) > context:
            raise DataError(
                f"row {i} has {len(head)} tokens with its prompt, no answer fits in {context}",
                "shorten it",
            )
    if all(len(t) == 1 for t in tails):  # one forward of the prompt serves all answers
        rows = [given_tokens(h, i) for i, h in enumerate(heads)]
        h_ND = features(base, rows, "last", routing).to(base.model.device, base.model.compute_dtype)
        with torch.no_grad():
            logp_NC = base.model.text.logits(h_ND, routing).log_softmax(-1)[:, [t[0] for t in tails]].cpu()
    else:
        whole = [[*h, *t] for h in heads for t in tails]
        ends = [len(t) for _ in heads for t in tails]
        each = (torch.as_tensor(x)[-n:] for n, x in zip(ends, score(base, whole, routing), strict=True))
        sums = [float(x.mean() if prompt.mean else x.sum()) for x in each]
        logp_NC = torch.tensor(sums).view(len(forms), len(tails))
    if prompt.bias is not None:
        logp_NC = logp_NC - torch.tensor([prompt.bias[label] for label in prompt.answers])
    return logp_NC.log_softmax(-1)
