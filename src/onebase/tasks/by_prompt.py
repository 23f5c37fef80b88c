"""Method prompt: a template, answers and examples are the adapter; nothing is trained. Compared answers are calibrated on texts.

E examples, C answers, N texts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from onebase.data import Rows
from onebase.data.bad_rows import places_of, refuse_bad
from onebase.draws import Draws
from onebase.engine.features import text_tokens
from onebase.engine.prompter import Prompter, vectors
from onebase.engine.prompting import scores_of
from onebase.errors import DataError, UserError
from onebase.methods.config import AdapterConfig
from onebase.methods.folder import AdapterParts, bound_to
from onebase.methods.prompt import KEY, PromptConfig, PromptOptions, ShotsConfig
from onebase.modality.text.long import Long
from onebase.modality.text.sample import Tokens
from onebase.tasks.base import Maker
from onebase.tasks.job import Adapting, Facts, data_facts
from onebase.tasks.ledgers import check_rows
from onebase.tasks.prompts import Example, PromptForm, Row
from onebase.tasks.reading import long_of

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Content-free texts (2102.09690, section 5); the last is left out where the tokenizer makes no token of it."""
COUNTED = 100
"""Rows, at most, on whose questions dropped examples are counted."""
ENDS = 2
"""Tokens reserved besides those of the longest known answer: its end, and one more."""


def maker(form: PromptForm) -> Maker:
    """How a task whose prompts have this form builds its adapters."""
    return Maker(lambda job: by_prompt(job, form), form.columns, form.asks)


def by_prompt(job: Adapting, form: PromptForm) -> AdapterParts:
    """The template, the answers and the examples as an adapter. Raises UserError for options that do not fit together, DataError for rows."""
    cfg, rows, base = _with_examples(job, form), job.rows, job.base
    facts: Facts = {"data.rows": (0, "counted: a prompt learns from no labels")}
    if rows:
        labels = sorted({str(r["label"]) for r in rows}) if all("label" in r for r in rows) else ()
        facts = data_facts(rows, labels) | check_rows(job, says=partial(form.question, cfg))
    calibrates = _calibration(job, cfg, form)
    job.reads(lambda: _read(job, form, cfg, calibrates[1]))
    similar = cfg.examples and cfg.shots.select == "similar"
    vectors_ED = vectors(base, [form.key(cfg, e) for e in cfg.examples]) if similar else None
    prompter = Prompter(base, cfg, vectors_ED)
    if cfg.shots.n:
        facts |= _shots_facts(prompter, rows, form)
    if form.compares:
        facts |= {
            "prompt.calibration": (
                calibrates[0],
                job.origin("compare.calibration")
                if _own(job).compare.calibration
                else "chosen: as there are rows",
            )
        }
        cfg = _calibrated(prompter, *calibrates)
    tensors = {} if vectors_ED is None else {KEY: vectors_ED}
    return job.parts(
        AdapterConfig(method=job.method, task=job.task, base=bound_to(base), prompt=cfg), tensors, facts
    )


def _own(job: Adapting) -> PromptOptions:
    assert isinstance(job.options.of_method, PromptOptions)
    return job.options.of_method


def _read(job: Adapting, form: PromptForm, cfg: PromptConfig, calibrates: Sequence[Row]) -> list[Tokens]:
    """The texts that would be read, for a plan: the questions alone where they get vectors, and the calibration texts. These have the first
    examples in place of those that would be chosen, once for each answer that must be read after them."""
    similar = cfg.examples and cfg.shots.select == "similar"
    out = text_tokens(job.base, [form.question(cfg, r) for r in job.rows], None) if similar else []
    if calibrates:
        first = replace(cfg, shots=replace(cfg.shots, select="first"))
        prompter = Prompter(job.base, first)
        tails = job.base.codec.tokenizer.encode_batch(list(cfg.answers.values()), follows="text")
        times = 1 if all(len(t) <= 1 for t in tails) else len(tails)
        read = [p.read for p in prompter.texts(prompter.windows(calibrates)[0])]
        out += [t for t in text_tokens(job.base, read, None) for _ in range(times)]
    return out


def _shots_facts(prompter: Prompter, rows: Rows, form: PromptForm) -> Facts:
    """The number of examples, and of chosen ones that do not fit in the context, with the given rows as questions."""
    cfg, some = prompter.cfg, rows[:COUNTED]
    if form.chat:
        values = dict.fromkeys(cfg.variables, "x")
        # Without the final answer, which every example has.
        read = [prompter.talk(row["messages"][:-1], values) for row in some]
    else:
        read = prompter.texts([form.values(cfg, r) for r in some])
    return {
        "shots.stored": (len(cfg.examples), "counted"),
        "shots.dropped": (
            sum(p.dropped for p in read),
            f"counted on the questions of {len(some)} rows: the context has no room for them",
        ),
    }


