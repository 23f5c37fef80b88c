"""Images and texts in one space: what a user calls, beside transformers' own pipeline."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import pipeline

import onebase
from onebase import Base
from onebase.base.config import TextShape, text_base
from onebase.base.folder import LoadedBase
from onebase.base.model import BaseModel
from onebase.errors import ArtifactError, DataError, UserError
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.tokenizer import Tokenizer
from tests.engine.pictures import (
    some_pictures,
    write_clip,
    write_siglip,
)
from tests.formats.words import TEXTS
from tests.pretrained import onebase as command

WRITERS = {"clip": write_clip, "siglip": write_siglip}
LABELS = ["cat", "red house", "user of 123 tables"]
TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=sorted(WRITERS))
def pair(request: Any, tmp_path_factory: Any) -> tuple[Path, Any, Base, list[Path]]:
    """Folder, pipeline of transformers, base, pictures."""
    folder = tmp_path_factory.mktemp(request.param)
    model, words, pictures = WRITERS[request.param](folder)
    with torch.no_grad():
        model.logit_scale.fill_(2.0)
    model.save_pretrained(folder)
    said = pipeline("zero-shot-image-classification", model=model, tokenizer=words, image_processor=pictures)
    return folder, said, onebase.load(folder), some_pictures(folder / "pictures")


def test_classes_by_their_names_are_those_of_the_pipeline(pair: Any) -> None:
    _, said, base, paths = pair
    found = base.classify_images(paths, LABELS, template="a photo of a {label}")
    for path, label in zip(paths, found, strict=True):
        want = said(str(path), candidate_labels=LABELS, hypothesis_template="a photo of a {}")
        assert label.label == want[0]["label"]
        for x in want:
            assert label.scores[x["label"]] == pytest.approx(x["score"], abs=TOLERANCE)
    assert (sum(found[0].scores.values()) == pytest.approx(1)) == (said.model.config.model_type == "clip")


def test_texts_and_images_are_unit_vectors_in_one_space(pair: Any) -> None:
    _, _, base, paths = pair
    texts, images = base.embed(LABELS), base.embed_images(paths)
    assert texts.shape == (3, base.config.links[0].pair.width) and images.shape == texts.shape
    for made in (texts, images):
        torch.testing.assert_close(made.norm(dim=-1), torch.ones(3))
    one_by_one = torch.cat([base.embed([x]) for x in LABELS])
    torch.testing.assert_close(texts, one_by_one, atol=TOLERANCE, rtol=0)


def test_a_long_text_is_cut_as_there(pair: Any) -> None:
    _, said, base, _ = pair
    long = "the quick brown fox " * 40
    ids = said.tokenizer([long], return_tensors="pt", truncation=True, max_length=64)["input_ids"]
    with torch.no_grad():
        want = said.model.get_text_features(input_ids=ids).pooler_output[0]
    torch.testing.assert_close(base.embed([long])[0], want / want.norm(), atol=TOLERANCE, rtol=0)


def test_search_ranks_by_the_cosine(pair: Any) -> None:
    _, _, base, paths = pair
    found = base.search("a red house", paths)
    cosines = base.embed_images(paths) @ base.embed(["a red house"])[0]
    assert [f.path for f in found] == [paths[i] for i in cosines.argsort(descending=True).tolist()]
    assert [f.score for f in found] == pytest.approx(cosines.sort(descending=True).values.tolist(), abs=1e-6)
    assert base.search("a red house", paths, top=1) == found[:1]
    assert base.search("a red house", str(paths[0]))[0].path == paths[0]


def test_a_saved_base_and_an_exported_one_say_the_same(pair: Any, tmp_path: Path) -> None:
    _, said, base, paths = pair
    want = base.classify_images(paths, LABELS)
    base.save(tmp_path / "ours")
    base.export(tmp_path / "hf", format="hf")
    for folder in (tmp_path / "ours", tmp_path / "hf"):
        assert onebase.load(folder).classify_images(paths, LABELS) == want
    again = pipeline(
        "zero-shot-image-classification",
        model=type(said.model).from_pretrained(tmp_path / "hf"),
        tokenizer=said.tokenizer,
        image_processor=type(said.image_processor).from_pretrained(tmp_path / "hf"),
    )
    there = again(str(paths[0]), candidate_labels=LABELS, hypothesis_template="a photo of a {}")
    assert want[0].scores[there[0]["label"]] == pytest.approx(there[0]["score"], abs=TOLERANCE)


@pytest.mark.parametrize(
    ("labels", "template", "names"),
    [
        ([], "a {label}", "labels"),
        ("cat", "a {label}", "labels"),
        (["cat", " "], "a {label}", "labels"),
        (["cat", 3], "a {label}", "labels"),
        (["cat", "cat"], "a {label}", "given twice"),
        (["cat"], "a photo of a {}", "does not contain {label}"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(pair: Any, labels: Any, template: str, names: str) -> None:
    _, _, base, paths = pair
    with pytest.raises(UserError, match=names):
        base.classify_images(paths, labels, template=template)


def test_files_that_are_no_pictures_are_named(pair: Any, tmp_path: Path) -> None:
    _, _, base, paths = pair
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(DataError, match=r"text\.png"):
        base.classify_images([*paths, tmp_path / "text.png"], LABELS)
    with pytest.raises(DataError, match=r"none\.png"):
        base.search("a house", [tmp_path / "none.png"])
    with pytest.raises(UserError, match="the query"):
        base.search("  ", paths)
    with pytest.raises(UserError, match="top is 0"):
        base.search("a house", paths, top=0)


def test_a_tokenizer_that_does_not_end_texts_is_refused(tmp_path: Path) -> None:
    write_clip(tmp_path)
    tree = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree | {"post_processor": None}))
    with pytest.raises(ArtifactError, match="end token 513, which"):
        onebase.load(tmp_path).embed(["a house"])


def test_a_tokenizer_without_padding_cannot_fill_up(tmp_path: Path) -> None:
    write_siglip(tmp_path)
    said = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said | {"pad_token": None}))
    (tmp_path / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(ArtifactError, match="tokenizer has none"):
        onebase.load(tmp_path).embed(["a house"])


def test_a_base_of_text_alone_says_so(tmp_path: Path) -> None:
    model = BaseModel(text_base(TextShape(width=32, depth=1, head_dim=16, context=64, vocab_size=300)))
    model.reset(0)
    words = TextCodec(Tokenizer.train(TEXTS, 300))
    base = Base(LoadedBase(model.requires_grad_(False).eval(), words))
    with pytest.raises(UserError, match="no shared embedding space"):
        base.search("a house", ["a.png"])
    with pytest.raises(UserError, match="takes no images in its text"):
        base.generate("what is this?", images=["a.png"])
    with pytest.raises(UserError, match="takes no images in its text"):
        base.chat([{"role": "user", "content": [{"type": "image", "image": "a.png"}]}])
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    whole = base.chat([{"role": "user", "content": "Hello"}], max_tokens=5)
    assert base.chat([{"role": "user", "content": parts}], max_tokens=5) == whole


def test_the_command_says_what_python_says(pair: Any) -> None:
    folder, _, base, paths = pair
    files = [str(p) for p in paths]
    want = {str(p): x.scores for p, x in zip(paths, base.classify_images(paths, ["a", "b"]), strict=True)}
    said = command("images", str(folder), *files, "--label", "a", "--label", "b", "--json", "--device", "cpu")
    assert json.loads(said.out) == want
    said = command("images", str(folder), *files, "--query", "a", "--json", "--device", "cpu")
    assert json.loads(said.out) == {str(x.path): x.score for x in base.search("a", paths)}


@pytest.mark.parametrize(
    "words",
    [
        ["--label", "a", "--label", " "],
        ["--label", "a", "--query", "b"],
        ["--template", "a {label}"],
        ["--query", " "],
    ],
)
def test_the_command_refuses_in_two_lines(pair: Any, words: list[str]) -> None:
    said = command("images", str(pair[0]), str(pair[3][0]), *words, "--device", "cpu")
    assert said.status == 1 and said.err.startswith("error: ") and len(said.err.strip().splitlines()) == 2
