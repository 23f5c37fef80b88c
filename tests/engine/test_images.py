"""Pictures under a base, from Python and from the command line: vectors, classes, a new head, and clear refusals."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import onebase
from onebase import UserError
from onebase.engine.image_features import distinct, nearest
from onebase.errors import DataError
from tests.pictures import digits, photos, sighted
from tests.pretrained import onebase as command
from tests.pretrained import tiny_run

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`, `named` (with classes), `pictures/*.png` of digits, and rows of them in files."""
    root = tmp_path_factory.mktemp("images")
    sighted(root / "base")
    sighted(root / "named", classes=("crane", "dog", "crane"))
    rows = digits(root / "pictures", 30)
    train = [r for i, r in enumerate(rows) if i % 3]
    test = [r for i, r in enumerate(rows) if i % 3 == 0]
    for name, part in (("train", train), ("test", test)):
        (root / "pictures" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    return root


def files(folder: Path) -> list[Path]:
    return sorted((folder / "pictures").glob("*.png"))


def test_a_vector_for_each_whatever_stands_beside_it(folder: Path, tmp_path: Path) -> None:
    base = onebase.load(folder / "base")
    some = files(folder)[:5]
    wide = tmp_path / "wide.webp"
    Image.effect_noise((90, 31), 50).save(wide)
    made = base.embed_images([*some, wide, str(some[0])])
    assert made.shape == (7, 32) and made.dtype == torch.float32
    assert torch.equal(made[0], made[6])
    one = torch.cat([base.embed_images(p) for p in (*some, wide)])
    torch.testing.assert_close(made[:6], one, atol=1e-5, rtol=0)


def test_many_go_in_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onebase.engine import image_features as images

    base, some = onebase.load(folder / "base"), files(folder)[:9]
    whole = base.embed_images(some)
    monkeypatch.setattr(images, "batch_tokens", lambda _: 35)  # two pictures
    torch.testing.assert_close(base.embed_images(some), whole, atol=1e-5, rtol=0)


def test_a_broken_or_missing_file_is_named(folder: Path, tmp_path: Path) -> None:
    base, good = onebase.load(folder / "base"), files(folder)[0]
    (tmp_path / "bad.png").write_bytes(good.read_bytes()[:40])
    for name in ("bad.png", "none.png"):
        with pytest.raises(DataError, match=name):
            base.embed_images([good, tmp_path / name])
    with pytest.raises(UserError, match="no images were given"):
        base.embed_images([])


def test_classes_of_its_own(folder: Path) -> None:
    found = onebase.load(folder / "named").classify_images(files(folder)[:3])
    assert len(found) == 3
    for label in found:
        assert set(label.scores) == {"crane", "dog", "crane (2)"}
        assert sum(label.scores.values()) == pytest.approx(1, abs=1e-5)
        assert label.label == max(label.scores, key=label.scores.__getitem__)
    rows = [{"image": str(p), "label": "dog"} for p in files(folder)[:4]]
    assert onebase.evaluate(onebase.load(folder / "named"), rows, task="classify")["accuracy"].n == 4
    assert distinct(("a", "a", "a")) == ("a", "a (1)", "a (2)")


def test_a_head_learns_digits(folder: Path, tmp_path: Path) -> None:
    base = onebase.load(folder / "base")
    adapter = base.adapt(folder / "pictures" / "train.jsonl", task="classify", method="head")
    adapter.save(tmp_path / "digits")
    sorting = base.with_adapter(tmp_path / "digits")
    score = onebase.evaluate(sorting, folder / "pictures" / "test.jsonl")["accuracy"]
    assert score.low > 0.6 and score.n == 100  # a base with random weights; chance is 0.1
    assert adapter.record.get("data.rows") == 200
    rows = [json.loads(x) for x in (folder / "pictures" / "train.jsonl").read_text().splitlines()]
    rows = [r | {"image": folder / "pictures" / r["image"]} for r in rows]
    again = base.adapt(rows, task="classify", method="head", pooling="both")
    assert again.parts.config.head is not None and again.parts.config.head.reads == "image"
    assert len(base.with_adapter(again).classify_images(files(folder)[:2])) == 2
    with pytest.raises(UserError, match="seven: there is no such file"):
        sorting.classify(["seven"])


def test_the_adapter_wins_over_the_base_s_own_classes(folder: Path) -> None:
    base = onebase.load(folder / "named")
    adapter = base.adapt(folder / "pictures" / "train.jsonl", task="classify", method="head", pooling="mean")
    assert "digit 3" in base.with_adapter(adapter).classify_images(files(folder)[:1])[0].scores
    with pytest.raises(UserError, match="other weights"):
        onebase.load(folder / "base").with_adapter(adapter)


@pytest.mark.parametrize("pooling", ["last", "mean", "both", "all"])
@pytest.mark.parametrize("class_token", [True, False])
def test_what_heads_read(pooling: Any, class_token: bool, folder: Path, tmp_path: Path) -> None:
    from onebase.engine.image_features import features
    from onebase.modality.image.config import PoolConfig

    kind = PoolConfig(kind="first" if class_token else "mean")
    base = onebase.load(sighted(tmp_path / "x", class_token=class_token, pool=kind))
    some = files(folder)[:2]
    found = features(base.loaded, some, pooling, None)
    assert found.shape == (2, 32 * {"last": 1, "mean": 1, "both": 2, "all": 3}[pooling])
    if pooling == "last":
        assert torch.equal(found, base.embed_images(some))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"image": "none.png", "label": "a"}, {"image": "none.png", "label": "b"}], "none.png"),
        ([{"image": 3, "label": "a"}, {"image": 4, "label": "b"}], "row 1"),
        ([{"text": "x", "label": "a"}, {"text": "y", "label": "b"}], "image"),
    ],
)
def test_rows_that_are_no_pictures(rows: list[dict[str, Any]], said: str, folder: Path) -> None:
    with pytest.raises(DataError, match=said):
        onebase.load(folder / "base").adapt(rows, task="classify", method="head")


