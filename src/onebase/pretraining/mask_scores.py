"""The score of promptable segmentation on held-out documents: the mean IoU after one click."""

from functools import partial

import torch

from onebase.base.folder import LoadedBase
from onebase.base.masks import MaskHead, Prompts
from onebase.data.sources import Document, MediaFile
from onebase.draws import Draws
from onebase.evaluation.bootstrap import Score, mean_score
from onebase.modality.image.pixels import prepared, whole_picture
from onebase.objective.cutouts import Cutouts, Encoded, Pictures
from onebase.objective.segment import central_click, overlap, resized
from onebase.pretraining.heldout import Heldout

TOGETHER = 4
"""Documents whose cut-outs meet in their pictures."""


@torch.no_grad()
def one_click(base: LoadedBase, held: Heldout, name: str) -> dict[str, Score]:
    """By source: of each document once, clicked at the centre of its object, at the resolution that the base reads. Cut-outs are composed in the same
    way in every call. The documents are those that an even share of the tokens pays for."""
    codec, head = whole_picture(base.model.cfg.image), base.model.heads[name]
    assert isinstance(head, MaskHead)
    cutouts, scores = Cutouts(name, codec), {}
    for source, documents in held.documents.items():
        count = held.tokens // max(1, len(held.documents)) // codec.patches
        chosen = [_pictures(d) for d in documents[: max(1, count)]]
        found: list[float] = []
        for i in range(0, len(chosen), TOGETHER):
            examples = cutouts.examples(chosen[i : i + TOGETHER], Draws("held-out masks", i))
            pixels = torch.stack([prepared(e.picture, codec) for e in examples]).to(base.model.device)
            prompts = Prompts.of([central_click(e.mask) for e in examples]).to(base.model.device)
            z_BSS, _ = head.masks(base.model, pixels, prompts, None)
            true_BSS = torch.stack([resized(e.mask, codec.side) for e in examples]).to(z_BSS.device) > 0.5
            found += overlap(z_BSS > 0, true_BSS[:, : z_BSS.shape[1], : z_BSS.shape[2]]).tolist()
        if found:
            scores[source] = mean_score("iou", found)
    return scores


def _pictures(document: Document) -> Pictures:
    return Pictures(document.id, tuple(Encoded(m.digest, partial(_read, m)) for m in document.media))


def _read(file: MediaFile) -> tuple[bytes, str]:
    return file.data, file.name
