"""The audio codec module: log-mel frames to vectors. F frames, M mel bands, T = F / 2 vectors, D width."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebase.errors import UserError
from onebase.modality.audio.config import AudioCodecConfig
from onebase.model.config import StorageConfig
from onebase.model.feedforward import ACTIVATIONS
from onebase.model.mask import Cols


class AudioModule(nn.Module):
    """Two convolutions over time, the second of stride two, and a table of positions (Whisper, 2212.04356)."""

    def __init__(self, cfg: AudioCodecConfig, width: int) -> None:
        super().__init__()
        self.cfg, self.width = cfg, width
        self.first = nn.Conv1d(cfg.mels, width, 3, padding=1)
        self.second = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.positions = nn.Parameter(torch.empty(cfg.places, width))

    def embed(self, mel_BMF: Tensor, dtype: torch.dtype) -> tuple[Tensor, Cols]:
        """Log-mel frames to vectors [B, T, D] and their columns. Raises UserError for more frames than the table has positions for."""
        if mel_BMF.shape[1] != self.cfg.mels or mel_BMF.shape[2] > self.cfg.context:
            raise UserError(
                f"got {mel_BMF.shape[2]} frames of {mel_BMF.shape[1]} bands",
                f"give at most {self.cfg.context} frames of {self.cfg.mels} bands",
            )
        act = ACTIVATIONS[self.cfg.activation]
        x_BDF = act(_convolved(self.first, mel_BMF.to(dtype)))
        x_BDT = act(_convolved(self.second, x_BDF))
        x_BTD = x_BDT.transpose(1, 2)
        T = x_BTD.shape[1]
        x_BTD = x_BTD + self.positions[:T].to(dtype)
        return x_BTD, Cols.simple(x_BTD.shape[0], T, x_BTD.device)

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Initialise: normal matrices with deviation 0.02, sinusoidal positions (Vaswani et al., 1706.03762)."""
        for conv in (self.first, self.second):
            nn.init.normal_(conv.weight, 0.0, 0.02, generator)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
        half = self.width // 2
        angle = torch.arange(self.cfg.places)[:, None] * 10000.0 ** (-torch.arange(half) / max(1, half - 1))
        self.positions.copy_(torch.cat((angle.sin(), angle.cos()), 1))

    def keep_in(self, cfg: StorageConfig, *, take: bool) -> None:
        """Does nothing: the convolutions are too small to quantize."""


def _convolved(conv: nn.Conv1d, x_BCF: Tensor) -> Tensor:
    """`conv` with its weights cast to the input's dtype."""
    assert conv.bias is not None
    return F.conv1d(x_BCF, conv.weight.to(x_BCF.dtype), conv.bias.to(x_BCF.dtype), conv.stride, conv.padding)
