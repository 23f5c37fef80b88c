"""Masked patches of pictures and sounds: most are hidden, the trunk reads those that are left, and a small decoder fills in the others (MAE, 2111.06377;
of log-mel frames Audio-MAE, 2207.06405). Text is not read. B rows, T visible patches of a row, N patches, P values of a patch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from onebase.base.config import BaseConfig
from onebase.base.model import BaseModel
from onebase.base.patch_decoder import PatchDecoder, Places, normalised, places_of
from onebase.base.patches import Patches, nothing
from onebase.draws import Draws
from onebase.modality.text.sample import Media
from onebase.model.mask import Cols
from onebase.objective.base import Batch, Losses, Row, TrunkInput, count_sources


@dataclass(frozen=True)
class MaskedPatches:
    """Squared error of hidden patches, a mean over their values and over the hidden patches. rate: share that is hidden; of two patches or more, one at
    least is hidden and one visible. normalise: patches are predicted with mean 0 and deviation 1. groups: the number of each codec's feed-forward group."""

    head: str
    groups: Mapping[str, int]
    rate: float = 0.75
    normalise: bool = True
    seed: int = 0
    reserve: int = 0

    @staticmethod
    def of(
        head: str, base: BaseConfig, rate: float = 0.75, normalise: bool = True, seed: int = 0
    ) -> "MaskedPatches":
        """For the codecs of a base."""
        names = base.trunks["text"].groups
        codecs = {k: c for k, c in base.codecs.items() if k != "text"}
        groups = {k: names.index(getattr(c, "group", "")) if names else 0 for k, c in codecs.items()}
        return MaskedPatches(head, groups, rate, normalise, seed)

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        chosen = [
            [(m, self._visible(len(m), draws)) for piece in row for m in piece.media]
            for row, draws in ((r, Draws(self.seed, "masked_patches", first + b)) for b, r in enumerate(rows))
        ]
        T = max(1, *(sum(int(v.sum()) for _, v in row) for row in chosen))
        doc, kind = np.full((len(rows), T), -1), np.zeros((len(rows), T), np.int64)
        found: dict[str, _Read] = {name: _Read() for name in self.groups}
        for b, row in enumerate(chosen):
            at = 0
            for n, (media, visible_N) in enumerate(row):
                stop = at + int(visible_N.sum())
                doc[b, at:stop], kind[b, at:stop] = n, self.groups[media.kind]
                found[media.kind].add(media, visible_N, b * T + at)
                at = stop
        ids, pos = torch.zeros(len(rows), T, dtype=torch.long), torch.zeros(len(rows), T, dtype=torch.long)
        cols = Cols(pos, torch.from_numpy(doc), kind=torch.from_numpy(kind))
        joined = {name: r.joined() for name, r in found.items() if r.patch}
        targets = {f"{name}.{k}": t for name, parts in joined.items() for k, t in parts.items()}
        inserted = {name: _inserted(parts) for name, parts in joined.items()}
        counts = {
            f"patches.{name}": int((joined[name]["state"] < 0).sum()) if name in joined else 0
            for name in self.groups
        }
        ids_of = tuple(piece.id for row in rows for piece in row)
        read = TrunkInput(ids, cols, media=inserted)
        return Batch({"text": read}, targets, counts, ids_of, count_sources(rows))

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        return {
            f"patches.{name}": (errors_N.sum(), batch.counts[f"patches.{name}"])
            for name, errors_N in self.errors(base, batch).items()
        }

    def errors(self, base: BaseModel, batch: Batch) -> dict[str, Tensor]:
        """Of each hidden patch, by codec, fp32 [n]."""
        read, decoder = batch.inputs["text"], base.heads[self.head]
        assert isinstance(decoder, PatchDecoder)
        h_BTD = base.hidden(read.ids_BT, read.cols, read.mask, media=read.media).hidden
        out = {}
        for name, module in base.patches.items():
            if f"{name}.patch" in batch.targets:
                places, patch_NP = places_of(batch.targets, name), batch.targets[f"{name}.patch"]
            else:
                none = nothing(module, h_BTD.device)
                places = Places(none.place_N, none.place_N, none.at_NK, none.place_N)
                patch_NP = none.patch_NP
            wanted_nP = patch_NP[places.state_N < 0]
            wanted_nP = normalised(wanted_nP) if self.normalise else wanted_nP.float()
            out[name] = (decoder(name, h_BTD, places) - wanted_nP).square().mean(-1)
        return out

    def _visible(self, count: int, draws: Draws) -> np.ndarray:
        """Which patches are read, bool [N]."""
        hidden = min(count - 1, max(1, round(self.rate * count)))
        visible_N = np.ones(count, np.bool_)
        visible_N[draws.permutation(count)[:hidden]] = False
        return visible_N


@dataclass
class _Read:
    """The patches of one codec, collected from the media of a batch."""

    patch: list[Tensor] = field(default_factory=list)
    at: list[Tensor] = field(default_factory=list)
    state: list[Tensor] = field(default_factory=list)

    def add(self, media: Media, visible_N: np.ndarray, place: int) -> None:
        patch_NP, at_NK = media.content.load()
        state_N = np.where(visible_N, place + np.cumsum(visible_N) - 1, -1)
        for parts, values in ((self.patch, patch_NP), (self.at, at_NK), (self.state, state_N)):
            parts.append(torch.from_numpy(values))

    def joined(self) -> dict[str, Tensor]:
        sizes = torch.tensor([len(s) for s in self.state])
        index = torch.cat([torch.arange(n) for n in sizes.tolist()])
        owner = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        whole = {k: torch.cat(getattr(self, k)) for k in ("patch", "at", "state")}
        return whole | {"owner": owner, "index": index}


def _inserted(parts: Mapping[str, Tensor]) -> Patches:
    """The visible ones, as the trunk reads them."""
    seen = parts["state"] >= 0
    clean = torch.ones(int(seen.sum()))
    return Patches(parts["patch"][seen], parts["at"][seen], clean, parts["state"][seen])
