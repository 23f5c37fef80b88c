"""The noise that a base predicts in latents. B batch, C channels, S side."""

from torch import Tensor

from onebase.base.model import BaseModel
from onebase.modality.latents.modules import LatentModule
from onebase.model.proj import AdapterRouting


def latent_module(base: BaseModel) -> LatentModule:
    """The learned ends of latents. Raises ConfigError for a base without them."""
    module = base.codecs[base.cfg.latents.kind]
    assert isinstance(module, LatentModule)
    return module


def predicted_noise(
    base: BaseModel, z_BCSS: Tensor, t_B: Tensor, class_B: Tensor, routing: AdapterRouting | None = None
) -> Tensor:
    """Noise fp32 [B, C, S, S] in latents at times from 0 (nearly clean) up, for classes of which the one after the last is none."""
    module, dtype = latent_module(base), base.compute_dtype
    x_BTD, cols = module.embed(z_BCSS, dtype)
    condition_BLD = module.condition(t_B, class_B, dtype)
    trunk = base.trunks["latents"]
    h_BTD = trunk(x_BTD, cols, routing=routing, condition_BLD=condition_BLD).hidden
    return module.predict(h_BTD, condition_BLD[:, 0])
