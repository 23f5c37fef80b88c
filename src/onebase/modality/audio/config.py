"""The config of the audio codec, and its parameter count."""

from typing import Literal

from onebase.config import config
from onebase.errors import ConfigError
from onebase.model.config import Activation


@config
class AudioCodecConfig:
    """Log-mel frames of at most `context` / rate * hop seconds, and two convolutions that turn them into vectors (Whisper).

    rate: samples per second; window, hop: samples in a frame's Fourier transform, and between frames; mels: bands per frame; context:
    maximum frames; the second convolution makes half as many vectors. A table of positions is added to them.
    """

    kind: Literal["audio"]
    mels: int = 80
    rate: int = 16000
    window: int = 400
    hop: int = 160
    context: int = 3000
    activation: Activation = "gelu"

    def __post_init__(self) -> None:
        if min(self.mels, self.rate, self.window, self.hop, self.context) < 1 or self.context % 2:
            raise ConfigError(
                f"mels {self.mels}, rate {self.rate}, window {self.window}, hop {self.hop}, context {self.context}",
                "all must be above 0, and context even",
            )

    @property
    def seconds(self) -> float:
        """Seconds of a full context."""
        return self.context * self.hop / self.rate

    @property
    def places(self) -> int:
        """Vectors of a full context."""
        return self.context // 2


def audio_parameters(cfg: AudioCodecConfig, width: int) -> int:
    """Parameters: two convolutions of three frames, and the table of positions."""
    return 3 * width * (cfg.mels + width) + 2 * width + cfg.places * width
