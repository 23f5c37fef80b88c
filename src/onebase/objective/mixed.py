"""Next tokens of text and clean patches of media, learnt in one row. B rows, T time, N patches, P values of a patch, D width.

Text is predicted token by token; a picture or a sound that is to be made is noised as a whole, z = t x + (1 - t) noise, and its clean patches are
predicted, with the loss of flow matching, mean((x' - x)^2) / (1 - t)^2 (JiT, 2511.13720; Transfusion, 2408.11039). Each loss is a mean over its
own tokens of the global batch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from onebase.base.config import BaseConfig
from onebase.base.model import BaseModel
from onebase.base.patches import Patches, nothing
from onebase.draws import Draws
from onebase.modality.patches.modules import PatchModule
from onebase.modality.text.sample import Media, Tokens
from onebase.model.mask import Cols, mixed
from onebase.model.proj import AdapterRouting
from onebase.objective.base import IGNORE, Batch, Losses, Row, TrunkInput, count_sources
from onebase.objective.flow_config import FlowConfig as FlowConfig
from onebase.objective.next_token import pack_rows, states_loss

BESIDE = "beside_media"
"""The loss of the text of documents with media, where it is one of its own."""
NEAREST = 0.05
"""1 - t is never taken for less: close to the clean picture the velocity would be anything."""


@dataclass(frozen=True)
class Mixed:
    """groups: the number of each codec's feed-forward group. time: of the flow (None: drawn). beside: weight of the text of documents with media, as a
    loss of its own, averaged over its own tokens (None: it is averaged together with all text, in which few tokens count little)."""

    length: int
    groups: Mapping[str, int]
    flow: FlowConfig = field(default_factory=FlowConfig)
    seed: int = 0
    routing: AdapterRouting | None = None
    reserve: int = 0
    time: float | None = None
    beside: float | None = None

    @staticmethod
    def of(
        base: BaseModel | BaseConfig,
        length: int,
        flow: FlowConfig | None = None,
        seed: int = 0,
        routing: AdapterRouting | None = None,
    ) -> "Mixed":
        """For the codecs of a base."""
        cfg = base if isinstance(base, BaseConfig) else base.cfg
        names, patches = cfg.trunks["text"].groups, {k: c for k, c in cfg.codecs.items() if k != "text"}
        groups = {n: names.index(getattr(c, "group", "")) if names else 0 for n, c in patches.items()}
        return Mixed(length, groups, flow or FlowConfig(), seed, routing)

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        draws = [Draws(self.seed, "flow", first + b) for b in range(len(rows))]
        rows = [[self._turned(p, d) for p in row] for row, d in zip(rows, draws, strict=True)]
        ids, targets, pos, doc = pack_rows(rows, self.length)
        block, kind = np.full_like(pos, -1), np.zeros_like(pos)
        noisy, mixed_in = np.zeros_like(pos, dtype=bool), np.zeros_like(pos, dtype=bool)
        found: dict[str, list[_Noised]] = {name: [] for name in self.groups}
        for b, row in enumerate(rows):
            at = blocks = 0
            for piece in row:
                for media in piece.media:
                    start, stop = at + media.start, at + media.stop
                    pos[b, start:stop] = pos[b, start]
                    pos[b, stop : at + len(piece)] -= len(media) - 1
                    block[b, start:stop], kind[b, start:stop] = blocks, self.groups[media.kind]
                    noisy[b, start:stop] = media.noise
                    blocks += 1
                    found[media.kind].append(self._noised(media, draws[b], b * self.length + start))
                mixed_in[b, at : at + len(piece)] = bool(piece.media)
                at += len(piece)
        none = not any(found.values())
        whole = Cols(*map(torch.from_numpy, (pos, doc)))
        if not none:
            whole = Cols(whole.pos, whole.doc, *map(torch.from_numpy, (block, kind, noisy)))
        inserted = {name: _joined(parts) for name, parts in found.items() if parts}
        learnt = {name: [p for p in parts if p.learnt] for name, parts in found.items()}
        counts = {f"flow.{name}": sum(len(p.t_N) for p in parts) for name, parts in learnt.items()}
        goals = {
            f"flow.{name}.{k}": v for name, parts in learnt.items() if parts for k, v in _goals(parts).items()
        }
        texts = {"next_token": targets}
        if self.beside is not None:
            texts = {
                "next_token": np.where(mixed_in, IGNORE, targets),
                BESIDE: np.where(mixed_in, targets, IGNORE),
            }
        return Batch(
            inputs={
                "text": TrunkInput(torch.from_numpy(ids), whole, None if none else mixed(), media=inserted)
            },
            targets={name: torch.from_numpy(each) for name, each in texts.items()} | goals,
            counts={name: int((each != IGNORE).sum()) for name, each in texts.items()} | counts,
            ids=tuple(piece.id for row in rows for piece in row),
            sources=count_sources(rows),
        )

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        read = batch.inputs["text"]
        h_BTD = base.hidden(read.ids_BT, read.cols, read.mask, media=read.media, routing=self.routing).hidden
        out: Losses = {}
        for name, weight in (("next_token", 1.0), (BESIDE, self.beside or 1.0)):
            if (targets_BT := batch.targets.get(name)) is not None:
                count = batch.counts[name]
                total = (
                    states_loss(base, h_BTD, targets_BT, count, self.routing) if count else 0 * h_BTD.sum()
                )
                out[name] = (total if weight == 1.0 else weight * total, count)
        for name, module in base.patches.items():
            key = f"flow.{name}"
            goal = [batch.targets.get(f"{key}.{k}") for k in ("clean", "t", "place")]
            sums_N = flow_losses(module, h_BTD, *goal)
            out[key] = (self.flow.weight * sums_N.sum(), batch.counts[key])
        return out

    def direction(self, piece: Tokens, number: int) -> Tokens:
        """The piece as a row of this number would train it."""
        return self._turned(piece, Draws(self.seed, "flow", number))

    def _turned(self, piece: Tokens, draws: Draws) -> Tokens:
        """The piece as it is trained on this time: read or generated, with a prompt or without."""
        if not piece.media:
            return piece
        turn, bare = draws.uniform(2).tolist()
        if turn < self.flow.generate:
            piece = generated(piece)
        made = next((m for m in piece.media if m.noise), None)
        return piece if made is None or bare >= self.flow.drop else unprompted(piece, made)

    def _noised(self, media: Media, draws: Draws, place: int) -> "_Noised":
        """The patches as they are read, and what they are."""
        patch_NP, at_NK = media.content.load()
        clean_NP = torch.from_numpy(patch_NP)
        if media.noise:
            normal = float(_normal(draws))
            t = self.time if self.time is not None else _logistic(self.flow.mean + self.flow.std * normal)
        else:
            hit, amount = draws.uniform(2).tolist()
            t = 1.0 - amount * self.flow.noise if hit < self.flow.damage else 1.0
        noise = torch.Generator().manual_seed(draws.seeds(1)[0])
        z_NP = clean_NP if t == 1.0 else t * clean_NP + (1 - t) * torch.randn(clean_NP.shape, generator=noise)
        n = len(media)
        places = torch.arange(place, place + n)
        return _Noised(clean_NP, z_NP, torch.from_numpy(at_NK), torch.full((n,), t), places, media.noise)


@dataclass(frozen=True)
class _Noised:
    clean_NP: Tensor
    z_NP: Tensor
    at_NK: Tensor
    t_N: Tensor
    place_N: Tensor
    learnt: bool


def _joined(parts: Sequence[_Noised]) -> Patches:
    each = ([getattr(p, k) for p in parts] for k in ("z_NP", "at_NK", "t_N", "place_N"))
    return Patches(*map(torch.cat, each))


def _goals(parts: Sequence[_Noised]) -> dict[str, Tensor]:
    names = {"clean": "clean_NP", "t": "t_N", "place": "place_N"}
    return {k: torch.cat([getattr(p, name) for p in parts]) for k, name in names.items()}


def flow_losses(
    module: PatchModule,
    h_BTD: Tensor,
    clean_NP: Tensor | None,
    t_N: Tensor | None,
    place_N: Tensor | None,
) -> Tensor:
    """Of each patch that is learnt, fp32 [N]; of none, where there are none, so that the head has a gradient of zero."""
    if clean_NP is None or t_N is None or place_N is None:
        found = nothing(module, h_BTD.device)
        clean_NP, t_N, place_N = found.patch_NP, found.t_N, found.place_N
    made_NP = module.predict(h_BTD.reshape(-1, h_BTD.shape[-1])[place_N], t_N)
    return (made_NP - clean_NP).square().mean(-1) / (1 - t_N).clamp(min=NEAREST).square()


def generated(piece: Tokens) -> Tokens:
    """A piece that is one image or sound and then text, turned round: first token, text, the media to be generated, last token. Where a piece ends with
    media, those are generated in their place. Any other as it is."""
    if not piece.media or any(m.noise for m in piece.media):
        return piece
    last = piece.media[-1]
    if last.stop + 2 >= len(piece):  # nothing reads it
        loss = piece.loss.copy()
        loss[last.start - last.opening : last.start], loss[last.stop] = True, False
        return replace(piece, loss=loss, media=(*piece.media[:-1], replace(last, noise=True)))
    media = piece.media[0]
    begin, end = media.start - media.opening, media.stop + 1  # opening to end mark
    if len(piece.media) > 1 or begin != 1 or end + 1 >= len(piece):
        return piece
    order = np.r_[0:1, end : len(piece) - 1, begin:end, len(piece) - 1 : len(piece)]
    start = media.start + len(piece) - 1 - end
    loss = piece.loss[order]
    loss[start - media.opening : start] = True  # that media follows is a prediction, too
    loss[start + len(media)] = False  # behind noise
    return replace(piece, ids=piece.ids[order], loss=loss, media=(replace(media, start=start, noise=True),))


def unprompted(piece: Tokens, media: Media) -> Tokens:
    """The piece without what stands between its first token and the media's opening."""
    gone = media.start - media.opening - 1
    if gone <= 0:
        return piece

    def less(x: np.ndarray) -> np.ndarray:
        return np.concatenate((x[:1], x[1 + gone :]))

    kept = tuple(replace(m, start=m.start - gone) for m in piece.media if m.start >= media.start)
    return replace(piece, ids=less(piece.ids), loss=less(piece.loss), media=kept)


def _normal(draws: Draws) -> Tensor:
    """A normal number."""
    u = torch.from_numpy(draws.uniform(1)).clamp(1e-9, 1 - 1e-9)
    return torch.erfinv(2 * u - 1)[0] * 2**0.5


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))
