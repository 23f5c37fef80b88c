"""Trains a student on a teacher's distribution over the next token, or over the classes of a text.

N tokens, T time, D width, V vocabulary, B texts, C classes. Distributions have a temperature, and the loss is multiplied by its square to
preserve the size of gradients (Hinton et al., 1503.02531). The teacher's logits are computed chunk by chunk, with the student's, and not
stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.base.model import BaseModel
from onebase.config import config
from onebase.errors import ConfigError
from onebase.modality.text.rows import HeadMatrix
from onebase.model.proj import AdapterRouting
from onebase.objective.base import IGNORE, Batch, Losses, Row, TrunkInput
from onebase.objective.cross_entropy import CHUNK, linear_cross_entropy, linear_loss
from onebase.objective.next_token import packed_batch
from onebase.objective.padding import states
from onebase.objective.pooled import How, one_text_batch, text_features

Direction = Literal["forward", "reverse"]


@config
class DistilConfig:
    """The teacher and the loss.

    teacher: a base (a folder, a store name, hf:...); adapter: one on it. level: `token` trains on the teacher's distributions, `sequence` on
    its generated text (1606.07947). temperature: softens both distributions. direction: `forward` KL(teacher || student) covers the whole
    distribution of the teacher, `reverse` KL(student || teacher) concentrates on its modes. hard: weight of cross-entropy on the rows
    themselves. hidden: weight of 1 - cosine between the mean states of a text (with a teacher that classifies). max_tokens, sample: limit
    and temperature of the teacher's generated text (0 is greedy).
    """

    teacher: str | None = None
    adapter: str | None = None
    level: Literal["token", "sequence"] = "token"
    temperature: float = 1.0
    direction: Direction = "forward"
    hard: float = 0.0
    hidden: float = 0.0
    max_tokens: int = 64
    sample: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"'distil.temperature' is {self.temperature}", "give a number above 0")
        if not 0 <= self.hard <= 1:
            raise ConfigError(f"'distil.hard' is {self.hard}", "give a share from 0 to 1")
        for name in ("hidden", "sample"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"'distil.{name}' is {getattr(self, name)}", "give a number of at least 0")
        if self.max_tokens < 1:
            raise ConfigError(f"'distil.max_tokens' is {self.max_tokens}", "give at least 1")


def kl(teacher_NV: Tensor, student_NV: Tensor, direction: Direction) -> Tensor:
    """KL of each row of log-probabilities, [N], in nats."""
    p_NV, q_NV = (teacher_NV, student_NV) if direction == "forward" else (student_NV, teacher_NV)
    return (p_NV.exp() * (p_NV - q_NV)).sum(-1)


def kl_slope(teacher_NV: Tensor, student_NV: Tensor, direction: Direction) -> Tensor:
    """Its gradient by the student's logits, [N, V]; exactly zero where both are equal."""
    if direction == "forward":
        return student_NV.exp() - teacher_NV.exp()
    gap_NV = student_NV - teacher_NV
    p_NV = student_NV.exp()
    return p_NV * (gap_NV - (p_NV * gap_NV).sum(-1, keepdim=True))


@dataclass(frozen=True)
class TeacherOutput:
    """A base with its adapter, as a source of distributions over tokens."""

    model: BaseModel
    routing: AdapterRouting | None = None

    def states(self, read: TrunkInput) -> Tensor:
        """Hidden states as input of the head's matrix, [B, T, D]."""
        h_BTD = self.model.hidden(read.ids_BT, read.cols, read.mask, routing=self.routing).hidden
        return self.model.text.ready(h_BTD)

    def head(self, batch: int, vocab: int) -> tuple[HeadMatrix, Tensor | None]:
        """Matrix [V, D] and bias [V] for logits of the first `vocab` tokens."""
        ((_, head),) = self.model.text.head_weights(self.routing, batch)
        bias_V = self.model.text.head.bias
        return head.first(vocab), None if bias_V is None else bias_V[:vocab]

    @property
    def softcap(self) -> float | None:
        return self.model.text.cfg.softcap


