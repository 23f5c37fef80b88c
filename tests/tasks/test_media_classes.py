"""Task classify on images and sounds of a base of patches: a head, LoRA, scores, the command, and mistakes."""

import base64
import json
import shutil
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import onebase
from onebase.api.base import Base
from onebase.engine.features import features, remembering
from onebase.engine.media_prompts import media_tokens
from onebase.errors import DataError, UserError
from onebase.serve.adapters import app_of
from tests.native import native, saved
from tests.pretrained import onebase as command


@pytest.fixture(scope="module")
def base() -> Base:
    return native()


def pictures(folder: Path, count: int = 24) -> list[dict[str, Any]]:
    """Bars that lie or stand, where they like."""
    draws, rows = np.random.default_rng(0), []
    for i in range(count):
        pixels = draws.integers(0, 60, (16, 16)).astype(np.uint8)
        at, lies = int(draws.integers(2, 12)), i % 2 == 0
        pixels[(slice(at, at + 3), slice(None)) if lies else (slice(None), slice(at, at + 3))] = 250
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append({"image": f"{i}.png", "label": "lies" if lies else "stands"})
    return rows


def sounds(folder: Path, count: int = 16) -> list[dict[str, Any]]:
    """Low and high tones."""
    rows = []
    for i in range(count):
        high = i % 2 == 1
        tone = np.sin(np.arange(6400) / 16000 * 2 * np.pi * ((2000 if high else 200) + 9 * i))
        with wave.open(str(folder / f"{i}.wav"), "wb") as f:
            f.setnchannels(1)
            f.setsampwidth(2)
            f.setframerate(16000)
            f.writeframes((tone * 9000).astype("<i2").tobytes())
        rows.append({"audio": f"{i}.wav", "label": "high" if high else "low"})
    return rows


