"""Convolutions beside the trunk that give masks the resolution of pixels: the picture and its prompts at full size down to an eighth, joined there with the
states of the patches, and brought back to full size (U-Net, 1505.04597; the decoder of Segment Anything upscales its states in the same way).

B masks, K values of a pixel (channels and what prompts say), C channels, H, W pixels, h, w patches, D width of the trunk.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALES = 4
"""Full, half, quarter and eighth size, with C, 2 C, 4 C and 8 C channels."""


SLOPE = 0.1


class Conv(nn.Module):
    """Leaky ReLU of norm(x * weight), 3 x 3: where all is off there is still a gradient. The norm is over all values of a picture, so that a mask is the same alone and in a batch."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.scale, self.bias = nn.Parameter(torch.ones(outputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = F.conv2d(x_BCHW, self.weight, stride=self.stride, padding=1)
        return F.leaky_relu(F.group_norm(y_BCHW, 1, self.scale, self.bias), SLOPE)


class Detail(nn.Module):
    """Reads pixels with their prompts (`look`), adds to the vectors of patches what it saw (`hint`), and draws logits of masks from the states of
    patches and what it saw (`draw`). Starts as nothing: hints and logits are zero."""

    def __init__(self, values: int, channels: int, width: int) -> None:
        super().__init__()
        sizes = [channels * 2**i for i in range(SCALES)]
        self.down = nn.ModuleList(
            Conv(a, b, 1 if i == 0 else 2) for i, (a, b) in enumerate(pairwise([values, *sizes]))
        )
        self.more = nn.ModuleList(Conv(n, n) for n in sizes)
        self.same = nn.ModuleList(Conv(n, n) for n in sizes)
        self.up = nn.ModuleList(Conv(b, a) for a, b in pairwise(sizes))
        self.hint_DC = nn.Parameter(torch.zeros(width, sizes[-1]))
        self.join_CD = nn.Parameter(torch.empty(sizes[-1], width))
        self.out_C, self.out_bias = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(1))
        if not self.join_CD.is_meta:
            self.reset(torch.Generator().manual_seed(0))

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Starting weights, each normal so that it keeps the size of what it is given (1502.01852)."""
        for conv in self.modules():
            if isinstance(conv, Conv):
                nn.init.normal_(conv.weight, 0.0, math.sqrt(2 / conv.weight[0].numel()), generator)
        nn.init.normal_(self.join_CD, 0.0, self.join_CD.shape[1] ** -0.5, generator)

    def look(self, values_BKHW: Tensor) -> list[Tensor]:
        """What is seen at each size, the largest first."""
        seen, x_BCHW = [], values_BKHW
        for down, more in zip(self.down, self.more, strict=True):
            x_BCHW = down(x_BCHW)
            seen.append(x_BCHW := x_BCHW + more(x_BCHW))
        return seen

    def hint(self, seen: list[Tensor], grid: tuple[int, int]) -> Tensor:
        """To be added to the vectors of a grid of h x w patches, fp32 [B, h * w, D]."""
        mean_BChw = F.adaptive_avg_pool2d(seen[-1], grid)
        return F.linear(mean_BChw.flatten(2).transpose(1, 2), self.hint_DC)

    def draw(self, seen: list[Tensor], states_BND: Tensor, grid: tuple[int, int]) -> Tensor:
        """Logits, fp32 [B, H, W]."""
        B = len(states_BND)
        x_BChw = F.linear(states_BND.float(), self.join_CD).transpose(1, 2).reshape(B, -1, *grid)
        for i in reversed(range(SCALES)):
            x_BChw = F.interpolate(x_BChw, seen[i].shape[2:], mode="bilinear") + seen[i]
            x_BChw = x_BChw + self.same[i](x_BChw)
            if i:
                x_BChw = self.up[i - 1](x_BChw)
        return torch.einsum("bchw,c->bhw", x_BChw, self.out_C) + self.out_bias
