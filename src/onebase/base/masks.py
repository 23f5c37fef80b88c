"""Promptable segmentation on an image trunk: points and boxes become tokens behind the patches, and each patch gives the mask of its own pixels.

A point is embedded as a patch that is centred on it: the stem's product with the pixels around it, the position table between the patches,
and a learned vector for what it is (a click on the object, a click beside it, a corner of a box). So prompts and patches are in one space, and
any image trunk reads them. With `detail` convolutions beside the trunk draw masks at the resolution of pixels (`mask_detail`). What prompts say about each pixel (how near a click is, inside the box, how alike its colour is to the one clicked on)
is added to the patches by a matrix of its own, as Segment Anything adds a mask (2304.02643) and RITM its clicks (2102.06583). B masks, C channels, T vectors of an image, Q prompts of a mask, D width, p pixels of a patch's side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.base.head import Head, HeadConfig, LayerConfig
from onebase.base.mask_detail import Detail
from onebase.base.model import BaseModel
from onebase.modality.image.modules import ImageModule
from onebase.model.mask import Cols
from onebase.model.proj import AdapterRouting

OBJECT, BESIDE, FIRST, LAST = range(4)
"""What a prompt is: a click on the object, a click that is not on it, the upper left and the lower right corner of a box."""
NONE = -1
DENSE = 4
"""Numbers for each pixel: near a click on the object, near a click beside it, inside the box, of the colour that was clicked on."""
NEAR, ALIKE = 0.05, 0.25
"""Within which share of the picture a pixel is near a click, and within which difference of normalised values a colour is alike."""

Prompt = Sequence[tuple[float, float, int]]
"""The prompts of one mask: x and y as shares of the picture's width and height, and what it is."""


@dataclass(frozen=True)
class Prompts:
    """The prompts of B masks, padded with NONE: shares of width and height [B, Q, 2], and what they are [B, Q]."""

    at_BQ2: Tensor
    kind_BQ: Tensor

    @classmethod
    def of(cls, given: Sequence[Prompt]) -> "Prompts":
        """The prompts of each mask."""
        size = max(map(len, given))
        at_BQ2 = torch.zeros(len(given), size, 2)
        kind_BQ = torch.full((len(given), size), NONE)
        for b, prompt in enumerate(given):
            for q, (x, y, kind) in enumerate(prompt):
                at_BQ2[b, q], kind_BQ[b, q] = torch.tensor((x, y)), kind
        return cls(at_BQ2, kind_BQ)

    def to(self, device: torch.device) -> "Prompts":
        return Prompts(self.at_BQ2.to(device), self.kind_BQ.to(device))


class MaskHead(Head):
    """What prompts are, the mask of each patch's pixels, and how good the mask is (its IoU, from the mean state of the prompts). detail: channels of
    the convolutions that add to the mask; 0: none. channels: of the pictures."""

    def __init__(
        self,
        features: int,
        outputs: int,
        layer: LayerConfig | None = None,
        vocabulary: int | None = None,
        detail: int = 0,
        channels: int = 3,
    ) -> None:
        super().__init__(features, outputs, layer, vocabulary)
        self.kinds_KD = nn.Parameter(torch.zeros(LAST + 1, features))
        self.dense_DP = nn.Parameter(torch.zeros(features, DENSE * outputs))
        self.quality_D = nn.Parameter(torch.zeros(features))
        self.quality_bias = nn.Parameter(torch.zeros(1))
        self.detail = Detail(channels + DENSE, detail, features) if detail else None

    @classmethod
    def new(cls, cfg: HeadConfig, features: int, channels: int) -> "MaskHead":
        """An untrained head on a trunk of this width and pictures of so many channels."""
        return cls(features, cfg.outputs, detail=cfg.detail, channels=channels)

    @classmethod
    def sized(
        cls, cfg: HeadConfig, features: int, vocabulary: int | None, tensors: Mapping[str, Tensor]
    ) -> Head:
        first = tensors.get("head.detail.down.0.weight")
        values = first.shape[1] if first is not None and first.ndim == 4 else DENSE + 3
        return cls.new(cfg, features, max(1, values - DENSE))

    def masks(
        self, base: BaseModel, pixels_BCHW: Tensor, prompts: Prompts, routing: AdapterRouting | None
    ) -> tuple[Tensor, Tensor]:
        """Logits of each pixel's being on the object, fp32 [B, H, W], and of the mask's quality, fp32 [B]."""
        codec, dtype = base.image, base.compute_dtype
        p = codec.cfg.patch
        h, w = pixels_BCHW.shape[2] // p, pixels_BCHW.shape[3] // p
        x_BTD, cols = codec.embed(pixels_BCHW, dtype)
        dense_BKHW = dense_prompts(pixels_BCHW, prompts)
        dense_BND = F.linear(patches_of(dense_BKHW, p), self.dense_DP)
        seen: list[Tensor] = []
        if self.detail is not None:
            values_BKHW = torch.cat((pixels_BCHW.float(), dense_BKHW), 1)
            seen = self.detail.look(values_BKHW[:, :, : h * p, : w * p])
            dense_BND = dense_BND + self.detail.hint(seen, (h, w))
        x_BTD = x_BTD + F.pad(dense_BND, (0, 0, codec.front, 0)).to(dtype)
        B, T = x_BTD.shape[:2]
        at_BQD = (
            prompt_vectors(codec, pixels_BCHW, prompts.at_BQ2) + self.kinds_KD[prompts.kind_BQ.clamp(min=0)]
        )
        known_BQ = prompts.kind_BQ != NONE
        doc = torch.cat((cols.doc, torch.where(known_BQ, 0, -1)), 1)
        Q = known_BQ.shape[1]
        whole = Cols(torch.arange(T + Q, device=doc.device).expand(B, -1), doc, single=bool(known_BQ.all()))
        h_BTD = base.trunks["image"](torch.cat((x_BTD, at_BQD.to(dtype)), 1), whole, routing=routing).hidden
        states_BND = h_BTD[:, codec.front : T]
        z_Bhwpp = self(states_BND).reshape(B, h, w, p, p)
        z_BHW = z_Bhwpp.permute(0, 1, 3, 2, 4).reshape(B, h * p, w * p)
        if self.detail is not None:
            z_BHW = z_BHW + self.detail.draw(seen, states_BND, (h, w))
        weight_BQ = known_BQ / known_BQ.sum(1, keepdim=True)
        mean_BD = (h_BTD[:, T:].float() * weight_BQ[..., None]).sum(1)
        return z_BHW, mean_BD @ self.quality_D + self.quality_bias