def token_kl(
    h_ND: Tensor,
    student: TeacherOutput,
    teacher: TeacherOutput,
    read: TrunkInput,
    used_BT: Tensor,
    how: DistilConfig,
    chunk: int = CHUNK,
) -> Tensor:
    """KL between both distributions at the positions `used` (bool), summed, in nats times temperature squared. Only the student gets a gradient.

    h: the student's `states` at these positions. Where one vocabulary is padded to more rows than the other, both are cut to the shorter.
    """
    B, T = len(read.ids_BT), how.temperature
    vocab = min(s.model.cfg.text.vocab_size for s in (student, teacher))
    with torch.no_grad():
        teacher_ND = teacher.states(read)[used_BT]
        other, other_V = teacher.head(B, vocab)
        other_VD = other.weight_VD.to(teacher_ND.dtype)
        other_V = None if other_V is None else other_V.to(teacher_ND.dtype)
    head, bias_V = student.head(B, vocab)

    def work(
        here: slice, h_cD: Tensor, w_VD: Tensor, b_V: Tensor | None, grads: bool
    ) -> tuple[Tensor, Tensor | None]:
        z_cV, slope_cV = _capped(F.linear(h_cD, w_VD, b_V), student.softcap)
        t_cV, _ = _capped(F.linear(teacher_ND[here], other_VD, other_V), teacher.softcap)
        t_cV, z_cV = (t_cV / T).log_softmax(-1), (z_cV / T).log_softmax(-1)
        nats = kl(t_cV, z_cV, how.direction).sum() * T**2
        if not grads:
            return nats, None
        d_cV = kl_slope(t_cV, z_cV, how.direction) * T
        return nats, (d_cV if slope_cV is None else d_cV * slope_cV).to(h_cD.dtype)

    return linear_loss(h_ND, head, bias_V, work, chunk)


def _capped(z: Tensor, cap: float | None) -> tuple[Tensor, Tensor | None]:
    """Logits after the soft-cap in fp32 or finer, and the derivative of the cap (None without one)."""
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    if cap is None:
        return z, None
    tanh = torch.tanh(z / cap)
    return cap * tanh, 1 - tanh.square()


@dataclass(frozen=True)
class TokenDistil:
    """KL to the teacher at each supervised token, mixed with cross-entropy on the tokens themselves by the share `hard`."""

    length: int
    teacher: TeacherOutput
    how: DistilConfig
    routing: AdapterRouting | None = None
    reserve: int = 0

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        return packed_batch("distil", rows, self.length)

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        read, targets_BT = batch.inputs["text"], batch.targets["distil"]
        student, used_BT, how = TeacherOutput(base, self.routing), targets_BT != IGNORE, self.how
        h_ND = student.states(read)[used_BT]
        total = torch.zeros((), device=h_ND.device)
        if how.hard < 1:
            total = total + (1 - how.hard) * token_kl(h_ND, student, self.teacher, read, used_BT, how)
        if how.hard > 0:
            weight_VD, bias_V = student.head(len(targets_BT), base.cfg.text.vocab_size)
            nll, _ = linear_cross_entropy(
                h_ND, weight_VD, targets_BT[used_BT], softcap=student.softcap, bias=bias_V
            )
            total = total + how.hard * nll
        return {"distil": (total, batch.counts["distil"])}


@dataclass(frozen=True)
class TeacherTarget:
    """A teacher's output for one text: log-probabilities [C] and the mean of its states [D]; and the number of the row's own label (IGNORE if it
    has none)."""

    logp_C: Tensor
    mean_D: Tensor | None = None
    label: int = IGNORE


@dataclass(frozen=True)
class SoftClassification:
    """KL to the teacher's class probabilities, mixed with cross-entropy on the row's own label, if any, by the share `hard`; plus `hidden` times
    1 - cosine of the mean states. A row is one text; `taught` has the teacher's target by text id."""

    head: str
    taught: Mapping[str, TeacherTarget]
    how: DistilConfig
    pooling: How = "last"
    routing: AdapterRouting | None = None
    reserve: int = 0

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        targets = [self.taught[row[0].id] for row in rows]
        batch = one_text_batch(rows, "distil", torch.stack([t.logp_C for t in targets]), len(rows))
        batch.targets["label"] = torch.tensor([t.label for t in targets])
        means = [t.mean_D for t in targets if t.mean_D is not None]
        if means:
            batch.targets["mean"] = torch.stack(means)
        return batch

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        read, T = batch.inputs["text"], self.how.temperature
        h_BTD = states(base, read, self.routing)
        z_BC = base.heads[self.head](text_features(h_BTD, read, self.pooling))
        label_B = batch.targets["label"]
        # A row without a label of its own is trained on the teacher's output only.
        hard_B = torch.where(label_B == IGNORE, 0.0, self.how.hard)
        wanted_BC = (batch.targets["distil"] / T).log_softmax(-1)
        kl_B = kl(wanted_BC, (z_BC / T).log_softmax(-1), self.how.direction) * T**2
        nll_B = F.cross_entropy(z_BC, label_B, ignore_index=IGNORE, reduction="none")
        total = ((1 - hard_B) * kl_B + hard_B * nll_B).sum()
        if "mean" in batch.targets:
            mean_BD = text_features(h_BTD, read, "mean")
            far_B = 1 - F.cosine_similarity(mean_BD, batch.targets["mean"], dim=-1)
            total = total + self.how.hidden * far_B.sum()
        return {"distil": (total, batch.counts["distil"])}
