"""Task reinforce: reinforcement learning from a reward on the base's own completions (GRPO, PPO)."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from onebase.artifact.record import Origin
from onebase.base.head import Head
from onebase.base.model import BaseModel
from onebase.config import config
from onebase.data.labelled import Make
from onebase.errors import UserError
from onebase.methods.method import Learner, option
from onebase.objective.policy import Policy, ReinforceConfig
from onebase.rewards import checked, opened
from onebase.tasks.base import Look, Task, always
from onebase.tasks.fit import Fields, Lesson, Steps
from onebase.tasks.job import Adapting, Facts, data_facts
from onebase.tasks.judge import rewarded
from onebase.tasks.ledgers import check_rows
from onebase.tasks.preferences import prompt_problem
from onebase.tasks.reading import RowReader
from onebase.tasks.rollouts import RolloutPrompt, Rollouts, prompt_samples, questions

VALUE = "__value"
"""The name of PPO's value head on its base during training; no adapter contains it."""


@config
class ReinforceOptions:
    """Options of task reinforce."""

    reinforce: ReinforceConfig = option(ReinforceConfig(), "the reward and the algorithm")


def lesson(job: Adapting) -> Lesson:
    """Epochs over the prompts, each used once per epoch. A rollout has `batch_size` prompts (the last one perhaps fewer) with
    `reinforce.group` completions each, and is trained on in `passes` x `parts` steps."""
    o, base, cfg = job.options, job.base, job.options.of_task.reinforce
    rows = job.rows
    facts = data_facts(rows) | check_rows(job)
    chats = any(not isinstance(r["prompt"], str) for r in rows)
    prompts = min(o.batch_size, len(rows))
    _check_parts(prompts * cfg.group, cfg)

    def steps(learner: Learner, stack: ExitStack) -> Steps:
        reward = stack.enter_context(opened(cfg.reward, base))
        head = stack.enter_context(_value_head(base.model, cfg))
        for content in reward.facts.values():
            job.bind("reinforce.reward", cfg.reward, f"{content}{_function(cfg.reward)}")
        all_prompts = questions(rows)
        longest = learner.before + max(len(q.tokens) for q in all_prompts) + cfg.max_tokens
        name = VALUE if head else None
        source = Rollouts(
            base, all_prompts, reward, cfg, prompts, o.seed, o.epochs, learner.routing, learner.plain, name
        )

        def after() -> tuple[Facts, Fields]:
            hashed = {f"reinforce.reward.{k}": (v, "hashed") for k, v in reward.facts.items()}
            seen = {
                f"reinforce.reward.{k}": (v, f"{Origin.SYSTEM}, as the reward was first asked")
                for k, v in reward.seen.items()
            }
            return hashed | seen | _rollout_facts(source, all_prompts), {}

        return Steps(
            Policy(cfg, source.rollouts, learner.routing, name, moved=source.moved),
            source,
            longest,
            params=list(head.parameters()) if head else (),
            scores=lambda _: source.scores(),
            after=after,
        )

    return Lesson(facts, "rewards", steps, fields={"chats": chats})


def _check_parts(completions: int, cfg: ReinforceConfig) -> None:
    if completions % cfg.parts:
        raise UserError(
            f"{completions} completions of a rollout cannot be split into {cfg.parts} equal parts",
            f"set reinforce.parts to a divisor of batch_size x reinforce.group ({completions})",
        )


def _function(reward: str) -> str:
    """The function's name in a file, as `:name`; empty for a folder."""
    return f":{reward.rsplit(':', 1)[1]}" if ".py:" in reward else ""


@contextmanager
def _value_head(model: BaseModel, cfg: ReinforceConfig) -> Iterator[Head | None]:
    """PPO's value head with one output, on the base inside the block; it starts at 0."""
    if cfg.how != "ppo":
        yield None
        return
    head = Head(model.trunk.cfg.width, 1).to(model.device)
    model.heads[VALUE] = head
    try:
        yield head
    finally:
        del model.heads[VALUE]


def _rollout_facts(source: Rollouts, prompts: list[RolloutPrompt]) -> Facts:
    """Facts of the rollouts for the record. The gap of a token is |log p by the generating engine - log p by the training forward|."""
    curve = source.curve
    if not curve:  # a run that had already ended
        return {}

    written = sum(round(c["completions"]) for c in curve)

    def mean(name: str) -> float:
        return sum(c["completions"] * c[name] for c in curve) / written

    return {
        "reinforce.curve": (
            [{k: v if k == "reward" else float(f"{v:.6g}") for k, v in c.items()} for c in curve],
            "measured, one a rollout",
        ),
        "reinforce.completions": (written, "counted, of the rollouts in the curve"),
        "tokens.supervised": (
            round(written * mean("length")) * source.cfg.passes,
            "counted: tokens of completions once a pass, of the rollouts in the curve",
        ),
        "reinforce.no_signal": (
            round(mean("no_signal"), 4),
            "measured: share of groups whose rewards are all equal",
        ),
        "reinforce.gap": (
            {"mean": mean("gap"), "most": max(c["gap_most"] for c in curve)},
            "measured: nats between the engine's log-probability of a token and that of the forward that trains",
        ),
        "reinforce.prompt_tokens": (sum(len(q.tokens) for q in prompts) / len(prompts), "counted: the mean"),
    }


def _columns(look: Look) -> tuple[str, ...]:
    return ("prompt", *checked(look.options.of_task.reinforce.reward).columns)


def _samples(reader: RowReader) -> Make:
    how = reader.options.of_task.reinforce
    return prompt_samples(reader, how.reward, how.max_tokens)


TASK = Task(
    name="reinforce",
    columns=_columns,
    lesson=lesson,
    options=ReinforceOptions,
    methods={
        "prompt": "a prompt is not trained: write the wish into it (onebase chat)",
        "head": "a head generates no text; a head that rates answers is task reward",
    },
    writes=always,
    check=prompt_problem,
    samples=_samples,
    compared=("prompt",),
    predictions=rewarded,
    takes_judge=True,
    signal="rewards",
)
