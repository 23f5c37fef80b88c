"""The demo's three tasks, split so that pretraining reads none of their test data.

Every split is a function of (seed, name of the chat, module or exchange), so it does not depend on the order of files. The
chats of `question` and the modules of `docstring`'s test set are left out of the corpus (corpus.py); the exchanges of `topic` never enter it.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from onebase.demo.corpus import held_out_modules, side
from onebase.demo.library import Function, functions_of, modules
from onebase.demo.sources import Chat, chats, exchanges, lines, share
from onebase.errors import UserError

SEEDS = 5
UNLABELLED = 200
QUESTION_SIZES = (10, 50, 200)
TOPIC_SIZES = (5, 20)
MARKS = {"question": "?", "statement": "."}  # label -> the mark whose probability the prompt method compares
_TEST_PER_CLASS = 600
_CONTEXT_CHARS = 300
_DOCSTRING_TRAIN = 2500
_TOPIC_MIN, _TOPIC_POOL, _TOPIC_TEST = 19, 0.6, 60
_NOT_WORD = re.compile(r"[\W_]+")
_ENDS = re.compile(r"(?P<text>.*\w\W?)\s?(?P<mark>[?.])", re.DOTALL)


@dataclass(frozen=True)
class Example:
    """One labelled example. `prompt` is the text after which a base without adaptation predicts the answer."""

    id: str
    text: str
    target: str
    prompt: str


@dataclass(frozen=True)
class DemoTask:
    """Labelled data with fixed splits.

    sizes: numbers of training labels per class, each with `seeds` draws; a task of kind "text" has one draw of all its training
    data. labels: empty for kind "text". unlabelled: prompts from the same pool as the training labels, drawn independently of
    their label, for use without any labels.
    """

    name: str
    kind: Literal["label", "text"]
    says: str
    labels: tuple[str, ...]
    sizes: tuple[int, ...]
    seeds: int
    draws: Mapping[tuple[int, int], tuple[Example, ...]]
    test: tuple[Example, ...]
    unlabelled: tuple[str, ...] = ()

    def train(self, size: int | None = None, seed: int = 0) -> tuple[Example, ...]:
        """The training examples with `size` labels per class (default: the largest size) of draw `seed` (0 .. seeds-1)."""
        key = (self.sizes[-1] if size is None else size, seed)
        if key not in self.draws:
            raise UserError(
                f"task {self.name} has no draw of size {key[0]} and seed {key[1]}",
                f"sizes: {', '.join(map(str, self.sizes))}; seeds: 0 to {self.seeds - 1}",
            )
        return self.draws[key]


@functools.lru_cache(maxsize=4)
def question(seed: int = 0) -> DemoTask:
    """Is this message a question? Its final mark is removed; "?" and "." are equally common.

    Messages come from chats held out of the corpus (test and training from different ones); each text occurs once, and none
    of them is also a message of the corpus. `prompt` is the end of the chat's transcript up to the mark, so the next token of
    the text is the mark: compare P("?") with P("."), see MARKS.
    """
    known = {_key(m) for c in chats() if side(seed, c) == "pretrain" for turn in c.turns for m in turn}
    found: dict[str, dict[str, list[Example]]] = {s: {label: [] for label in MARKS} for s in ("test", "pool")}
    for chat in sorted(chats(), key=lambda c: share(seed, "chat order " + c.id)):
        part = side(seed, chat)
        if part != "pretrain":
            for example in _marked(chat):
                if _key(example.text) not in known:
                    known.add(_key(example.text))
                    found[part][example.target].append(example)
    shuffled = {part: {k: _shuffle(seed, v) for k, v in classes.items()} for part, classes in found.items()}
    every = sorted(
        (e for v in found["pool"].values() for e in v), key=lambda e: share(seed, f"unlabelled {e.id}")
    )
    count = min(_TEST_PER_CLASS, *(len(v) for v in shuffled["test"].values()))
    return DemoTask(
        name="question",
        kind="label",
        says="is this message a question? (its last mark is removed)",
        labels=tuple(MARKS),
        sizes=QUESTION_SIZES,
        seeds=SEEDS,
        draws=_draws(seed, shuffled["pool"], QUESTION_SIZES),
        test=tuple(_shuffle(seed, [e for v in shuffled["test"].values() for e in v[:count]])),
        unlabelled=tuple(e.prompt for e in every[:UNLABELLED]),
    )


@functools.lru_cache(maxsize=4)
def docstring(seed: int = 0) -> DemoTask:
    """Write the first sentence of a function's docstring from its source.

    Split by top-level module. The test modules are held out of the corpus, and a test function whose sentence or source also
    occurs anywhere else in the library is left out. The training functions come from modules that the corpus may contain too.
    """
    tests = held_out_modules(seed)
    every = functions_of(modules())
    train = _once([f for f in every if f.top not in tests])
    read = _key("\n".join(d.text for m in modules() if m.top not in tests for d in m.code))
    bodies = {_key(e.text) for e in train}
    test = _once(
        [f for f in every if f.top in tests and _key(f.source) not in read and _key(f.summary) not in read]
    )
    chosen = _shuffle(seed, train)[:_DOCSTRING_TRAIN]
    return DemoTask(
        name="docstring",
        kind="text",
        says="the first sentence of a function's docstring, from its source",
        labels=(),
        sizes=(len(chosen),),
        seeds=1,
        draws={(len(chosen), 0): tuple(chosen)},
        test=tuple(_shuffle(seed, [e for e in test if _key(e.text) not in bodies])),
    )


@functools.lru_cache(maxsize=4)
def topic(seed: int = 0) -> DemoTask:
    """Which of 15 topics is this exchange filed under?

    Exchanges with the same question are on the same side of the split. Of each topic 60% may be drawn for training (the smallest
    topics have only 11 labels for a size of 20), and at most 60 of the rest are tested, so that trivia does not outweigh the others.
    """
    groups: dict[str, dict[str, list[Example]]] = defaultdict(lambda: defaultdict(list))
    for e in exchanges():
        text = f"{e.question}\n{e.answer}"
        example = Example(f"{e.topic}/{text}", text, e.topic, f"{text}\nTopic:")
        groups[e.topic][_key(e.question.split("\n")[0])].append(example)
    kept = {name: g for name, g in sorted(groups.items()) if sum(map(len, g.values())) >= _TOPIC_MIN}
    pool: dict[str, list[Example]] = {}
    test: list[Example] = []
    for name, by_question in kept.items():
        order = sorted(by_question, key=lambda q: share(seed, f"topic {name} {q}"))
        ranked = [e for q in order for e in by_question[q]]
        cut = round(_TOPIC_POOL * len(ranked))
        while cut < len(ranked) and ranked[cut] in by_question[_key(ranked[cut - 1].text.split("\n")[0])]:
            cut += 1  # all answers to a question stay together
        pool[name] = ranked[:cut]
        test += ranked[cut:][:_TOPIC_TEST]
    return DemoTask(
        name="topic",
        kind="label",
        says=f"which of {len(kept)} topics is this exchange filed under?",
        labels=tuple(kept),
        sizes=TOPIC_SIZES,
        seeds=SEEDS,
        draws=_draws(seed, pool, TOPIC_SIZES),
        test=tuple(_shuffle(seed, test)),
    )


def tasks(seed: int = 0) -> dict[str, DemoTask]:
    """The three tasks by name."""
    return {task.name: task for task in (question(seed), docstring(seed), topic(seed))}


def _marked(chat: Chat) -> Iterable[Example]:
    """The chat's messages of two words or more that end in one "?" or ".", with the transcript before the mark."""
    labels = {mark: label for label, mark in MARKS.items()}
    before: list[str] = []
    for i, (line, message) in enumerate(lines(chat.turns)):
        match = _ENDS.fullmatch(message)
        if match and " " in match["text"] and match["text"][-1] not in ".?!":
            context = ""
            for earlier in reversed(before):
                if len(context) + len(earlier) >= _CONTEXT_CHARS:
                    break
                context = earlier + "\n" + context
            prompt = context + line[: len(line) - len(message)] + match["text"]
            yield Example(f"{chat.id}/{i}", match["text"], labels[match["mark"]], prompt)
        before.append(line)


def _once(functions: list[Function]) -> list[Example]:
    return list(
        {_key(f.source): Example(f.id, f.source, f.summary, f'{f.source}\n"""') for f in functions}.values()
    )


def _key(text: str) -> str:
    """The key by which texts are equal: letters and digits in order, without case, spaces and marks."""
    return _NOT_WORD.sub("", text.lower())


def _shuffle(seed: int, examples: list[Example]) -> list[Example]:
    return sorted(examples, key=lambda e: share(seed, f"order {e.id} {e.text}"))


Draws = dict[tuple[int, int], tuple[Example, ...]]


def _draws(seed: int, pool: Mapping[str, list[Example]], sizes: tuple[int, ...]) -> Draws:
    """For every size and draw, up to `size` examples per class; a larger draw contains the smaller one of the same seed."""
    out: Draws = {}
    for draw in range(SEEDS):
        mixed = seed * SEEDS + draw
        ranked = [sorted(v, key=lambda e: share(mixed, f"draw {e.id}")) for v in pool.values()]
        for size in sizes:
            out[size, draw] = tuple(_shuffle(draw, [e for v in ranked for e in v[:size]]))
    return out
