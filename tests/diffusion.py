"""Tiny diffusion transformers: a pipeline of diffusers with drawn weights, and a base of ours that needs no diffusers."""

import json
from pathlib import Path
from typing import Any

import torch

from onebase.base.config import BaseConfig
from onebase.base.folder import LoadedBase
from onebase.base.model import BaseModel
from onebase.formats.families.dit import TRUNK
from onebase.formats.fields import placed
from onebase.modality.latents.config import LatentsConfig, NoiseConfig

NAMES = ("tench, Tinca tinca", "goldfish")
SIZES = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 3,
    "sample_size": 8,
    "patch_size": 2,
}


def drawn(module: torch.nn.Module, std: float = 0.15, seed: int = 0) -> Any:
    """All weights drawn anew, so that no zero hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(
                torch.randn(p.shape, generator=generator) * std
                + (1.0 if p.ndim == 1 and p.mean() == 1 else 0.0)
            )
    return module.eval()


def pipeline(scheduler: Any = None, **sizes: Any) -> Any:
    """A DiTPipeline: latents of 8 x 8, pictures of 16 x 16 pixels."""
    from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
        layers_per_block=1,
    )
    transformer = drawn(DiTTransformer2DModel(**SIZES | sizes))
    made = DiTPipeline(transformer, drawn(vae, 0.1), scheduler or DDIMScheduler(clip_sample=False))
    made.set_progress_bar_config(disable=True)
    return made


def saved(made: Any, path: Path) -> Path:
    """The pipeline's folder, with the names of two classes, as published ones have them."""
    made.save_pretrained(path)
    index = json.loads((path / "model_index.json").read_text())
    index["id2label"] = {str(i): name for i, name in enumerate(NAMES)}
    (path / "model_index.json").write_text(json.dumps(index))
    return path


def base_of_latents(noise: NoiseConfig | None = None, conditions: int = 1) -> LoadedBase:
    """A base of ours, without an autoencoder."""
    block = placed(
        TRUNK.blocks[0], {"attn.heads": 2, "attn.kv_heads": 2, "attn.head_dim": 8, "ff.hidden": 64}
    )
    trunk = placed(TRUNK, {"width": 16, "blocks": (block,) * 2})
    codec = LatentsConfig(
        kind="latents", size=8, classes=10, names=NAMES, conditions=conditions, noise=noise or NoiseConfig()
    )
    model = BaseModel(BaseConfig(trunks={"latents": trunk}, codecs={"latents": codec}))
    model.reset(0)
    return LoadedBase(drawn(model).requires_grad_(False), None)
