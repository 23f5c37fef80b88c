"""DiT of diffusers: its noise, its pictures and its files, and pipelines that are refused."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import onebase
from onebase.api.base import Adapter, Base
from onebase.artifact.record import Record
from onebase.base.config import base_parameters
from onebase.base.latents import predicted_noise
from onebase.cli import app
from onebase.engine.drawing import Drawing
from onebase.engine.latents import drawn_latents
from onebase.errors import ArtifactError, ConfigError, UserError
from onebase.methods import lora
from onebase.methods.config import AdapterConfig
from onebase.methods.folder import AdapterParts, bound_to
from onebase.methods.lora import LoraConfig
from onebase.modality.latents.config import NoiseConfig
from onebase.modality.latents.schedule import steps_of, visited
from onebase.model.proj import AdapterRouting
from tests.diffusion import NAMES, pipeline, saved
from tests.helpers import tiny_base

diffusers = pytest.importorskip("diffusers")

KINDS: dict[str, dict[str, Any]] = {
    "as published": {},
    "no learned variance": {"out_channels": None},
    "no bias of queries": {"attention_bias": False},
    "another epsilon": {"norm_eps": 0.1},
    "exact gelu": {"activation_fn": "gelu"},
    "sigmoid gelu": {"activation_fn": "geglu-approximate"},
    "patches of one": {"patch_size": 1, "num_layers": 1},
}


@pytest.fixture(scope="module")
def theirs() -> Any:
    return pipeline()


@pytest.fixture(scope="module")
def folder(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(theirs, tmp_path_factory.mktemp("dit") / "theirs")


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_that_of_diffusers_both_ways(kind: str, tmp_path: Path) -> None:
    theirs = pipeline(**KINDS[kind])
    base = onebase.load(saved(theirs, tmp_path / "theirs"))
    model = base.loaded.model
    assert base_parameters(model.cfg) == sum(p.numel() for p in model.parameters())
    z_BCSS = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    t_B, class_B = torch.tensor([0, 500, 999]), torch.tensor([0, 7, 1000])
    with torch.no_grad():
        want = theirs.transformer(z_BCSS, timestep=t_B, class_labels=class_B).sample[:, :4]
        got = predicted_noise(model, z_BCSS, t_B, class_B)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    assert float(want.std()) > 0.1
    base.export(tmp_path / "back", format="diffusers")
    again = diffusers.DiTPipeline.from_pretrained(tmp_path / "back")
    for part in ("transformer", "vae"):
        first, second = (getattr(p, part).state_dict() for p in (theirs, again))
        assert first.keys() == second.keys() and all(torch.equal(t, second[k]) for k, t in first.items())
    ours, given = again.transformer.config, theirs.transformer.config
    assert all(ours[k] == given[k] for k in given if k != "out_channels" and not k.startswith("_"))
    assert again.labels == {"Tinca tinca": 0, "goldfish": 1, "tench": 0}
    assert onebase.load(tmp_path / "back").fingerprint == base.fingerprint


def test_gradients_are_those_of_diffusers(theirs: Any, folder: Path) -> None:
    model = onebase.load(folder).loaded.model
    model.requires_grad_(True)
    z_BCSS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    t_B, class_B = torch.tensor([3, 900]), torch.tensor([1, 1000])
    predicted_noise(model, z_BCSS, t_B, class_B).square().sum().backward()
    theirs.transformer.zero_grad()
    out = theirs.transformer(z_BCSS, timestep=t_B, class_labels=class_B).sample[:, :4]
    out.square().sum().backward()
    pairs = {
        "trunks.latents.blocks.1.adapt.weight": "transformer_blocks.1.norm1.linear.weight",
        "codecs.latents.conditions.2.classes": "transformer_blocks.2.norm1.emb.class_embedder.embedding_table.weight",
        "codecs.latents.conditions.0.time_in.weight": "transformer_blocks.0.norm1.emb.timestep_embedder.linear_1.weight",
    }
    own, other = dict(model.named_parameters()), dict(theirs.transformer.named_parameters())
    for ours, name in pairs.items():
        want, got = other[name].grad, own[ours].grad
        assert want is not None and got is not None and float(want.abs().max()) > 0
        torch.testing.assert_close(got, want, atol=1e-4 * float(want.abs().max()), rtol=0)


SCHEDULES: dict[str, dict[str, Any]] = {
    "published": {"clip_sample": False},
    "clipped": {"clip_sample_range": 0.7},
    "scaled, offset, not to one": {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "steps_offset": 1,
        "set_alpha_to_one": False,
        "clip_sample": False,
    },
    "cosine, trailing": {"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "trailing"},
    "spread": {"timestep_spacing": "linspace", "clip_sample": False},
}


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_picture_is_that_of_the_pipeline(kind: str, guidance: float, tmp_path: Path) -> None:
    theirs = pipeline(diffusers.DDIMScheduler(**SCHEDULES[kind]))
    base = onebase.load(saved(theirs, tmp_path / "theirs"))
    noise = torch.Generator().manual_seed(5)
    want = theirs([1], guidance, noise, 7, output_type="np").images[0]
    with torch.no_grad():
        z_BCSS = drawn_latents(base.loaded.model, 1, 1, Drawing(7, guidance, 5))
        assert base.loaded.autoencoder is not None
        got = base.loaded.autoencoder.decoded(z_BCSS)[0].permute(1, 2, 0).clamp(-1, 1) / 2 + 0.5
    np.testing.assert_allclose(got.numpy(), want, atol=1e-4)
    assert want.std() > 0.02
    picture = base.draw("goldfish", steps=7, guidance=guidance, seed=5)[0]
    assert picture.size == (16, 16)
    np.testing.assert_allclose(np.asarray(picture) / 255, want, atol=0.5 / 255 + 1e-4)
    base.export(tmp_path / "back", format="diffusers")
    kept = diffusers.DiTPipeline.from_pretrained(tmp_path / "back").scheduler.config
    for key, value in SCHEDULES[kind].items():
        assert kept[key] == value


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("more", [{}, {"timestep_spacing": "trailing"}, {"steps_offset": 1}])
def test_steps_with_noise_of_their_own_are_those_of_ddpm(
    variance: str, more: dict[str, Any], tmp_path: Path
) -> None:
    scheduler = diffusers.DDPMScheduler(variance_type=variance, **more)
    base = onebase.load(saved(pipeline(scheduler), tmp_path / "theirs"))
    scheduler.set_timesteps(6)
    steps = steps_of(base.config.latents.noise, 6)
    assert [t for t, _ in steps] == scheduler.timesteps.tolist()
    g = torch.Generator().manual_seed(0)
    z = torch.randn(1, 4, 8, 8, generator=g)
    for t, step in steps:
        noise = torch.randn(z.shape, generator=g)
        want = scheduler.step(noise, t, z, generator=torch.Generator().manual_seed(t)).prev_sample
        fresh = torch.randn(z.shape, generator=torch.Generator().manual_seed(t))
        z = step(z, noise, fresh)
        torch.testing.assert_close(z, want, atol=1e-5, rtol=1e-5)
    first, second = (base.draw("0", 1, steps=4, seed=seed)[0].tobytes() for seed in (1, 1))
    assert first == second != base.draw("0", 1, steps=4, seed=2)[0].tobytes()


def test_a_base_folder_keeps_the_pipeline(folder: Path, tmp_path: Path) -> None:
    base = onebase.import_base(folder, tmp_path / "base")
    assert base.record.get("imported.format") == "diffusers"
    assert base.record.get("imported.autoencoder") == "AutoencoderKL"
    assert "transformer: dropout" in base.record.get("imported.unread")
    assert "sha256" in base.record.get("imported.files")["vae/config.json"]
    there = onebase.load(folder)
    assert base.fingerprint == there.fingerprint
    first, second = (b.draw("tench", steps=3, seed=1)[0].tobytes() for b in (base, there))
    assert first == second


def test_lora_attaches_at_every_projection_and_merges(folder: Path, tmp_path: Path) -> None:
    base = onebase.load(folder)
    model = base.loaded.model
    assert len(model.sites()) == 3 * 7 and "latents.2.adapt" in model.sites()
    z, t, c = torch.randn(2, 4, 8, 8), torch.tensor([10, 700]), torch.tensor([0, 1000])
    plain = predicted_noise(model, z, t, c)
    on = base.with_adapter(random_lora(base))
    routing = on.routing
    assert routing is not None
    changed = predicted_noise(model, z, t, c, routing)
    assert float((changed - plain).abs().max()) > 1e-2
    mixed = predicted_noise(model, z, t, c, AdapterRouting.per_row([None, routing.groups[0][0]]))
    torch.testing.assert_close(mixed[0], plain[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed[1], changed[1], atol=1e-5, rtol=0)
    merged = on.merged()
    torch.testing.assert_close(predicted_noise(merged.loaded.model, z, t, c), changed, atol=1e-4, rtol=0)
    on.export(tmp_path / "merged", format="diffusers")
    there = diffusers.DiTPipeline.from_pretrained(tmp_path / "merged").transformer
    with torch.no_grad():
        want = there(z, timestep=t, class_labels=c).sample[:, :4]
    torch.testing.assert_close(changed, want, atol=1e-4, rtol=0)


def random_lora(base: Any) -> Any:
    """Deltas drawn at random at all sites."""
    cfg = LoraConfig(rank=2)
    lora.inject(base.loaded.model, "drawn", cfg, 0)
    g = torch.Generator().manual_seed(0)
    found = {
        k: torch.randn(t.shape, generator=g) * 0.1
        for k, t in lora.tensors(base.loaded.model, "drawn").items()
    }
    lora.remove(base.loaded.model, "drawn")
    config = AdapterConfig(method="lora", task="complete", base=bound_to(base.loaded), lora=cfg)
    return Adapter(AdapterParts(config, found, Record("adapter")))


INDEX = "model_index.json"


@pytest.mark.parametrize(
    ("index", "what"),
    [
        ({"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}, "U-Net"),
        (
            {"_class_name": "PixArtAlphaPipeline", "transformer": ["diffusers", "PixArtTransformer2DModel"]},
            "PixArtTransformer2DModel",
        ),
        ({"_class_name": "DDPMPipeline"}, "no transformer"),
        (
            {
                "_class_name": "DiTPipeline",
                "transformer": ["diffusers", "DiTTransformer2DModel"],
                "vae": ["diffusers", "VQModel"],
            },
            "VQModel",
        ),
    ],
)
def test_other_pipelines_are_refused_by_name(index: dict[str, Any], what: str, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(ArtifactError) as e:
        onebase.load(tmp_path)
    assert what in e.value.cause and INDEX in e.value.cause
    assert "recipes/flow.yaml" in e.value.remedy or "AutoencoderKL" in e.value.remedy


def broken(folder: Path, out: Path, file: str, **changes: Any) -> Path:
    """A copy with other values in one file."""
    shutil.copytree(folder, out)
    (out / file).write_text(json.dumps(json.loads((out / file).read_text()) | changes))
    return out


@pytest.mark.parametrize(
    ("file", "changes", "what"),
    [
        ("transformer/config.json", {"norm_type": "ada_norm_single"}, "norm_type"),
        ("transformer/config.json", {"num_layers": 4}, "transformer_blocks.3"),
        ("transformer/config.json", {"out_channels": 6}, "6 numbers"),
        ("transformer/config.json", {"attention_head_dim": 0}, "attention_head_dim"),
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}, "prediction_type"),
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "EulerDiscreteScheduler"},
            "EulerDiscreteScheduler",
        ),
        ("scheduler/scheduler_config.json", {"steps_offset": -1}, "steps_offset"),
        ("scheduler/scheduler_config.json", {"beta_start": 0.5}, "betas from 0.5"),
        ("vae/config.json", {"latent_channels": 16}, "16 channels"),
        ("vae/config.json", {"scaling_factor": "a"}, "scaling_factor"),
        (INDEX, {"id2label": {"2000": "a"}}, "class 2000"),
        (INDEX, {"id2label": {"a": "b"}}, "id2label"),
    ],
)
def test_values_that_do_not_fit_are_refused_by_key(
    file: str, changes: dict[str, Any], what: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as e:
        onebase.load(broken(folder, tmp_path / "x", file, **changes))
    assert what in e.value.cause and e.value.remedy


def test_damaged_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    path = broken(folder, tmp_path / "x", INDEX)
    (path / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(ArtifactError, match=r"scheduler_config.json is missing"):
        onebase.load(path)
    path = broken(folder, tmp_path / "y", INDEX)
    weights = path / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ArtifactError):
        onebase.load(path)
    path = broken(folder, tmp_path / "z", "vae/config.json", layers_per_block=3)
    with pytest.raises(ArtifactError, match="autoencoder's tensors"):
        onebase.load(path).draw("0", steps=1)


def test_an_autoencoder_of_before_2023_is_read(theirs: Any, folder: Path, tmp_path: Path) -> None:
    """Its attention had other names, and matrices that were convolutions of one pixel."""
    path = broken(folder, tmp_path / "old", INDEX)
    file = path / "vae" / "diffusion_pytorch_model.safetensors"
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors, renamed = load_file(file), 0
    for name in list(tensors):
        for new, old in names.items():
            if f".{new}." in name:
                tensors[name.replace(new, old)] = tensors.pop(name)
                renamed += 1
    assert renamed == 16
    save_file(tensors, file)
    new, old = (onebase.load(p).draw("0", steps=2)[0].tobytes() for p in (folder, path))
    assert new == old


def test_without_diffusers_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = onebase.load(folder)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError) as e:
        base.draw("0", steps=1)
    assert "onebase[draw]" in e.value.remedy


def test_a_base_of_text_is_no_pipeline(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="draws no latents"):
        Base(tiny_base()).export(tmp_path / "x", format="diffusers")


def test_names_stay_in_order(folder: Path) -> None:
    assert onebase.load(folder).config.latents.names == NAMES


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_times_are_those_of_diffusers(spacing: Any) -> None:
    """For every number of steps, but where theirs visits one time more than it was asked for (`trailing`, by rounding)."""
    scheduler, same = diffusers.DDIMScheduler(num_train_timesteps=200, timestep_spacing=spacing), 0
    noise = NoiseConfig(steps=200, spacing=spacing)
    for count in range(1, 201):
        scheduler.set_timesteps(count)
        if len(scheduler.timesteps) == count:
            assert visited(noise, count) == scheduler.timesteps.tolist()
            same += 1
    assert same > 150


def test_commands_import_draw_show_and_export(folder: Path, tmp_path: Path) -> None:
    base, out = str(tmp_path / "base"), tmp_path / "out"
    for words in (
        ["import", str(folder), "--out", base],
        ["draw", base, "goldfish", "--n", "2", "--steps", "2", "--seed", "3", "--out", str(out)],
        ["show", base],
        ["export", base, "--format", "diffusers", "--out", str(tmp_path / "back")],
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
    assert sorted(p.name for p in out.iterdir()) == ["0003.png", "0004.png"]
    assert (tmp_path / "back" / "model_index.json").is_file()
    wrong = CliRunner().invoke(app, ["draw", base, "golfish", "--out", str(out)])
    assert wrong.exit_code != 0 and isinstance(wrong.exception, UserError | SystemExit)
