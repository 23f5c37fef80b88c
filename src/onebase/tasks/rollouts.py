"""Rollouts: completions sampled from the current weights, with rewards, advantages and log-probabilities. n tokens, T time, D width.

A rollout is a group of completions for each of some prompts. It is sampled at its first step with the weights of that step, from seeds of
(seed, rollout, number): the same weights give the same completions. Later steps of the rollout train on the same completions. A run that
resumes in the middle of a rollout samples it again, with the weights that it has then.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.config_plain import digest, to_dict
from onebase.data.bad_rows import Rows, Samples
from onebase.data.labelled import Make
from onebase.data.lines import Problem
from onebase.data.order import ExampleOrder, one_by_one, span
from onebase.draws import Draws
from onebase.engine.decoder import generate
from onebase.engine.prompt_tokens import Prompt
from onebase.engine.request import Completion
from onebase.engine.sampler import Sampling
from onebase.engine.scoring import batch_tokens, batches
from onebase.modality.text.sample import Tokens
from onebase.model.proj import AdapterRouting
from onebase.objective.policy import (
    ReinforceConfig,
    Rollout,
    UpdateStats,
    bounded,
    generalised_advantages,
    group_advantages,
    k3,
    normalised,
    token_logps,
)
from onebase.objective.pooled import text_batch
from onebase.rewards import Reward, RewardInput, checked
from onebase.tasks.reading import RowReader, each_row

STREAMS = 64
"""Completions generated at a time."""


@dataclass(frozen=True)
class RolloutPrompt:
    """The prompt of a row: as tokens without a loss, and as the row that a reward reads."""

    tokens: Tokens
    row: Mapping[str, Any]
    where: str

    def answer(self, completion: str) -> RewardInput:
        return RewardInput(self.row["prompt"], completion, self.row, self.where)


def prompt_samples(reader: RowReader, reward: str, max_tokens: int) -> Make:
    """The prompt of each row as tokens without a loss, with room for `max_tokens` of a completion. Refused are prompts that the chat template
    does not accept, and rows that the reward cannot judge."""
    check = checked(reward).check

    def one(row: Mapping[str, Any]) -> Samples | Problem:
        ids = np.asarray(prompt_ids(reader.base, row["prompt"]), np.int32)
        if len(ids) + max_tokens > reader.tokens:
            return Problem(
                f"has {len(ids)} tokens, which with {max_tokens} of the completion exceed the limit of {reader.tokens}",
                "shorten it, or lower max_tokens",
            )
        if (found := check(row)) is not None:
            return Problem(*found)
        return (Tokens(ids, np.zeros(len(ids), bool), source="reinforce"),)

    return each_row(one)


def questions(rows: Rows) -> list[RolloutPrompt]:
    """The prompts of rows, with numbers from 0 as ids."""
    return [
        RolloutPrompt(tokens, row, where)
        for (tokens,), row, where in zip(rows.named(first=0), rows, rows.places, strict=True)
    ]


def prompt_ids(base: LoadedBase, prompt: Prompt) -> list[int]:
    """Token ids of a prompt: of a text, or of messages by the chat template."""
    if isinstance(prompt, str):
        return base.codec.tokenizer.encode(prompt, bos=True)
    return base.codec.chat_ids(prompt)


@dataclass
class Rollouts:
    """The order of rows. The objective looks completions up in `rollouts`; `curve` has one dict of statistics per rollout.

    epochs: how often each prompt is used. routing: applies the trained adapter in a forward. plain: a context in which the base is as before
    training (`Learner.plain`). value_head: the name of PPO's.
    """

    base: LoadedBase
    all_prompts: Sequence[RolloutPrompt]
    reward: Reward
    cfg: ReinforceConfig
    prompts: int
    seed: int
    epochs: int
    routing: AdapterRouting | None
    plain: Callable[[], AbstractContextManager[None]]
    value_head: str | None = None
    rollouts: dict[str, Rollout] = field(default_factory=dict)
    moved: UpdateStats = field(default_factory=UpdateStats)
    curve: list[dict[str, float]] = field(default_factory=list)
    ahead = False  # rows depend on the weights: the loop requests them when the step begins

    def __post_init__(self) -> None:
        self._number = -1
        self._written: list[Tokens] = []

    @cached_property
    def digest(self) -> str:
        """Hash of the prompts in order and of the config. (The reward enters the identity by its content.)"""
        return digest(
            {
                "prompts": self._plan.digest,
                "config": to_dict(self.cfg) | {"reward": None},
                "prompts_a_rollout": self.prompts,
            }
        )

    @cached_property
    def _plan(self) -> ExampleOrder:
        return ExampleOrder(
            one_by_one([q.tokens for q in self.all_prompts]), self.prompts, self.seed, self.epochs
        )

    @property
    def batch_size(self) -> int:
        """Completions per step; the last rollout may have fewer."""
        return self.prompts * self.cfg.group // self.cfg.parts

    @property
    def total(self) -> int:
        """Completions of all steps, each counted once per pass."""
        return self.cfg.passes * self.cfg.group * self.epochs * len(self.all_prompts)

    @property
    def steps(self) -> int:
        """Steps of all rollouts."""
        last = self._plan.steps - 1
        return self.cfg.passes * (last * self.cfg.parts + self._parts(last))

    def _parts(self, number: int) -> int:
        """Steps of a pass over a rollout, each with at least one completion."""
        prompts = span(number, self.prompts, self._plan.total)
        return min(self.cfg.parts, len(prompts) * self.cfg.group)

    def rows(self, step: int) -> list[list[Tokens]]:
        """The completions of a step: a part of its rollout, which is sampled if it is not the current one."""
        each = self.cfg.passes * self.cfg.parts
        number = min(step // each, self._plan.steps - 1)
        if number != self._number:
            self._write(number)
        parts = self._parts(number)
        turn, part = divmod(step - number * each, parts)
        order = Draws(self.seed, "parts", number, turn).permutation(len(self._written))
        return [[self._written[i]] for i in np.array_split(order, parts)[part]]

    def scores(self) -> dict[str, float]:
        """Statistics for callbacks: of the current rollout, and of the policy's updates since the last call. They enter the curve."""
        now, m = self.curve[-1], self.moved
        now["clipped"] = max(now.get("clipped", 0.0), m.clipped / max(1, m.tokens))
        now["ratio"] = max(now.get("ratio", 0.0), m.most)
        m.empty()
        return dict(now)

    def _write(self, number: int) -> None:
        """Sample completions, score them, and compute their log-probabilities by the training forward."""
        cfg, G = self.cfg, self.cfg.group
        prompts = [self.all_prompts[int(row[0].id)] for row in self._plan.rows(number) for _ in range(G)]
        given = [q.tokens.ids.tolist() for q in prompts]
        seeds = Draws(self.seed, "completions", number).seeds(len(prompts))
        each = [
            Sampling(max_tokens=cfg.max_tokens, temperature=1.0, seed=s, stop=cfg.stop, logprobs=0)
            for s in seeds
        ]
        found = generate(self.base, given, each, self.routing, batch=STREAMS)
        self._written = [
            _joined(ids, c, f"{number}:{i}") for i, (ids, c) in enumerate(zip(given, found, strict=True))
        ]
        old, values = self._read(self.routing)
        with self.plain():
            rewards = self.reward.scores([q.answer(c.text) for q, c in zip(prompts, found, strict=True)])
            reference = self._read(None)[0] if cfg.kl else None
        reward_PG = torch.tensor(rewards, dtype=torch.float64).view(-1, G)
        advantages, expected = self._advantages(reward_PG, values, old)
        self.rollouts.clear()
        for i, t in enumerate(self._written):
            self.rollouts[t.id] = Rollout(
                old[i],
                reference[i] if reference else None,
                bounded(advantages[i]),
                bounded(expected[i]) if expected else None,
            )
        self._number = number
        self._note(reward_PG, found, old, reference)

    def _advantages(
        self, reward_PG: Tensor, values: list[Tensor], old: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor] | None]:
        cfg = self.cfg
        if cfg.how == "grpo":
            each = group_advantages(reward_PG, cfg.advantages).flatten()
            return [a.expand(len(o)) for a, o in zip(each, old, strict=True)], None
        pairs = [
            generalised_advantages(float(r), v_n, cfg.gamma, cfg.lam)
            for r, v_n in zip(reward_PG.flatten(), values, strict=True)
        ]
        return normalised([a for a, _ in pairs], cfg.advantages), [e for _, e in pairs]

    @torch.no_grad()
    def _read(self, routing: AdapterRouting | None) -> tuple[list[Tensor], list[Tensor]]:
        """For each completion the log-probabilities [n] by the training forward, and the values [n] of the value head (empty without one)."""
        model, device = self.base.model, self.base.model.device
        logps: list[Tensor] = [torch.empty(0)] * len(self._written)
        values = list(logps)
        for part in batches([len(t) for t in self._written], batch_tokens(device)):
            texts = [self._written[i] for i in part]
            read = text_batch(texts)
            ids_BT = read.ids_BT.to(device)
            loss_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
            for b, t in enumerate(texts):
                loss_BT[b, : len(t) - 1] = torch.from_numpy(t.loss[1:])
            h_BTD = model.hidden(ids_BT, read.cols.to(device), routing=routing).hidden
            sizes = loss_BT.sum(1).tolist()
            logp_N = token_logps(model, h_BTD, ids_BT, loss_BT, routing).cpu()
            for i, logp_n in zip(part, torch.split(logp_N, sizes), strict=True):
                logps[i] = logp_n
            if self.value_head is not None:
                value_N = model.heads[self.value_head](h_BTD[loss_BT])[:, 0].cpu()
                for i, value_n in zip(part, torch.split(value_N, sizes), strict=True):
                    values[i] = value_n
        return logps, values

    def _note(
        self,
        reward_PG: Tensor,
        found: Sequence[Completion],
        old: list[Tensor],
        reference: list[Tensor] | None,
    ) -> None:
        engine_N = torch.tensor([x for c in found for x in c.logprobs])
        gap = (torch.cat(old) - engine_N).abs()
        now = {
            "rollout": float(self._number),
            "completions": float(len(found)),
            "reward": mean(reward_PG.flatten().tolist()),  # exact: equal rewards give that value
            "success": float((reward_PG >= self.cfg.success).double().mean()),
            "length": len(engine_N) / len(found),
            "ended": sum(c.finish == "stop" for c in found) / len(found),
            "no_signal": float((reward_PG == reward_PG[:, :1]).all(1).double().mean()),
            "gap": float(gap.mean()),
            "gap_most": float(gap.max()),
        }
        if reference:
            now["kl"] = float(k3(torch.cat(old), torch.cat(reference)).mean())
        self.curve.append(now)


def _joined(prompt: Sequence[int], c: Completion, name: str) -> Tokens:
    """Prompt and completion as one sample, with the loss on the completion."""
    ids = np.asarray([*prompt, *c.ids], np.int32)
    return Tokens(ids, np.arange(len(ids)) >= len(prompt), name, "reinforce")
