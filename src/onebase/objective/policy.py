"""Trains a policy from rewards, by GRPO or PPO.

B rows, T time, D width, V vocabulary, N trained tokens, P prompts, G completions of a prompt. A row is one prompt and one completion; its
`Rollout` is looked up by id.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from onebase.base.model import BaseModel
from onebase.config import config
from onebase.errors import ConfigError, UserError
from onebase.model.proj import AdapterRouting
from onebase.objective.base import Batch, Losses, Row, count_sources
from onebase.objective.cross_entropy import token_nll
from onebase.objective.pooled import text_batch

SMALL = 1e-4
"""Added to the deviations by which advantages are divided."""

MOST = 1e18
"""Maximum of advantages and expected values: their squares are in the loss, and fp32 ends at 3e38."""


@config
class ReinforceConfig:
    """Options of task reinforce.

    how: "grpo" (the baseline of a completion is its group's mean, 2402.03300) or "ppo" (it is the output of a value head, 1707.06347).
    reward: `exact`, `number`, `format:REGEX`, `code`, `FILE.py:function`, or the folder of an adapter of task reward. group: completions per
    prompt. max_tokens, stop: limits of a completion. passes, parts: passes over the completions before new ones are sampled, and steps per
    pass. clip: how far the ratio of probabilities may move (0.2: from 0.8 to 1.2). kl: weight of the divergence from the plain base.

    advantages: "std" (minus the mean, divided by the deviation: of the group in GRPO, of all tokens in PPO) or "mean" (not divided). length:
    the weight of a token: "sequence" (completions have equal weights), "token" (tokens have equal weights, 2503.14476) or "constant"
    (1 / max_tokens, so that a long wrong completion is not cheaper per token). "mean" with "constant" is Dr. GRPO (2503.20783). gamma, lam,
    value: PPO's discount, GAE's lambda (1506.02438), and the weight of the value loss. success: the reward from which a completion counts
    as a success.
    """

    how: Literal["grpo", "ppo"] = "grpo"
    reward: str = "exact"
    group: int = 8
    max_tokens: int = 64
    stop: tuple[str, ...] = ()
    passes: int = 1
    parts: int = 1
    clip: float = 0.2
    kl: float = 0.04
    advantages: Literal["std", "mean"] = "std"
    length: Literal["sequence", "token", "constant"] = "sequence"
    gamma: float = 1.0
    lam: float = 0.95
    value: float = 0.5
    success: float = 1.0

    def __post_init__(self) -> None:
        least = {"group": 2 if self.how == "grpo" else 1, "max_tokens": 1, "passes": 1, "parts": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ConfigError(
                    f"'reinforce.{name}' is {getattr(self, name)}",
                    f"give at least {low}"
                    + (": completions are compared with each other" if low == 2 else ""),
                )
        inf = float("inf")
        for name in ("kl", "value"):
            if not 0 <= getattr(self, name) < inf:
                raise ConfigError(
                    f"'reinforce.{name}' is {getattr(self, name)}", "give a number of at least 0"
                )
        for name, high in (("clip", inf), ("gamma", 1.0), ("lam", 1.0)):
            value = getattr(self, name)
            if not 0 <= value <= high or (name == "clip" and not 0 < value < inf):
                raise ConfigError(
                    f"'reinforce.{name}' is {value}",
                    "give a number above 0" if name == "clip" else "give a number from 0 to 1",
                )


@dataclass(frozen=True)
class Rollout:
    """Values of a sampled completion of n tokens, each fp32 [n]: log-probabilities (nats) under the sampling weights (`old`) and under the plain
    base (`reference`, None without kl), the advantage of each token, and the target of PPO's value head (`expected`, None in GRPO)."""

    old: Tensor
    reference: Tensor | None
    advantage: Tensor
    expected: Tensor | None = None


@dataclass
class UpdateStats:
    """Distance of the policy from the sampling policy, over the tokens since the last `empty`: `clipped` of `tokens` were beyond the clip, the
    ratio was at most `most` away from 1, and the divergence from the base sums to `kl` nats."""

    tokens: int = 0
    clipped: int = 0
    most: float = 0.0
    kl: float = 0.0

    def empty(self) -> None:
        self.tokens = self.clipped = 0
        self.most = self.kl = 0.0


@dataclass(frozen=True)
class Policy:
    """PPO's clipped surrogate on given advantages, plus the divergence from the base (k3: exp(d) - d - 1, where d is the base's
    log-probability minus the policy's; Schulman, 2020), and PPO's value loss. One loss, a weighted sum over tokens.

    value_head: the name of the head on the states, without a gradient into them.
    """

    cfg: ReinforceConfig
    rollouts: Mapping[str, Rollout]
    routing: AdapterRouting | None = None
    value_head: str | None = None
    reserve: int = 0
    moved: UpdateStats = field(default_factory=UpdateStats)

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        texts = [row[0] for row in rows]
        read = text_batch(texts)
        shape = read.ids_BT.shape
        learnt_BT = torch.zeros(shape, dtype=torch.bool)
        names = ("weight", "old", "reference", "advantage", "expected")
        columns = {name: torch.zeros(shape) for name in names}
        for b, t in enumerate(texts):
            at_T = torch.from_numpy(t.loss[1:]).nonzero()[:, 0]  # the position before each trained token
            learnt_BT[b, at_T] = True
            columns["weight"][b, at_T] = self._weight(len(at_T))
            rollout = self.rollouts[t.id]
            for name in names[1:]:
                value_n = getattr(rollout, name)
                if value_n is not None:
                    columns[name][b, at_T] = value_n
        count = int(learnt_BT.sum()) if self.cfg.length == "token" else len(rows)
        return Batch(
            inputs={"text": read},
            targets={"learnt": learnt_BT, **columns},
            counts={"policy": count},
            ids=tuple(t.id for t in texts),
            sources=count_sources(rows),
        )

    def _weight(self, n: int) -> float:
        return {"token": 1.0, "sequence": 1 / n, "constant": 1 / self.cfg.max_tokens}[self.cfg.length]

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        cfg, read = self.cfg, batch.inputs["text"]
        learnt_BT = batch.targets["learnt"]
        h_BTD = base.hidden(read.ids_BT, read.cols, routing=self.routing).hidden
        logp_N = token_logps(base, h_BTD, read.ids_BT, learnt_BT, self.routing)
        of = {k: t[learnt_BT] for k, t in batch.targets.items() if k != "learnt"}
        ratio_N = (logp_N - of["old"]).exp()
        near_N = ratio_N.clamp(1 - cfg.clip, 1 + cfg.clip)
        loss_N = -torch.minimum(ratio_N * of["advantage"], near_N * of["advantage"])
        if cfg.kl:
            kl_N = k3(logp_N, of["reference"])
            self.moved.kl += float(kl_N.detach().sum())
            loss_N = loss_N + cfg.kl * kl_N
        if self.value_head is not None:
            value_N = base.heads[self.value_head](h_BTD[learnt_BT].detach())[:, 0]
            loss_N = loss_N + cfg.value * 0.5 * (value_N - of["expected"]).square()
        away_N = (ratio_N.detach() - 1).abs()
        self.moved.tokens += len(away_N)
        self.moved.clipped += int((away_N > cfg.clip).sum())
        self.moved.most = max(self.moved.most, float(away_N.max()))
        return {"policy": ((of["weight"] * loss_N).sum(), batch.counts["policy"])}


def k3(logp: Tensor, reference: Tensor) -> Tensor:
    """An unbiased estimate of KL(policy, reference) from tokens sampled by the policy, never below 0: exp(d) - d - 1, d = reference - logp."""
    d = reference - logp
    return d.exp() - d - 1


def token_logps(
    base: BaseModel, h_BTD: Tensor, ids_BT: Tensor, learnt_BT: Tensor, routing: AdapterRouting | None
) -> Tensor:
    """Log-probabilities (nats, fp32 [N]) of the tokens after the positions in `learnt_BT`, row by row, differentiable."""
    ends = base.text
    ((_, head),) = ends.head_weights(routing, len(h_BTD))  # one adapter on all rows, or none
    next_N = ids_BT.roll(-1, 1)[learnt_BT]
    h_ND = ends.ready(h_BTD)[learnt_BT]
    return -token_nll(h_ND, head, next_N, softcap=ends.cfg.softcap, bias=ends.head.bias)


def group_advantages(reward_PG: Tensor, how: str) -> Tensor:
    """GRPO: rewards minus their group's mean, fp64 [P, G]; with "std" divided by the group's deviation (n - 1). A group of equal rewards always
    gives exactly 0."""
    return _standard(reward_PG.double(), how, 1, correction=1)


def _standard(x_PG: Tensor, how: str, dim: int, correction: int) -> Tensor:
    """Numbers minus their mean along `dim`, with "std" divided by their deviation plus SMALL, fp64. Computed relative to the first one, in units
    of the largest distance: a rounded mean of equal numbers may differ from them (0.2 is not exact in binary), small differences of large
    numbers are preserved, and no square overflows."""
    half_PG = x_PG / 2  # the difference of two numbers may be beyond fp64
    off_PG = half_PG - half_PG.narrow(dim, 0, 1)
    unit_P1 = off_PG.abs().amax(dim, keepdim=True)
    off_PG = off_PG / unit_P1.where(unit_P1 > 0, 1.0)
    less_PG = off_PG - off_PG.mean(dim, keepdim=True)
    if how == "mean":
        return less_PG * unit_P1 * 2
    deviation_P1 = less_PG.square().sum(dim, keepdim=True).div(max(1, x_PG.shape[dim] - correction)).sqrt()
    small_P1 = SMALL / 2 / unit_P1.where(unit_P1 > 0, 1.0)
    return less_PG / (deviation_P1 + small_P1)


def bounded(x: Tensor) -> Tensor:
    """fp32, as the loss reads it. Raises UserError for numbers beyond MOST, whose squares overflow fp32."""
    if not bool((x.abs() <= MOST).all()):
        raise UserError(
            f"an advantage is {float(x[(x.abs() > MOST) | x.isnan()][0]):g}, the maximum is {MOST:g}",
            "scale the rewards down, or set reinforce.how=grpo and reinforce.advantages=std",
        )
    return x.float()


def generalised_advantages(reward: float, value_n: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """PPO: advantages and value targets, fp64 [n] each, of a completion whose last token gets the reward. value_n: the value head's output
    before each token. GAE (1506.02438)."""
    value_n = value_n.double()
    out_n = torch.zeros_like(value_n)
    later, after = 0.0, 0.0
    for t in range(len(value_n) - 1, -1, -1):
        now = float(value_n[t])
        surprise = (reward if t == len(value_n) - 1 else 0.0) + gamma * after - now
        later = surprise + gamma * lam * later
        out_n[t], after = later, now
    return out_n, out_n + value_n


def normalised(advantages: Sequence[Tensor], how: str) -> list[Tensor]:
    """PPO: advantages of all tokens of the completions minus their mean, with "std" divided by their deviation, fp64."""
    whole_N = _standard(torch.cat(list(advantages)).double(), how, 0, correction=0)
    return list(torch.split(whole_N, [len(a_n) for a_n in advantages]))
