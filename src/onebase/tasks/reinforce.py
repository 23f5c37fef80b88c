"""Task reinforce: completions that the base writes itself are judged by a reward, and better ones become likelier (GRPO, PPO)."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from onebase.adapt.config import AdapterConfig
from onebase.adapt.folder import AdapterParts, bound_to
from onebase.adapt.head import Head
from onebase.base.model import BaseModel
from onebase.data import read_rows
from onebase.data.bad_rows import places_of
from onebase.errors import UserError
from onebase.objective.policy import Policy, ReinforceConfig
from onebase.tasks.job import Adapting, Facts, data_facts
from onebase.tasks.learning import learn, learner, train_config
from onebase.tasks.ledgers import check_asked
from onebase.tasks.rewards import opened
from onebase.tasks.rollouts import Question, Rollouts, questions

RATES = {"lora": 3e-4, "soft": 1e-3, "prefix": 1e-3, "full": 1e-5}
"""AdamW's peak rate by method, where none is given."""

VALUE = "__value"
"""The name of PPO's value head on its base while it learns; no adapter keeps it."""


def by_steps(job: Adapting) -> AdapterParts:
    """Epochs over the prompts, each of them asked once an epoch; a rollout of `rows` prompts (the last one perhaps fewer) and `reinforce.group`
    completions of each is learnt from in `passes` x `parts` steps."""
    o, base, cfg = job.options, job.base, job.options.reinforce
    rows = read_rows(job.data, ())
    facts = data_facts(rows) | check_asked(job, rows, ((), lambda r: _shown(r["prompt"])))
    chats = any(not isinstance(r["prompt"], str) for r in rows)
    prompts = min(o.rows, len(rows))
    _check_parts(prompts * cfg.group, cfg)
    with learner(job) as found, opened(cfg.reward, base) as reward, _value_head(base.model, cfg) as head:
        for content in reward.facts.values():
            job.bind("reinforce.reward", cfg.reward, f"{content}{_function(cfg.reward)}")
        asked = questions(base, rows, places_of(rows))
        longest = found.before + max(len(q.tokens) for q in asked) + cfg.max_tokens
        name = VALUE if head else None
        source = Rollouts(
            base, asked, reward, cfg, prompts, o.seed, o.epochs, found.active, found.plain, name
        )
        train = train_config(o, source, longest, default_lr=RATES[job.method], rows_rate=found.rate)
        policy = Policy(cfg, source.rollouts, found.active, name, moved=source.moved)
        learnt = [*found.params, *(head.parameters() if head else ())]
        facts |= learn(job, policy, source, train, learnt, lambda _: source.scores())
        tensors = found.tensors()
        facts |= {f"reinforce.reward.{k}": (v, "hashed") for k, v in reward.facts.items()}
        facts |= {f"reinforce.reward.{k}": (v, "seen on this machine") for k, v in reward.seen.items()}
    made = AdapterConfig(method=job.method, task=job.task, base=bound_to(base), chats=chats, **found.fields)
    return job.parts(made, tensors, facts | _told(source, asked))


def _check_parts(completions: int, cfg: ReinforceConfig) -> None:
    if completions % cfg.parts:
        raise UserError(
            f"{completions} completions of a rollout cannot be cut into {cfg.parts} equal parts",
            f"set reinforce.parts to a divisor of rows x reinforce.group ({completions})",
        )


def _function(reward: str) -> str:
    """Which function of a file, as `:name`; nothing for a folder."""
    return f":{reward.rsplit(':', 1)[1]}" if ".py:" in reward else ""


@contextmanager
def _value_head(model: BaseModel, cfg: ReinforceConfig) -> Iterator[Head | None]:
    """PPO's head of one output, on the base inside the block; it starts from 0."""
    if cfg.how != "ppo":
        yield None
        return
    head = Head(model.trunk.cfg.width, 1).to(model.device)
    model.heads[VALUE] = head
    try:
        yield head
    finally:
        del model.heads[VALUE]


def _shown(prompt: object) -> str:
    return prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)


def _told(source: Rollouts, asked: list[Question]) -> Facts:
    """What the record keeps of the rollouts. The gap is |log p by the engine that wrote - log p by the forward that trains| of a token."""
    curve = source.curve
    if not curve:  # a run that was at its end already
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
            "tokens of completions, counted once a pass, of the rollouts in the curve",
        ),
        "reinforce.no_signal": (round(mean("no_signal"), 4), "share of groups whose rewards are all equal"),
        "reinforce.gap": (
            {"mean": mean("gap"), "most": max(c["gap_most"] for c in curve)},
            "nats between the engine's log-probability of a token and that of the forward that trains",
        ),
        "reinforce.prompt_tokens": (sum(len(q.tokens) for q in asked) / len(asked), "mean"),
    }
