"""Latents: noise schedules against their definition, patches and their places, and the autoencoder's shell."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.errors import ConfigError, UserError
from onebase.modality.latents.config import LatentsConfig, NoiseConfig, latents_parameters
from onebase.modality.latents.modules import LatentModule
from onebase.modality.latents.schedule import kept, steps_of, visited

noises = st.builds(
    NoiseConfig,
    sampler=st.sampled_from(["ddim", "ddpm"]),
    steps=st.integers(20, 300),
    betas=st.sampled_from(["linear", "scaled_linear", "cosine"]),
    spacing=st.sampled_from(["leading", "trailing", "linspace"]),
    clip=st.sampled_from([None, 1.0]),
    to_one=st.booleans(),
)


@settings(deadline=None, max_examples=60)
@given(noises, st.integers(1, 20))
def test_times_fall_and_less_noise_is_left(cfg: NoiseConfig, count: int) -> None:
    left = kept(cfg)
    assert len(left) == cfg.steps and bool((left.diff() < 0).all()) and 0 < left[-1] < left[0] < 1
    times = visited(cfg, count)
    assert (
        len(times) == count and all(a > b >= 0 for a, b in itertools.pairwise(times)) and times[0] < cfg.steps
    )


@settings(deadline=None, max_examples=60)
@given(noises, st.integers(1, 20))
def test_a_step_with_the_true_noise_stays_on_the_path(cfg: NoiseConfig, count: int) -> None:
    """From sqrt(left) x + sqrt(1 - left) noise to the same with the next share; ddpm keeps the mean of the picture."""
    g = torch.Generator().manual_seed(0)
    x, noise = torch.rand(50, generator=g) * 2 - 1, torch.randn(50, generator=g)
    for _, step in steps_of(cfg, count):
        z = step.left**0.5 * x + (1 - step.left) ** 0.5 * noise
        got = step(z, noise)
        if cfg.sampler == "ddim":
            want = step.then**0.5 * x + (1 - step.then) ** 0.5 * noise
        else:  # the mean of q(z' | z, x), equation 7 of 2006.11239
            beta = 1 - step.left / step.then
            want = (step.then**0.5 * beta * x + (step.left / step.then) ** 0.5 * (1 - step.then) * z) / (
                1 - step.left
            )
        torch.testing.assert_close(got, want, atol=2e-3, rtol=1e-3)


def test_the_last_step_of_a_known_picture_is_the_picture() -> None:
    for sampler in ("ddim", "ddpm"):
        cfg = NoiseConfig(sampler=sampler)
        x, noise = torch.linspace(-1, 1, 9), torch.randn(9, generator=torch.Generator().manual_seed(0))
        _, last = steps_of(cfg, 10)[-1]
        torch.testing.assert_close(
            last(last.left**0.5 * x + (1 - last.left) ** 0.5 * noise, noise), x, atol=1e-4, rtol=0
        )


def test_too_many_steps_are_refused() -> None:
    for count in (0, 21):
        with pytest.raises(UserError, match="steps is"):
            visited(NoiseConfig(steps=20), count)
    with pytest.raises(UserError, match="beyond the last"):
        visited(NoiseConfig(steps=20, offset=1), 20)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"first": 0.0}, {"last": 1.0}, {"first": 0.03}, {"offset": -1}, {"clip": 0.0}]
)
def test_wrong_noise(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        NoiseConfig(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"size": 7}, {"patch": 0}, {"out": 6}, {"classes": 1, "names": ("a", "b")}, {"conditions": 0}]
)
def test_wrong_latents(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        LatentsConfig(**{"kind": "latents", "size": 8} | wrong)


def test_patches_stay_in_their_places() -> None:
    """A head that gives back what the stem read: the picture comes out as it went in."""
    cfg = LatentsConfig(kind="latents", size=6, patch=2, channels=3, out=3, classes=2)
    module = LatentModule(cfg, 12)
    assert latents_parameters(cfg, 12) == sum(p.numel() for p in module.parameters())
    module.reset(torch.Generator().manual_seed(0))
    z = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        module.patch.copy_(torch.eye(12))
        # The head counts a patch's numbers by row, column and channel; the stem by channel, row and column.
        order = torch.arange(12).reshape(3, 2, 2).permute(1, 2, 0).flatten()
        module.head.weight.copy_(torch.eye(12)[order])
        x_BTD, cols = module.embed(z, torch.float32)
        without = x_BTD - module.embed(torch.zeros_like(z), torch.float32)[0]
        out = module.predict(without, torch.zeros(2, 12))
    torch.testing.assert_close(out, z)
    assert x_BTD.shape == (2, 9, 12) and cols.doc.shape == (2, 9)


def test_conditions_tell_times_and_classes_apart() -> None:
    cfg = LatentsConfig(kind="latents", size=4, classes=3, conditions=2)
    module = LatentModule(cfg, 16)
    module.reset(torch.Generator().manual_seed(0))
    with torch.no_grad():
        c = module.condition(torch.tensor([5, 5, 900]), torch.tensor([0, 3, 0]), torch.float32)
    assert c.shape == (3, 2, 16)
    assert not torch.equal(c[0], c[1]) and not torch.equal(c[0], c[2]) and not torch.equal(c[:, 0], c[:, 1])