def patches_of(values_BKHW: Tensor, p: int) -> Tensor:
    """Values of pixels by patch, [B, N, K * p * p], in the order in which a stem reads them."""
    B, K, H, W = values_BKHW.shape
    h, w = H // p, W // p
    whole = values_BKHW[:, :, : h * p, : w * p].reshape(B, K, h, p, w, p)
    return whole.permute(0, 2, 4, 1, 3, 5).reshape(B, h * w, K * p * p)


def dense_prompts(pixels_BCHW: Tensor, prompts: Prompts) -> Tensor:
    """What prompts say about each pixel, fp32 [B, DENSE, H, W] from 0 to 1."""
    H, W = pixels_BCHW.shape[2:]
    at, kind_BQ = prompts.at_BQ2.float(), prompts.kind_BQ
    x_W = (torch.arange(W, device=at.device) + 0.5) / W
    y_H = (torch.arange(H, device=at.device) + 0.5) / H
    far_BQHW = (x_W - at[..., 0, None, None]).square() + (y_H[:, None] - at[..., 1, None, None]).square()
    near_BQHW = torch.exp(-far_BQHW / (2 * NEAR**2))
    on_BQ, beside_BQ = kind_BQ == OBJECT, kind_BQ == BESIDE
    clicked_BCQ = F.grid_sample(
        pixels_BCHW.float(), 2 * at[:, :, None] - 1, padding_mode="border", align_corners=False
    )[..., 0]
    unlike_BQHW = (pixels_BCHW[:, None] - clicked_BCQ.transpose(1, 2)[..., None, None]).abs().amax(2)
    alike_BQHW = torch.exp(-unlike_BQHW / ALIKE)
    right_BQW, below_BQH = x_W >= at[..., 0, None], y_H >= at[..., 1, None]
    after_BQHW = right_BQW[..., None, :] & below_BQH[..., None]
    ahead_BQHW = ~right_BQW[..., None, :] & ~below_BQH[..., None]
    first_BQ, last_BQ = kind_BQ == FIRST, kind_BQ == LAST
    cut_BQHW = (after_BQHW | ~first_BQ[..., None, None]) & (ahead_BQHW | ~last_BQ[..., None, None])
    box_BHW = cut_BQHW.all(1) & first_BQ.any(1)[:, None, None]

    def most(values_BQHW: Tensor, where_BQ: Tensor) -> Tensor:
        return (values_BQHW * where_BQ[..., None, None]).amax(1)

    parts = (most(near_BQHW, on_BQ), most(near_BQHW, beside_BQ), box_BHW.float(), most(alike_BQHW, on_BQ))
    return torch.stack(parts, 1)


def prompt_vectors(codec: ImageModule, pixels_BCHW: Tensor, at_BQ2: Tensor) -> Tensor:
    """The vectors of patches that are centred on points, fp32 [B, Q, D]. At a patch's own centre this is the patch's vector."""
    p, (H, W) = codec.cfg.patch, pixels_BCHW.shape[2:]
    B, Q = at_BQ2.shape[:2]
    near_p = torch.arange(p, device=at_BQ2.device) + 0.5 - p / 2
    x_BQpp = at_BQ2[..., 0, None, None] + near_p[None, :] / W
    y_BQpp = at_BQ2[..., 1, None, None] + near_p[:, None] / H
    x_BQpp, y_BQpp = x_BQpp.expand(B, Q, p, p), y_BQpp.expand(B, Q, p, p)
    around = 2 * torch.stack((x_BQpp, y_BQpp), -1).reshape(B, Q, p * p, 2) - 1
    crop_BCQP = F.grid_sample(pixels_BCHW.float(), around, padding_mode="border", align_corners=False)
    crop_BQN = crop_BCQP.transpose(1, 2).flatten(2)  # channels first, as the stem reads a patch
    bias = None if codec.bias is None else codec.bias.float()
    content_BQD = F.linear(crop_BQN, codec.patch.float(), bias)
    h, w = H // p, W // p
    grid_Dhw = codec.places(H, W)[-h * w :].float().T.reshape(-1, h, w)
    edges = at_BQ2.new_tensor((W / (w * p), H / (h * p)))  # pixels left over at the right and the bottom
    at = (2 * at_BQ2 * edges - 1).reshape(1, B * Q, 1, 2)
    place_DN = F.grid_sample(grid_Dhw[None], at, padding_mode="border", align_corners=False)[0, :, :, 0]
    return content_BQD + place_DN.T.reshape(B, Q, -1)