def test_what_needs_text_is_refused_and_says_why(folder: Path, tmp_path: Path) -> None:
    base = onebase.load(folder / "base")
    chats = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    for what in (
        lambda: base.generate("Hello"),
        lambda: base.chat([{"role": "user", "content": "Hello"}]),
        lambda: base.embed(["Hello"]),
        lambda: base.logits([1]),
        lambda: base.quantize(8),
        lambda: base.adapt(chats, task="chat", method="lora"),
        lambda: base.adapt([{"text": "a", "label": "b"}], task="classify", method="lora"),
        lambda: onebase.evaluate(base, [{"text": "a"}], task="text"),
        lambda: base.export(tmp_path / "x.gguf", format="gguf"),
    ):
        with pytest.raises(UserError, match=r"image|token"):
            what()
    with pytest.raises(UserError, match="no image classes"):
        base.classify_images(files(folder)[:1])


def test_a_base_of_text_says_that_it_sees_nothing(folder: Path) -> None:
    base = onebase.load(tiny_run())
    for what in (base.embed_images, base.classify_images):
        with pytest.raises(UserError, match="reads no images"):
            what(files(folder)[:1])
    said = command("images", tiny_run(), files(folder)[0])
    assert said.status == 1 and said.err.startswith("error: this base reads no images"), said.err


def test_saved_shown_verified_exported_and_back(folder: Path, tmp_path: Path) -> None:
    base, some = onebase.load(folder / "named"), files(folder)[:3]
    assert base.save(tmp_path / "copy") == base.fingerprint
    assert torch.equal(onebase.load(tmp_path / "copy").embed_images(some), base.embed_images(some))
    for name in ("show", "verify"):
        said = command(name, tmp_path / "copy")
        assert said.status == 0 and base.fingerprint in said.out.replace("\n", ""), said.err
    assert command("export", tmp_path / "copy", "--out", tmp_path / "hf").status == 0
    assert command("import", tmp_path / "hf", "--out", tmp_path / "again").status == 0
    again = onebase.load(tmp_path / "again")
    assert torch.equal(again.embed_images(some), base.embed_images(some))
    assert again.config.image == base.config.image


