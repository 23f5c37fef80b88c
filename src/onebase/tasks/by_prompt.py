"""Method prompt: a template, answers and examples are the adapter; nothing is learnt. For classify, texts calibrate it. E examples, C answers."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from onebase.codec.text.sample import chat_sample
from onebase.data import Rows
from onebase.data.bad_rows import places_of, refuse_bad
from onebase.draws import Draws
from onebase.errors import DataError, UserError
from onebase.methods.config import AdapterConfig
from onebase.methods.folder import AdapterParts, bound_to
from onebase.methods.prompt import ANSWER, KEY, PromptConfig, PromptOptions, ShotsConfig
from onebase.tasks.job import Adapting, Facts, data_facts
from onebase.tasks.ledgers import check_rows
from onebase.tasks.prompting import Prompter, asked, checked, scores_of, vectors

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Texts that say nothing (2102.09690, section 5); the last is left out where a base makes no token of it."""
COUNTED = 100
"""Rows at most on whose questions it is counted which examples the context has no room for."""
ENDS = 2
"""Tokens that are left free beside those of the longest answer known: its end, and one more."""


def columns(task: str, prompt: object, shots: ShotsConfig) -> tuple[str, ...]:
    """What rows have to have: the prompt's variables where it is of text, and the answers where they are examples."""
    if task == "chat" or not isinstance(prompt, str):
        return ("messages",) if task == "chat" else ()
    cfg = PromptConfig(template=prompt, shots=shots)
    answer = {"classify": "label", "complete": "completion"}[task] if shots.n else None
    own = {"text": "prompt"} if task == "complete" else {}
    return (*(own.get(n, n) for n in cfg.variables), *([answer] if answer else []))


def asks(task: str, prompt: object) -> tuple[str, ...]:
    """The columns of a row that are its question."""
    return columns(task, prompt, ShotsConfig())


@dataclass(frozen=True)
class _Made:
    """A prompt before it is calibrated, and the rows that were given."""

    cfg: PromptConfig
    rows: Rows
    vectors_ED: Tensor | None


def by_prompt(job: Adapting) -> AdapterParts:
    """The template, the answers and the examples as an adapter. Raises UserError for what does not fit together, DataError for rows."""
    made = _made(job)
    cfg, rows = made.cfg, made.rows
    facts: Facts = {"data.rows": (0, "a prompt learns from no labels")}
    if rows:
        labels = sorted({str(r["label"]) for r in rows}) if all("label" in r for r in rows) else ()
        facts = data_facts(rows, labels) | check_rows(job, says=_says(job.task, cfg))
    if _own(job).shots.n:
        facts |= _shots_facts(job, made)
    if job.task == "classify":
        cfg, more = _calibrated(job, made)
        facts |= more
    tensors = {} if made.vectors_ED is None else {KEY: made.vectors_ED}
    config = AdapterConfig(method="prompt", task=job.task, base=bound_to(job.base), prompt=cfg)
    return job.parts(config, tensors, facts)


def _own(job: Adapting) -> PromptOptions:
    assert isinstance(job.options.own, PromptOptions)
    return job.options.own


def _shots_facts(job: Adapting, made: _Made) -> Facts:
    """How many examples there are, and how many of those chosen the context has no room for, where the rows given are the questions."""
    cfg, some = made.cfg, made.rows[:COUNTED]
    prompter = Prompter(job.base, cfg, made.vectors_ED)
    if job.task == "chat":
        values = dict.fromkeys(cfg.variables, "x")
        # Without the answer at the end, which every example has.
        read = [prompter.talk(row["messages"][:-1], values) for row in some]
    else:
        own = {"text": "prompt"} if job.task == "complete" else {}
        read = prompter.texts([checked(cfg, {**r, **{k: r.get(c) for k, c in own.items()}}) for r in some])
    return {
        "shots.stored": (len(cfg.examples), "counted"),
        "shots.dropped": (
            sum(p.dropped for p in read),
            f"counted on the questions of {len(some)} rows: the context has no room for them",
        ),
    }


