"""Drawing by a diffusion transformer without diffusers: classes by name, seeds, guidance, and what it is not asked."""

from pathlib import Path
from typing import Any

import pytest
import torch

import onebase
from onebase.api.base import Base
from onebase.base.config import base_flops, base_parameters
from onebase.base.folder import LoadedBase
from onebase.base.latents import predicted_noise
from onebase.engine.drawing import Drawing, starting_noise
from onebase.engine.latents import class_of, drawn_latents
from onebase.errors import ArtifactError, ConfigError, UserError
from onebase.modality.latents.autoencoder import Autoencoder
from onebase.modality.latents.config import NoiseConfig
from onebase.modality.latents.schedule import steps_of
from tests.diffusion import base_of_latents


@pytest.fixture(scope="module")
def loaded() -> LoadedBase:
    return base_of_latents()


def test_a_class_is_named_or_numbered(loaded: LoadedBase) -> None:
    cfg = loaded.model.cfg.latents
    found = [class_of(p, cfg) for p in ("tench", " Tinca tinca ", "tench, Tinca tinca", "goldfish", "7")]
    assert found == [0, 0, 0, 1, 7]
    with pytest.raises(UserError) as e:
        class_of("golfish", cfg)
    assert "did you mean 'goldfish'" in e.value.remedy and "0 to 9" in e.value.remedy
    for wrong in ("10", "", "-1"):
        with pytest.raises(UserError, match="10 classes"):
            class_of(wrong, cfg)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_picture_is_that_of_its_seed(sampler: Any) -> None:
    model = base_of_latents(NoiseConfig(sampler=sampler)).model
    both = drawn_latents(model, 1, 2, Drawing(4, 2.0, 3))
    torch.testing.assert_close(both[1:], drawn_latents(model, 1, 1, Drawing(4, 2.0, 4)), atol=1e-4, rtol=0)
    assert torch.equal(both, drawn_latents(model, 1, 2, Drawing(4, 2.0, 3)))
    assert not torch.allclose(both[0], both[1])
    assert not torch.allclose(both, drawn_latents(model, 2, 2, Drawing(4, 2.0, 3)))
    assert not torch.allclose(both, drawn_latents(model, 1, 2, Drawing(4, 1.0, 3)))


def test_guidance_is_away_from_no_class(loaded: LoadedBase) -> None:
    """One step of two, by hand."""
    model, g = loaded.model, 3.0
    z = drawn_latents(model, 1, 1, Drawing(1, g, 0))
    start = starting_noise(0, 1, (4, 8, 8))
    ((t, step),) = steps_of(model.cfg.latents.noise, 1)
    with torch.no_grad():
        named, bare = (predicted_noise(model, start, torch.tensor([t]), torch.tensor([c])) for c in (1, 10))
    torch.testing.assert_close(z, step(start, bare + g * (named - bare)), atol=1e-5, rtol=0)


def test_a_folder_keeps_an_autoencoder_that_is_not_run(loaded: LoadedBase, tmp_path: Path) -> None:
    tensors = {"a.weight": torch.arange(3.0)}
    whole = LoadedBase(loaded.model, None, autoencoder=Autoencoder({"scaling_factor": 0.5}, tensors))
    Base(whole).save(tmp_path / "base")
    again = onebase.load(tmp_path / "base").loaded
    assert again.autoencoder is not None and again.fingerprint == whole.fingerprint
    assert again.autoencoder.scaling == 0.5 and torch.equal(
        again.autoencoder.tensors["a.weight"], tensors["a.weight"]
    )
    (tmp_path / "base" / "codecs" / "latents" / "autoencoder.safetensors").write_bytes(b"short")
    with pytest.raises(ArtifactError):
        onebase.load(tmp_path / "base")


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"size": (16, 16)}, "size, init and mask"),
        ({"init": "a.png"}, "size, init and mask"),
        ({"mask": "a.png"}, "size, init and mask"),
        ({"solver": "heun"}, "schedule"),
        ({"steps": 0}, "steps is 0"),
        ({}, "no autoencoder"),
    ],
)
def test_what_it_is_not_asked(given: dict[str, Any], what: str, loaded: LoadedBase) -> None:
    with pytest.raises(UserError, match=what):
        Base(loaded).draw("goldfish", **given)


def test_it_is_a_base_like_others(loaded: LoadedBase) -> None:
    cfg = loaded.model.cfg
    assert base_parameters(cfg) == sum(p.numel() for p in loaded.model.parameters())
    assert base_flops(cfg, 16) > 0
    for call in (lambda: Base(loaded).generate("a"), lambda: Base(loaded).export("x", format="hf")):
        with pytest.raises((ArtifactError, ConfigError)):
            call()