def _with_examples(job: Adapting, form: PromptForm) -> PromptConfig:
    """The prompt before calibration. Raises UserError for options that do not fit together, DataError for rows."""
    o, rows = _own(job), job.rows
    _check(job, form)
    template = o.prompt
    if form.chat and isinstance(template, str):  # "{text}" is the default, and means nothing here
        template = () if template == "{text}" else ({"role": "system", "content": template},)
    answers = (o.answers or {}) if form.compares else {}
    long: Long = long_of(job.options) if form.compares else "refuse"
    cfg = PromptConfig(template=template, answers=answers, mean=o.compare.mean, shots=o.shots, long=long)
    if form.compares and not cfg.variables:
        raise UserError(f"prompt {o.prompt!r} has no variable for the text", "write {text} in it")
    if form.chat and template and not o.shots.n:
        # Render it once: a chat template that accepts no system message fails now.
        shown = Prompter(job.base, cfg).talk(
            [{"role": "user", "content": "x"}], dict.fromkeys(cfg.variables, "x")
        )
        job.base.codec.chat_ids(shown.read)
    if not o.shots.n:
        return cfg
    if len(rows) < o.shots.n:
        raise DataError(
            f"shots.n asks for {o.shots.n} examples, the data has {len(rows)} rows",
            "give --data FILE with at least as many rows, or lower -o shots.n=N",
        )
    stored = [rows[i] for i in _picked(rows, o.shots, job.options.seed)]
    example, answer_size = form.examples(job.base, cfg)
    examples = _each(stored if len(stored) < len(rows) else rows, example)
    return replace(cfg, examples=tuple(examples), room=max(map(answer_size, examples)) + ENDS)


def _check(job: Adapting, form: PromptForm) -> None:
    """Raises UserError for options that do not fit the form."""
    o = _own(job)
    if form.compares:
        if not o.answers or len(o.answers) < 2:
            raise UserError(
                "method prompt needs `answers`", 'for example answers={"yes": " yes", "no": " no"}'
            )
        if o.compare.calibration == "batch" and not job.rows:
            raise UserError(
                "there are no texts to calibrate on",
                "give texts (--data FILE), or set -o compare.calibration=content_free",
            )
    elif o.answers:
        raise UserError(f"task {job.task} compares no answers", "remove `answers`, or use task classify")
    if not form.chat and not isinstance(o.prompt, str):
        raise UserError("a prompt of messages is for task chat", "give a text with {text} in it")
    if not form.compares:
        if o.shots.select == "balanced":
            raise UserError("shots.select=balanced needs rows with labels", "use shots.select=random")
        if o.prompt == "{text}" and not o.shots.n:
            raise UserError("there is nothing to save", "give a prompt, or examples: -o shots.n=4 and data")
        if not o.shots.n and job.rows:
            raise UserError("a prompt without examples uses no data", "set -o shots.n=4, or give no data")


def _picked(rows: Sequence[Row], shots: ShotsConfig, seed: int) -> list[int]:
    """Numbers of the rows to store: all of them where each question selects its own examples."""
    every = list(range(len(rows)))
    if shots.select == "similar":
        return every
    if shots.select == "first":
        return every[: shots.n]
    every = Draws(seed, "shots").shuffled(every)
    if shots.select == "random":
        return every[: shots.n]
    # The first of each label, then the second of each: counts of labels differ by one at most while all have rows.
    seen: dict[str, int] = {}
    turn = []
    for i in every:
        label = str(rows[i]["label"])
        turn.append((seen.get(label, 0), label, i))
        seen[label] = seen.get(label, 0) + 1
    return [i for _, _, i in sorted(turn)][: shots.n]


def _each(rows: Sequence[Row], make: Example) -> list[dict[str, Any]]:
    out, bad = [], {}
    for i, row in enumerate(rows):
        try:
            out.append(make(row))
        except DataError as e:
            bad[i] = (e.cause, e.remedy)
    refuse_bad(bad, places_of(rows))
    return out


def _calibration(job: Adapting, cfg: PromptConfig, form: PromptForm) -> tuple[str, list[dict[str, str]]]:
    """How the answers are calibrated, and the rows that do it."""
    how = _own(job).compare.calibration or ("batch" if job.rows else "none")
    if how == "none" or not form.compares:
        return "none", []
    if how == "batch":
        return how, [form.values(cfg, r) for r in job.rows]
    tokenizer = job.base.codec.tokenizer
    texts = [t for t in CONTENT_FREE if tokenizer.begun(tokenizer.encode(t))]
    return how, [dict.fromkeys(cfg.variables, t) for t in texts]


def _calibrated(prompter: Prompter, how: str, rows: Sequence[Mapping[str, str]]) -> PromptConfig:
    """The prompt with its bias."""
    cfg = prompter.cfg
    if how == "none":
        return cfg
    logp_NC = scores_of(prompter.base, cfg, [p.read for p in prompter.texts(prompter.windows(rows)[0])])
    # The paper on batch calibration averages log-probabilities, the one on content-free texts probabilities.
    # In fp64, and never as probabilities: that of a long answer underflows.
    logp_NC = logp_NC.double()
    bias_C = logp_NC.mean(0) if how == "batch" else logp_NC.logsumexp(0) - math.log(len(logp_NC))
    return replace(cfg, bias=dict(zip(cfg.answers, bias_C.tolist(), strict=True)))