def forms(job: Adapting) -> list[str]:
    """The texts that would be read, for a plan: the examples by themselves where they get vectors, and what calibrates, with the first
    examples in the place of those that would be chosen."""
    made = _made(job, embed=False)
    if not made.rows:
        return []
    check_rows(job, says=(says := _says(job.task, made.cfg)))
    out = [says(r) for r in made.rows] if made.cfg.examples and made.cfg.shots.select == "similar" else []
    if job.task == "classify" and _own(job).compare.calibration in (None, "batch"):
        cfg = replace(made.cfg, shots=replace(made.cfg.shots, select="first"))
        out += [p.read for p in Prompter(job.base, cfg).texts([checked(cfg, r) for r in made.rows])]
    return out


def _made(job: Adapting, embed: bool = True) -> _Made:
    o, task = _own(job), job.task
    _check(job)
    template = o.prompt
    if task == "chat" and isinstance(template, str):  # "{text}" is the default, and means nothing here
        template = () if template == "{text}" else ({"role": "system", "content": template},)
    cfg = PromptConfig(
        template=template,
        answers=(o.answers or {}) if task == "classify" else {},
        mean=o.compare.mean,
        shots=o.shots,
    )
    if task == "classify" and not cfg.variables:
        raise UserError(f"prompt {o.prompt!r} does not say where the text goes", "write {text} in it")
    if task == "chat" and template and not o.shots.n:
        _talks(job, cfg)
    rows = job.rows
    if not o.shots.n:
        return _Made(cfg, rows, None)
    if len(rows) < o.shots.n:
        raise DataError(
            f"{o.shots.n} examples are wanted, {len(rows)} rows were given",
            "give --data FILE with at least as many, or fewer: -o shots.n=N",
        )
    stored = [rows[i] for i in _picked(rows, o.shots, job.options.seed)]
    make, room = _EXAMPLES[task](job, cfg)
    examples = _each(stored if len(stored) < len(rows) else rows, make)
    cfg = replace(cfg, examples=tuple(examples), room=max(map(room, examples)) + ENDS)
    found = None
    if embed and o.shots.select == "similar":
        keys = [
            (asked(e["messages"]),) if task == "chat" else tuple(e[n] for n in cfg.variables)
            for e in examples
        ]
        found = vectors(job.base, keys)
    return _Made(cfg, rows, found)


def _says(task: str, cfg: PromptConfig) -> Callable[[Mapping[str, Any]], str]:
    """The question of a row as a text."""
    if task == "chat":
        return lambda row: asked(row["messages"])
    names = asks(task, cfg.template)
    return lambda row: "\n".join(str(row[n]) for n in names)


def _check(job: Adapting) -> None:
    """Raises UserError for options that do not go with the task."""
    o, task = _own(job), job.task
    if task == "classify":
        if not o.answers or len(o.answers) < 2:
            raise UserError(
                "the prompt method needs `answers`", 'give for example answers={"yes": " yes", "no": " no"}'
            )
        if o.compare.calibration == "batch" and not job.rows:
            raise UserError(
                "nothing to calibrate on", "give texts (--data FILE), or -o compare.calibration=content_free"
            )
    elif o.answers:
        raise UserError(f"answers are compared by task classify, this is {task}", "leave `answers` out")
    if task != "chat" and not isinstance(o.prompt, str):
        raise UserError("a prompt of messages is for task chat", "give a text with {text} in it")
    if task != "classify":
        if o.shots.select == "balanced":
            raise UserError("rows without labels cannot be balanced", "give shots.select=random")
        if o.prompt == "{text}" and not o.shots.n:
            raise UserError("there is nothing to save", "give a prompt, or examples: -o shots.n=4 and data")
        if not o.shots.n and job.rows:
            raise UserError(
                "a prompt without examples takes nothing from data", "give -o shots.n=4, or no data"
            )


def _talks(job: Adapting, cfg: PromptConfig) -> None:
    """Render it once: a template that takes no system message says so now."""
    values = dict.fromkeys(cfg.variables, "x")
    shown = Prompter(job.base, cfg).talk([{"role": "user", "content": "x"}], values).read
    job.base.codec.chat_ids(shown)


