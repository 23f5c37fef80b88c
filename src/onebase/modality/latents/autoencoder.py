"""The autoencoder behind latents: its files are kept with the base, and run by diffusers (extra `draw`). B batch, C channels, S side."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from onebase.errors import ArtifactError, UserError

KIND = "AutoencoderKL"


@dataclass(frozen=True)
class Autoencoder:
    """The config and the tensors of a diffusers AutoencoderKL. It is nothing that is trained or adapted here."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(repr=False)
    _loaded: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def scaling(self) -> float:
        """What latents are multiplied by before a trunk reads them."""
        return float(self.config.get("scaling_factor", 0.18215))

    @property
    def channels(self) -> int:
        """Numbers of a latent."""
        return int(self.config.get("latent_channels", 4))

    @torch.no_grad()
    def decoded(self, z_BCSS: Tensor) -> Tensor:
        """Pictures from -1 to 1, fp32 [B, 3, H, W] on the latents' device. Raises UserError without diffusers, ArtifactError for files that do not fit."""
        model = self._model().to(z_BCSS.device)
        found: Tensor = model.decode(z_BCSS.float() / self.scaling).sample
        return found

    def _model(self) -> Any:
        if "model" in self._loaded:
            return self._loaded["model"]
        try:
            from diffusers import AutoencoderKL
        except ImportError as e:
            raise UserError(
                f"this base draws by an autoencoder of diffusers, which cannot be imported ({e})",
                "install it: pip install 'onebase[draw]'",
            ) from None
        try:
            with torch.device("meta"):
                model = AutoencoderKL.from_config(dict(self.config))
            model.load_state_dict({k: t.float() for k, t in self.tensors.items()}, strict=True, assign=True)
        except (RuntimeError, TypeError, ValueError) as e:
            raise ArtifactError(
                f"the autoencoder's tensors do not fit its config: {str(e).splitlines()[0]}",
                "take an intact copy of the folder",
            ) from None
        self._loaded["model"] = model.requires_grad_(False).eval()
        return self._loaded["model"]