def test_the_command(folder: Path, tmp_path: Path) -> None:
    some = files(folder)[:3]
    said = command("images", folder / "named", *some, "--top", "2", "--device", "cpu")
    assert said.status == 0 and len(said.out.splitlines()) == 3
    assert all(line.count("crane") + line.count("dog") == 2 for line in said.out.splitlines())
    near = command("images", folder / "base", some[0], some[1], some[0], "--device", "cpu")
    assert near.out.splitlines()[0] == f"{some[0]}: nearest {some[0]} (cosine 1.000)"
    out = tmp_path / "v.npy"
    assert command("images", folder / "base", *some, "--out", out, "--device", "cpu").status == 0
    want = onebase.load(folder / "base").embed_images(some).numpy()
    assert np.array_equal(np.load(out, allow_pickle=False), want)
    for words in (["--out", out], ["--out", tmp_path / "v.txt"], []):
        refused = command("images", folder / "base", some[0], *words, "--device", "cpu")
        assert refused.status == 1 and refused.err.startswith("error: ")


def test_the_command_with_an_adapter_and_json(folder: Path, tmp_path: Path) -> None:
    data = folder / "pictures" / "train.jsonl"
    made = command("adapt", folder / "base", "--data", data, "--method", "head", "--out", tmp_path / "a")
    assert made.status == 0, made.err
    some = files(folder)[:2]
    said = command("images", folder / "base", *some, "--adapter", tmp_path / "a", "--json")
    tree = json.loads(said.out)
    assert set(tree) == {str(p) for p in some}
    assert set(tree[str(some[0])]) == {f"digit {i}" for i in range(10)}
    scores = command("eval", folder / "base", "--adapter", tmp_path / "a", "--data", data)
    assert scores.out.startswith("accuracy: ")


@pytest.mark.parametrize("words", [["generate", "x"], ["chat"], ["serve", "--port", "0"]])
def test_commands_for_text_are_refused_in_two_lines(words: list[str], folder: Path) -> None:
    said = command(words[0], folder / "base", *words[1:], "--device", "cpu", stdin="Hello\n")
    assert said.status == 1, said
    assert said.err.startswith("error: ") and len(said.err.splitlines()) == 2, said.err


def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "images.md").read_text()
    lines = re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S)[0].splitlines()
    assert len(lines) == 6
    onebase.load(sighted(tmp_path / "mine")).export(tmp_path / "models" / "dinov2-small")
    photos(tmp_path / "photos", *"abcdefgh")
    rows = [{"image": f"{name}.png", "label": "xy"[i % 2]} for i, name in enumerate("abcdefgh")]
    for name in ("labels", "more"):
        (tmp_path / "photos" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.chdir(tmp_path)
    for line in lines:
        said = command(*shlex.split(line)[1:])
        assert said.status == 0 and said.out.strip(), (line, said.err)


def test_the_nearest_is_another_one() -> None:
    at, cosine = nearest(torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 3.0]]))
    assert at.tolist() == [2, 2, 0]
    torch.testing.assert_close(cosine, torch.full((3,), 0.5**0.5))


def test_the_command_on_a_base_of_images_and_text(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tests.engine.pictures import write_clip

    write_clip(tmp_path / "clip")
    some = photos(tmp_path / "photos", "a", "b", "c")
    ref = ("images", tmp_path / "clip", *some, "--device", "cpu")
    said = command(*ref, "--label", "cat", "--label", "red house")
    assert said.status == 0 and all("cat" in x and "red house" in x for x in said.out.splitlines()), said.err
    found = json.loads(command(*ref, "--query", "a red house", "--json").out)
    assert set(found) == set(map(str, some))
    assert list(found.values()) == sorted(found.values(), reverse=True)
    refused = command(*ref, "--query", "a", "--out", tmp_path / "x.npy")
    assert refused.status == 1 and "one of them" in refused.err