def _picked(rows: Sequence[Mapping[str, Any]], shots: ShotsConfig, seed: int) -> list[int]:
    """Numbers of the rows that are stored: all where each question has its own examples."""
    every = list(range(len(rows)))
    if shots.select == "similar":
        return every
    if shots.select == "first":
        return every[: shots.n]
    every = Draws(seed, "shots").shuffled(every)
    if shots.select == "random":
        return every[: shots.n]
    # The first of each label, then the second of each: labels differ by one at most while all have rows.
    seen: dict[str, int] = {}
    turn = []
    for i in every:
        label = str(rows[i]["label"])
        turn.append((seen.get(label, 0), label, i))
        seen[label] = seen.get(label, 0) + 1
    return [i for _, _, i in sorted(turn)][: shots.n]


Make = Callable[[Mapping[str, Any]], dict[str, Any]]
Room = Callable[[Mapping[str, Any]], int]


def _sorted(job: Adapting, cfg: PromptConfig) -> tuple[Make, Room]:
    answers, tokenizer = cfg.answers, job.base.codec.tokenizer
    longest = max(len(tokenizer.encode(a)) for a in answers.values())

    def make(row: Mapping[str, Any]) -> dict[str, Any]:
        label = str(row["label"])
        if label not in answers:
            raise DataError(f"the label {label!r} has no answer", f"answers are for: {', '.join(answers)}")
        return {**checked(cfg, row), ANSWER: answers[label]}

    return make, lambda _: longest


def _continued(job: Adapting, cfg: PromptConfig) -> tuple[Make, Room]:
    encode = job.base.codec.tokenizer.encode
    return (
        lambda row: {**checked(cfg, {**row, "text": row.get("prompt")}), ANSWER: str(row["completion"])},
        lambda example: len(encode(example[ANSWER])),
    )


def _talked(job: Adapting, cfg: PromptConfig) -> tuple[Make, Room]:
    codec = job.base.codec

    def make(row: Mapping[str, Any]) -> dict[str, Any]:
        codec.tokens(chat_sample(row["messages"]))  # says what is wrong with them
        turns = [
            {"role": m["role"], "content": m["content"]} for m in row["messages"] if m["role"] != "system"
        ]
        if len(turns) < 2 or turns[-1]["role"] != "assistant":
            raise DataError("does not end in an answer of the assistant", "let it be the last message")
        return {"messages": turns}

    return make, lambda example: len(codec.tokenizer.encode(example["messages"][-1]["content"]))


_EXAMPLES = {"classify": _sorted, "complete": _continued, "chat": _talked}


def _each(rows: Sequence[Mapping[str, Any]], make: Make) -> list[dict[str, Any]]:
    out, bad = [], {}
    for i, row in enumerate(rows):
        try:
            out.append(make(row))
        except DataError as e:
            bad[i] = (e.cause, e.remedy)
    refuse_bad(bad, places_of(rows))
    return out


def _calibrated(job: Adapting, made: _Made) -> tuple[PromptConfig, Facts]:
    """The prompt with its bias, and facts of how it came."""
    cfg, rows, base = made.cfg, made.rows, job.base
    how = _own(job).compare.calibration or ("batch" if rows else "none")
    facts: Facts = {"prompt.calibration": (how, "stated by the user, or as there is data")}
    if how == "none":
        return cfg, facts
    if how == "batch":
        given = [checked(cfg, r) for r in rows]
    else:
        tokenizer = base.codec.tokenizer
        texts = [t for t in CONTENT_FREE if tokenizer.begun(tokenizer.encode(t))]
        given = [dict.fromkeys(cfg.variables, t) for t in texts]
    read = Prompter(base, cfg, made.vectors_ED).texts(given)
    logp_NC = scores_of(base, cfg, [p.read for p in read])
    # The paper on batch calibration takes the mean of log-probabilities, that on content-free texts of probabilities.
    # In fp64, and never as probabilities: that of a long answer is below what a number holds.
    logp_NC = logp_NC.double()
    bias_C = logp_NC.mean(0) if how == "batch" else logp_NC.logsumexp(0) - math.log(len(logp_NC))
    return replace(cfg, bias=dict(zip(cfg.answers, bias_C.tolist(), strict=True))), facts