def written(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder / name


@pytest.mark.parametrize("make", [pictures, sounds])
def test_a_head_on_media_learns_and_is_scored(make: Any, base: Base, tmp_path: Path) -> None:
    rows = make(tmp_path)
    kind = next(iter(rows[0]))
    data, test = written(tmp_path, rows[:-8]), written(tmp_path, rows[-8:], "test.jsonl")
    adapter = base.adapt(data, task="classify", method="head", test=test)
    assert adapter.parts.config.head is not None and adapter.parts.config.head.reads == kind
    on = base.with_adapter(adapter)
    files = [tmp_path / r[kind] for r in rows[-8:]]
    found = on.classify(files)
    truth = [r["label"] for r in rows[-8:]]
    assert [f.label for f in found] == truth
    scores = onebase.evaluate(on, test)
    assert scores["accuracy"].value == 1.0
    # A record names files by what is in them, wherever they are.
    (tmp_path / "moved").mkdir()
    moved = [{**r, kind: f"x{r[kind]}"} for r in rows[:-8]]
    for was, now in zip(rows, moved, strict=False):
        shutil.copy(tmp_path / was[kind], tmp_path / "moved" / now[kind])
    again = base.adapt(written(tmp_path / "moved", moved), task="classify", method="head")
    assert again.record.get("data.fingerprint") == adapter.record.get("data.fingerprint")
    assert again.fingerprint == adapter.fingerprint
    if kind == "image":
        assert [f.label for f in on.classify_images(files)] == truth


def test_lora_learns_from_pictures(base: Base, tmp_path: Path) -> None:
    rows = pictures(tmp_path)
    adapter = base.adapt(written(tmp_path, rows), task="classify", method="lora", epochs=2, batch_size=8)
    assert adapter.record.get("train.steps") == 6
    found = base.with_adapter(adapter).classify([{"image": tmp_path / r["image"]} for r in rows[:4]])
    assert [f.label for f in found] == [r["label"] for r in rows[:4]]


def test_several_labels_of_a_picture(base: Base, tmp_path: Path) -> None:
    rows = [
        {"image": r["image"], "labels": [r["label"], "any"][: 1 + i % 2]}
        for i, r in enumerate(pictures(tmp_path))
    ]
    on = base.with_adapter(base.adapt(written(tmp_path, rows), task="classify", method="head"))
    assert set(on.classify([tmp_path / "0.png"])[0].scores) == {"any", "lies", "stands"}
    assert onebase.evaluate(on, tmp_path / "rows.jsonl")["micro_f1"].value > 0.8


def test_features_of_a_picture_are_its_own(base: Base, tmp_path: Path) -> None:
    rows = pictures(tmp_path, 4)
    read = [media_tokens(base.loaded, ("image", tmp_path / r["image"])) for r in rows]
    together = features(base.loaded, read, "both", None)
    for i, tokens in enumerate(read):
        torch.testing.assert_close(
            features(base.loaded, [tokens], "both", None)[0], together[i], atol=1e-5, rtol=1e-5
        )
    assert (together[0] - together[1]).abs().max() > 1e-3
    with remembering(base.loaded):  # the same ids, and other pictures
        torch.testing.assert_close(features(base.loaded, read, "both", None), together, atol=1e-5, rtol=1e-5)


def test_the_commands(tmp_path: Path) -> None:
    folder = saved(tmp_path / "base")
    rows = written(tmp_path, pictures(tmp_path))
    args = ["adapt", str(folder), "--data", str(rows), "--method", "head", "--out", str(tmp_path / "bars")]
    assert command(*args).status == 0
    said = command(
        "apply", str(folder), "--adapter", str(tmp_path / "bars"), str(tmp_path / "3.png"), "--json"
    )
    assert json.loads(said.out)["label"] == "stands", said.err
    said = command("apply", str(folder), "--adapter", str(tmp_path / "bars"), "--data", str(rows))
    assert len(said.out.splitlines()) == 24 and "lies" in said.out
    said = command("eval", str(folder), "--data", str(rows), "--adapter", str(tmp_path / "bars"))
    assert "accuracy" in said.out, said.err


def test_mistakes(base: Base, tmp_path: Path) -> None:
    rows = pictures(tmp_path)
    (tmp_path / "5.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"jsonl:6: .*5\.png"):
        base.adapt(written(tmp_path, rows), task="classify", method="head")
    rows[5] = rows[7]
    with pytest.raises(DataError, match="no file"):
        base.adapt(
            written(tmp_path, [*rows, {"image": "none.png", "label": "lies"}]), task="classify", method="head"
        )
    good = written(tmp_path, rows[:5] + rows[6:])
    with pytest.raises(UserError, match="virtual tokens stand before a text"):
        base.adapt(good, task="classify", method="soft")
    with pytest.raises(UserError, match="counts=always"):
        base.adapt(good, task="classify", method="head", counts="always")
    on = base.with_adapter(base.adapt(good, task="classify", method="head"))
    with pytest.raises(DataError, match=r"gone\.png"):
        on.classify([tmp_path / "gone.png"])


def test_over_http_a_file_is_sent_and_no_path_is_read(base: Base, tmp_path: Path) -> None:
    client_of = pytest.importorskip("starlette.testclient").TestClient
    rows = pictures(tmp_path)
    on = base.with_adapter(base.adapt(written(tmp_path, rows), task="classify", method="head"), "bars")
    assert on.attached is not None
    with client_of(app_of(base, "native", {"bars": on.attached})) as client:

        def asked(image: str) -> Any:
            return client.post("/v1/classify", json={"model": "bars", "input": {"image": image}})

        raw = base64.b64encode((tmp_path / "3.png").read_bytes()).decode()
        assert asked(raw).json()["data"][0]["label"] == "stands"
        path = asked(str(tmp_path / "3.png"))
        assert path.status_code == 400 and "base64" in path.text
        broken = asked(base64.b64encode(b"no picture").decode())
        assert broken.status_code == 400 and "cannot be read as an image" in broken.text
