"""`preprocessor_config.json`: pictures become what transformers makes of them; what we lack is refused by name; and back."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import onebase
from onebase.errors import ArtifactError, ConfigError
from onebase.formats.hf.pictures import PREPROCESSOR, PROCESSOR, processor, processor_tree, read_pixels
from onebase.formats.reader import ConfigReader
from onebase.modality.image.config import ImageCodecConfig, PixelsConfig
from onebase.modality.image.pixels import prepared
from tests.formats.parity import shaken
from tests.pictures import sighted

Image = pytest.importorskip("PIL.Image")
transformers = pytest.importorskip("transformers")
CODEC = ImageCodecConfig(kind="image", size=48, patch=16, places_fit="bicubic")
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}


def photo(width: int, height: int, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8)).resize((width, height), 3)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("ViTImageProcessor", {}),
        ("ViTImageProcessor", {"size": {"height": 40, "width": 40}, "resample": 3, "do_normalize": False}),
        ("BitImageProcessor", {}),
        ("BitImageProcessor", {"size": {"shortest_edge": 37}, "crop_size": {"height": 48, "width": 48}}),
        ("CLIPImageProcessor", {"size": {"shortest_edge": 60}, "crop_size": 48, "resample": 1}),
        ("CLIPImageProcessor", {"size": {"height": 50, "width": 50}, "crop_size": 48}),
        ("SiglipImageProcessor", {}),
        ("DeiTImageProcessor", {}),
    ],
)
def test_as_the_processor_that_saved_it(kind: str, more: dict[str, Any], tmp_path: Path) -> None:
    theirs = getattr(transformers, kind)(**more)
    theirs.save_pretrained(tmp_path)
    how = read_pixels(processor(tmp_path), CODEC)
    codec = replace(CODEC, pixels=how)
    for i, size in enumerate([(48, 48), (100, 61), (30, 77)]):
        image = photo(*size, seed=i)
        want = theirs(image, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(prepared(image, codec), want, atol=1e-5, rtol=0)
    written = ConfigReader(processor_tree(codec), "again")
    assert read_pixels(written, CODEC) == how
    assert written.unread == ["image_processor_type"]


def test_in_the_file_of_a_whole_processor(tmp_path: Path) -> None:
    tree = processor_tree(replace(CODEC, pixels=PixelsConfig(resize="crop", edge=60, filter="lanczos")))
    (tmp_path / PROCESSOR).write_text(json.dumps({"processor_class": "X", "image_processor": tree}))
    assert read_pixels(processor(tmp_path), CODEC) == PixelsConfig(resize="crop", edge=60, filter="lanczos")
    (tmp_path / PROCESSOR).write_text(json.dumps({"processor_class": "X"}))
    assert processor(tmp_path) is None


@pytest.mark.parametrize(
    ("tree", "own", "want"),
    [
        # A number alone means what it means in the family; keys of the first years.
        ({"size": 40, "feature_extractor_type": "ViTFeatureExtractor"}, {}, {"size": 40}),
        ({"size": 40}, {"resize": "crop"}, {"resize": "crop", "edge": 40}),
        ({}, {"resize": "crop", "edge": 60}, {"resize": "crop", "edge": 60}),
        ({"image_mean": 0.5, "image_std": [0.25] * 3}, {"mean": (0.1,)}, {"std": (0.25,)}),
        ({"do_center_crop": False, "size": {"height": 48, "width": 48}}, {"resize": "crop", "edge": 60}, {}),
        ({"do_pad": False, "resample": 0, "crop_pct": None}, {}, {"filter": "nearest"}),
    ],
)
def test_what_a_file_leaves_out(tree: dict[str, Any], own: dict[str, Any], want: dict[str, Any]) -> None:
    codec = replace(CODEC, pixels=PixelsConfig(**own))
    assert read_pixels(ConfigReader(tree, "x"), codec) == PixelsConfig(**want)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("do_resize", False),
        ("do_rescale", False),
        ("do_pad", True),
        ("do_image_splitting", True),
        ("do_flip_channel_order", True),
        ("crop_pct", 0.875),
        ("rescale_factor", 1 / 127.5),
        ("resample", 9),
        ("resample", "bicubic"),
        ("size", {"height": 48, "width": 40}),
        ("size", {"shortest_edge": 48, "longest_edge": 90}),
        ("size", {}),
        ("size", 0),
        ("size", {"height": 2**40, "width": 2**40}),
        ("crop_size", {"height": 48, "width": 40}),
        ("crop_size", {"height": 2**14, "width": 2**14}),
        ("crop_size", 2**14),
        ("image_mean", [0.1, 0.2]),
        ("image_std", [0.5, 0.5, 0]),
        ("image_mean", [0.5, "a", 0.5]),
        ("image_mean", [0.5, float("nan"), 0.5]),
        ("do_center_crop", "yes"),
    ],
)
def test_what_we_lack_is_refused_by_name(key: str, value: Any) -> None:
    tree = processor_tree(replace(CODEC, pixels=PixelsConfig(resize="crop"))) | {key: value}
    with pytest.raises(ConfigError, match=f"{key}|height" if "size" in key else key):
        read_pixels(ConfigReader(tree, "preprocessor_config.json"), CODEC)


def test_the_middle_of_no_fixed_size_is_refused() -> None:
    tree = {"do_center_crop": False, "size": {"shortest_edge": 48}}
    with pytest.raises(ConfigError, match="do_center_crop"):
        read_pixels(ConfigReader(tree, "x"), CODEC)


KEYS = [*processor_tree(replace(CODEC, pixels=PixelsConfig(resize="crop"))), "do_pad", "crop_pct", "odd"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "3", 48, 224, 3, 0.5]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["height", "width", "shortest_edge", "longest_edge"]), inner)
    ),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_any_file_is_read_or_refused(tree: dict[str, Any]) -> None:
    """And what is read makes pixels that are numbers, of the size that it says, and is written so that it is read again."""
    try:
        how = read_pixels(ConfigReader(tree, "x"), CODEC)
    except ConfigError:
        return
    codec = replace(CODEC, pixels=how)
    assert read_pixels(ConfigReader(processor_tree(codec), "again"), CODEC) == how
    if codec.side <= 512 and (how.edge or codec.side) <= 512:
        assert prepared(photo(30, 20), codec).shape == (3, codec.side, codec.side)


def saved(path: Path, theirs: Any, processor: Any) -> None:
    shaken(theirs)
    theirs.save_pretrained(path)
    processor.save_pretrained(path)


def test_from_files_to_vectors_as_transformers(tmp_path: Path) -> None:
    """DINOv2 as published: positions for one size, pictures of another."""
    theirs = transformers.Dinov2Model(transformers.Dinov2Config(**SMALL | {"image_size": 56}))
    how = {"size": {"shortest_edge": 50}, "crop_size": {"height": 42, "width": 42}}
    made = transformers.BitImageProcessor(**how)
    saved(tmp_path / "m", theirs, made)
    files = []
    for i, size in enumerate([(60, 40), (41, 90), (42, 42)]):
        files.append(tmp_path / f"{i}.png")
        photo(*size, seed=i).save(files[-1])
    with torch.no_grad():
        want = theirs(**made([Image.open(f) for f in files], return_tensors="pt")).pooler_output
    base = onebase.load(tmp_path / "m")
    assert base.config.image.size == 56 and base.config.image.side == 42
    torch.testing.assert_close(base.embed_images(files), want, atol=1e-5, rtol=1e-5)
    base.export(tmp_path / "out")
    again = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
    twin = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        said = twin(**again([Image.open(f) for f in files], return_tensors="pt")).pooler_output
    torch.testing.assert_close(said, want, atol=1e-5, rtol=1e-5)
    third = onebase.load(tmp_path / "out")
    assert third.config == base.config and third.fingerprint == base.fingerprint


def test_from_files_to_classes_as_transformers(tmp_path: Path) -> None:
    names = {i: f"kind {i}" for i in range(4)}
    cfg = transformers.ViTConfig(**SMALL, intermediate_size=40, id2label=names)
    theirs = transformers.ViTForImageClassification(cfg)
    made = transformers.ViTImageProcessor(size={"height": 28, "width": 28})
    saved(tmp_path / "m", theirs, made)
    photo(50, 33).save(tmp_path / "a.jpg")
    pixels = made(Image.open(tmp_path / "a.jpg"), return_tensors="pt")
    with torch.no_grad():
        want = theirs(**pixels).logits.softmax(-1)[0]
    (found,) = onebase.load(tmp_path / "m").classify_images([tmp_path / "a.jpg"])
    assert found.scores == pytest.approx({names[i]: float(want[i]) for i in names}, abs=1e-5)
    assert found.label == names[int(want.argmax())]


def test_a_vit_takes_pictures_of_another_size_than_its_own(tmp_path: Path) -> None:
    theirs = transformers.ViTModel(transformers.ViTConfig(**SMALL, intermediate_size=40))
    made = transformers.ViTImageProcessor(size={"height": 42, "width": 42})
    saved(tmp_path / "m", theirs, made)
    photo(50, 33).save(tmp_path / "a.png")
    pixels = made(Image.open(tmp_path / "a.png"), return_tensors="pt")
    with torch.no_grad():
        want = theirs(**pixels, interpolate_pos_encoding=True).last_hidden_state[:, 0]
    found = onebase.load(tmp_path / "m").embed_images(tmp_path / "a.png")
    torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-5)


def test_without_the_file_the_family_s_own_steps_hold_and_the_record_says_what_was_read(
    tmp_path: Path,
) -> None:
    theirs = transformers.Dinov2Model(transformers.Dinov2Config(**SMALL))
    theirs.save_pretrained(tmp_path)
    plain = onebase.load(tmp_path)
    assert plain.config.image.side == 224 and plain.config.image.pixels.edge == 256
    (tmp_path / PREPROCESSOR).write_text(
        json.dumps({"size": {"shortest_edge": 70}, "crop_size": 56, "odd": 1})
    )
    told = onebase.load(tmp_path)
    assert told.config.image.side == 56
    assert f"{PREPROCESSOR}: odd" in told.record.get("imported.unread")
    assert plain.fingerprint != told.fingerprint  # another preparation is another base


def test_a_broken_file_is_refused_by_name(tmp_path: Path) -> None:
    onebase.load(sighted(tmp_path / "b")).export(tmp_path / "hf")
    (tmp_path / "hf" / PREPROCESSOR).write_text("{")
    with pytest.raises(ArtifactError, match=PREPROCESSOR):
        onebase.load(tmp_path / "hf")
    (tmp_path / "hf" / PREPROCESSOR).write_text('{"size": "big"}')
    with pytest.raises(ConfigError, match=f"{PREPROCESSOR}: 'size' is 'big'"):
        onebase.load(tmp_path / "hf")
