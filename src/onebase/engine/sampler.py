"""Samples the next token. B rows, V vocabulary.

The draws of a request depend only on its seed: one number per step from its own generator, mapped to a token by inverse transform sampling.
So the same request gives the same tokens alone and in any batch, on any device.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from onebase.engine.constrain import Constraint
from onebase.errors import UserError

_CHUNK = 128
_COLDEST = 1e-6  # dividing by a smaller temperature overflows in fp32; the choice is then greedy anyway


@dataclass(frozen=True)
class Sampling:
    """Sampling options of one request. Raises UserError for a value out of range.

    max_tokens: new tokens at most. temperature: 0 is greedy. top_p: sample from the smallest set of most likely tokens with this probability.
    top_k: sample from the k most likely tokens (0: all). min_p: least probability of a token, as a share of the most likely one's. The filters apply
    in the order top_k, top_p, min_p, after the temperature. seed: for repeatable sampling (None: different each time). stop: strings that end the
    text and are not part of it. logprobs: also return log-probabilities, of the chosen token and of this many most likely ones (None: none).
    constraint: the format of the text (not with stop, which would cut it).
    """

    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        object.__setattr__(self, "stop", stop)
        _whole("max_tokens", self.max_tokens, 0)
        _whole("top_k", self.top_k, 0)
        if self.logprobs is not None:
            _whole("logprobs", self.logprobs, 0)
        if self.seed is not None and (isinstance(self.seed, bool) or not isinstance(self.seed, int)):
            raise UserError(f"seed is {self.seed!r}", "give a whole number, or omit it")
        _between("temperature", self.temperature, 0.0, 100.0)
        _between("top_p", self.top_p, 0.0, 1.0)
        _between("min_p", self.min_p, 0.0, 1.0)
        if self.top_p == 0.0:
            raise UserError("top_p is 0, which excludes every token", "give a share above 0, at most 1")
        if any(not isinstance(s, str) or not s for s in stop):
            raise UserError(f"stop is {stop!r}", "give strings of at least one character")
        if stop and self.constraint is not None:
            raise UserError(
                "stop strings would cut a constrained answer",
                "leave out stop: a constrained answer ends when it is complete",
            )

    @property
    def cuts(self) -> bool:
        """Whether unlikely tokens are filtered out."""
        return self.top_p < 1.0 or self.top_k > 0 or self.min_p > 0.0


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{name} is {value!r}", f"give a whole number of at least {least}")


def _between(name: str, value: object, low: float, high: float) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:  # type: ignore[arg-type,operator]
        raise UserError(f"{name} is {value!r}", f"give a number from {low:g} to {high:g}")


class Sampler:
    """Chooses tokens for the rows of a batch, one `Sampling` and one random generator per row."""

    def __init__(
        self,
        samplings: Sequence[Sampling],
        device: torch.device,
        draws: Sequence[random.Random] | None = None,
    ) -> None:
        self._samplings, self._device = list(samplings), device
        self._draws = list(draws) if draws is not None else [random.Random(s.seed) for s in samplings]
        warm = [i for i, s in enumerate(samplings) if s.temperature > 0]
        self._warm = warm
        self._all = len(warm) == len(samplings)
        self._index = torch.tensor(warm, device=device)
        chosen = [samplings[i] for i in warm]
        self._cuts = any(s.cuts for s in chosen)
        self._temperature = self._column([max(s.temperature, _COLDEST) for s in chosen])
        self._top_p = self._column([s.top_p if s.top_p < 1.0 else math.inf for s in chosen])
        self._top_k = self._column([float(s.top_k) if s.top_k else math.inf for s in chosen])
        self._min_p = self._column([s.min_p for s in chosen])

    def _column(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)[:, None]

    def rows(self, index: Sequence[int]) -> "Sampler":
        """The sampler of a subset of the rows, with the same generators."""
        return Sampler([self._samplings[i] for i in index], self._device, [self._draws[i] for i in index])

    def __call__(self, logits_BV: Tensor) -> Tensor:
        """int64 [B]: one token for each row of fp32 logits. Raises UserError when the logits are not finite."""
        best_B, ids_B = _likeliest(logits_BV)
        if not bool(best_B.isfinite().all()):
            raise UserError(
                "the base computed logits that are not finite",
                "its weights may be damaged: run `onebase verify`, or use fp32",
            )
        if not self._warm:
            return ids_B
        z_RV = (logits_BV if self._all else logits_BV[self._index]) - best_B[self._index, None]
        drawn_R = self._draw(z_RV / self._temperature)
        return drawn_R if self._all else ids_B.index_copy(0, self._index, drawn_R)

    def _draw(self, z_RV: Tensor) -> Tensor:
        p_RV = self._cut(z_RV) if self._cuts else z_RV.softmax(-1)
        sums_RV = p_RV.double().cumsum(-1)
        total_R1 = sums_RV[:, -1:].contiguous()
        draws = [[self._draws[i].random()] for i in self._warm]
        u_R1 = torch.tensor(draws, dtype=torch.float64, device=z_RV.device)
        # Below the total even after rounding, so that the chosen token has a probability above 0.
        at_R1 = torch.minimum(u_R1 * total_R1, torch.nextafter(total_R1, torch.zeros_like(total_R1)))
        return torch.searchsorted(sums_RV, at_R1, right=True).squeeze(-1)

    def _cut(self, z_RV: Tensor) -> Tensor:
        """Probabilities in the order of ids, zero for filtered tokens: rows without filters draw as they would alone."""
        z_RV, order_RV = z_RV.sort(dim=-1, descending=True, stable=True)
        rank_V = torch.arange(z_RV.shape[-1], device=z_RV.device)
        p_RV = z_RV.masked_fill(rank_V >= self._top_k, -math.inf).softmax(-1)
        before_RV = p_RV.cumsum(-1) - p_RV  # 0 for the most likely token, which is always kept
        p_RV = p_RV * ((before_RV < self._top_p) & (p_RV >= self._min_p * p_RV[:, :1]))
        return torch.zeros_like(p_RV).scatter(-1, order_RV, p_RV)


def _likeliest(logits_BV: Tensor) -> tuple[Tensor, Tensor]:
    """The maximum of each row and its first index, [B] each; NaN counts as highest.

    In two steps if possible: a reduction that returns the index is many times slower than one that returns only the value.
    """
    B, V = logits_BV.shape
    if V % _CHUNK or not logits_BV.is_contiguous():
        best_B, ids_B = logits_BV.max(-1)
        return best_B, ids_B
    chunks_BCK = logits_BV.view(B, -1, _CHUNK)
    best_B, chunk_B = chunks_BCK.amax(-1).max(-1)
    place_B = chunks_BCK[torch.arange(B, device=logits_BV.device), chunk_B].max(-1).indices
    return best_B, chunk_B * _CHUNK + place_B
