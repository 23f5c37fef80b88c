"""Trains image classification, by a head on the pooled hidden state. B images, T vectors of an image, D width, P pooled features, C classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.base.head import Read
from onebase.base.model import BaseModel
from onebase.errors import UserError
from onebase.modality.image.config import ImageCodecConfig
from onebase.modality.image.modules import ImageModule
from onebase.modality.image.pixels import pixels
from onebase.model.mask import Cols
from onebase.model.proj import AdapterRouting
from onebase.objective.base import Batch, Losses, Row, TrunkInput, count_sources
from onebase.objective.pooled import narrowed


@dataclass(frozen=True)
class ImageClassification:
    """Cross-entropy of the label. A row represents one image: it has as many tokens as the image has vectors, and an id, by which `files` has
    its file and `targets` its class number. Images are read when a batch is built, never all at once."""

    head: str
    files: dict[str, Path]
    targets: dict[str, int]
    codec: ImageCodecConfig
    pooling: Read = "last"
    routing: AdapterRouting | None = None
    reserve: int = 0

    def batch(self, rows: Sequence[Row], first: int) -> Batch:
        ids = tuple(row[0].id for row in rows)
        read = TrunkInput(
            pixels([self.files[i] for i in ids], self.codec), Cols.simple(len(rows), len(rows[0][0]))
        )
        targets = {"label": torch.tensor([self.targets[i] for i in ids])}
        return Batch({"image": read}, targets, {"label": len(rows)}, ids, count_sources(rows))

    def losses(self, base: BaseModel, batch: Batch) -> Losses:
        hidden_BTD = base.states("image", batch.inputs["image"].ids_BT, routing=self.routing).hidden
        z_BC = base.heads[self.head](picture_features(base.image, hidden_BTD, self.pooling))
        loss = F.cross_entropy(z_BC, batch.targets["label"], reduction="sum")
        return {"label": (loss, batch.counts["label"])}


def no_vector() -> UserError:
    """The error for pooling "vector", which exists for texts only."""
    return UserError("pooling 'vector' is for texts", "use last, mean, both, all or auto for images")


def picture_features(ends: ImageModule, hidden_BTD: Tensor, pooling: Read) -> Tensor:
    """Features of images, fp32 [B, P]: "last" and "cls" are the image's own state (its class token, or the codec's attention pooling), "mean"
    the mean over its patches, "both" the two, "all" those and each channel's maximum over its patches. Raises UserError for "vector"."""
    if pooling == "vector":
        raise no_vector()
    patches_BTD = hidden_BTD[:, ends.front :].float()
    mean_BD = patches_BTD.mean(1)
    own_BD = mean_BD if ends.class_token is None else hidden_BTD[:, 0]
    own_BD = own_BD if ends.pool is None else ends.pooled(hidden_BTD)
    all_BP = torch.cat((own_BD.float(), mean_BD, patches_BTD.amax(1)), -1)
    return narrowed(all_BP, "last" if pooling == "cls" else pooling)


def pooled_patches(hidden_TD: Tensor, pooling: Read) -> Tensor:
    """Features of an image that is read as patches, fp32 [1, P]; its own state is their mean. Raises UserError for "vector"."""
    if pooling == "vector":
        raise no_vector()
    mean_D = hidden_TD.mean(0)
    all_1P = torch.cat((mean_D, mean_D, hidden_TD.amax(0)))[None].float()
    return narrowed(all_1P, "last" if pooling == "cls" else pooling)
