"""Images and sounds as features, by a base that reads them as patches. N files, D width, T patches of the largest."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.base.patches import Patches
from onebase.modality.media import MEDIA, coordinates
from onebase.model.mask import Cols, mixed
from onebase.model.proj import AdapterRouting


def media_states(
    base: LoadedBase, kind: str, files: Sequence[str | Path], routing: AdapterRouting | None
) -> list[Tensor]:
    """The states of the patches of each file, read alone without any text, fp32 [t, D] each. Raises DataError naming a file, KeyError for a base
    without patches of this kind."""
    media, model = MEDIA[kind], base.model
    cfg = model.patches[media.codec].cfg
    read = [(media.shape(f, cfg, str(f)), media.patches(f, cfg, str(f))) for f in files]
    T = max(len(patch_NP) for _, patch_NP in read)
    names = model.trunk.cfg.groups
    doc = torch.full((len(files), T), -1)
    place = []
    for b, (_, patch_NP) in enumerate(read):
        doc[b, : len(patch_NP)] = 0
        place.append(torch.arange(len(patch_NP)) + b * T)
    group = names.index(cfg.group) if names else 0
    cols = Cols(torch.zeros_like(doc), doc, doc, torch.where(doc < 0, 0, group)).to(model.device)
    at_NK = torch.cat([torch.from_numpy(coordinates(shape)) for shape, _ in read])
    patch_NP = torch.cat([p for _, p in read])
    inserted = Patches(patch_NP, at_NK, torch.ones(len(at_NK)), torch.cat(place)).to(model.device)
    h_BTD = model.hidden(cols.pos, cols, mixed(), media={media.codec: inserted}, routing=routing).hidden
    return [h_BTD[b, : len(p)].float() for b, (_, p) in enumerate(read)]
