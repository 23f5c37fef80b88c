"""A diffusion transformer of diffusers as a base: opened, drawn with, written back. Run: python examples/open_pipeline.py [PIPELINE]

Without a folder a tiny pipeline with random weights is made, whose pictures are coloured noise: it shows that both programs draw the same. Needs
pip install "onebase[draw]".
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

import onebase

OUT = Path("runs/pipeline.png")
STEPS, GUIDANCE, SEED = 8, 2.0, 0


def tiny(folder: Path) -> Path:
    """A pipeline of 16 x 16 pixels, as diffusers saves it."""
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=16, num_layers=2, sample_size=8, out_channels=8
    )
    for p in transformer.parameters():  # it starts by predicting zeros
        torch.nn.init.normal_(p, 0.0, 0.1)
    vae = AutoencoderKL(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    )
    DiTPipeline(transformer, vae, DDIMScheduler(clip_sample=False)).save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["id2label"] = {"0": "tench, Tinca tinca", "1": "goldfish"}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


with tempfile.TemporaryDirectory() as room:
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else tiny(Path(room, "tiny"))
    base = onebase.load(source)
    name = (base.config.latents.names or ("0",))[-1].split(",")[0]
    picture = base.draw(name, steps=STEPS, guidance=GUIDANCE, seed=SEED)[0]
    OUT.parent.mkdir(exist_ok=True)
    picture.save(OUT)
    print(f"drew {name!r}, {picture.size[0]} x {picture.size[1]} pixels: {OUT}")

    base.export(Path(room, "exported"), format="diffusers")
    pipeline = DiTPipeline.from_pretrained(Path(room, "exported"))
    pipeline.set_progress_bar_config(disable=True)
    number = max(len(base.config.latents.names) - 1, 0)
    there = pipeline([number], GUIDANCE, torch.Generator().manual_seed(SEED), STEPS).images[0]
    apart = np.abs(np.asarray(picture, np.int16) - np.asarray(there, np.int16)).max()
    print(f"the exported pipeline draws the same in diffusers, within {apart} of 255")
