"""The state of learning is bound to what files and folders say that the request names: not to their names, and not only to them."""

import json
from pathlib import Path
from typing import Any

import pytest

from onebase.api.base import Base
from onebase.api.loading import pretrain
from onebase.base.folder import load_base, save_base
from onebase.config import from_dict
from onebase.errors import ArtifactError
from onebase.modality.text import ChatTemplate, TextCodec
from onebase.pretraining.recipe import Recipe
from tests.helpers import tiny_base

TEXTS = [{"text": f"the {w} is {w}"} for w in ("fox", "dog", "cat", "sun")]
LABELLED = [{"text": f"{w} {i}", "label": w} for i in range(4) for w in ("red", "blue")]
PAIRS = [{"prompt": f"{w} is", "chosen": f" {w}.", "rejected": " no"} for w in ("fox", "dog", "cat", "sun")]


def rows_file(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def judge(path: Path, version: int) -> str:
    (path / "judge.py").write_text(
        f"def worth(p, c, r):\n    return float(len(c) + {version})\n\ndef other(p, c, r):\n    return 1.0\n"
    )
    return f"{path / 'judge.py'}:worth"


def reward_model(path: Path, version: int) -> str:
    adapter = Base(load_base(path / "base")).adapt(PAIRS, task="reward", method="head", seed=version)
    adapter.parts.tensors["head.bias"] = adapter.parts.tensors["head.bias"] + version
    return str(adapter.save(path / "model", overwrite=True))


def teacher(path: Path, version: int) -> str:
    Base(tiny_base(7 + version)).save(path / "teacher", overwrite=True)
    return str(path / "teacher")


def sorting(path: Path, version: int) -> dict[str, str]:
    made = Base(load_base(Path(teacher(path, 0)))).adapt(LABELLED, task="classify", method="head")
    made.parts.tensors["head.bias"] = made.parts.tensors["head.bias"] + 0.1 * version
    return {"teacher": str(path / "teacher"), "adapter": str(made.save(path / "sorts", overwrite=True))}


def request(what: str, path: Path, version: int) -> dict[str, Any]:
    """What is asked, its files written anew."""
    more = TEXTS[: 2 + version]
    asked: dict[str, Any] = {
        "reinforce.reward": lambda: {
            "data": [{"prompt": "say"}] * 2,
            "task": "reinforce",
            "reinforce": {"reward": judge(path, version), "group": 2, "max_tokens": 2},
        },
        "a reward model": lambda: {
            "data": [{"prompt": "say"}] * 2,
            "task": "reinforce",
            "reinforce": {"reward": reward_model(path, version), "group": 2, "max_tokens": 2},
        },
        "distil.teacher": lambda: {
            "data": TEXTS,
            "task": "distil",
            "distil": {"teacher": teacher(path, version)},
        },
        "distil.adapter": lambda: {
            "data": [{"text": r["text"]} for r in LABELLED],
            "task": "distil",
            "distil": sorting(path, version),
        },
        "replay.data": lambda: {
            "data": TEXTS,
            "task": "continue",
            "replay": {"data": rows_file(path / "general.jsonl", more)},
        },
        "replay.test": lambda: {
            "data": TEXTS,
            "task": "continue",
            "test": rows_file(path / "test.jsonl", [{"text": "It was not so"}]),
            "replay": {"test": rows_file(path / "general.jsonl", more)},
        },
        "test": lambda: {
            "data": LABELLED,
            "task": "classify",
            "test": rows_file(path / "test.jsonl", [{"text": f"green {version}", "label": "red"}]),
        },
    }[what]()
    return asked


WHAT = [
    "reinforce.reward",
    "a reward model",
    "distil.teacher",
    "distil.adapter",
    "replay.data",
    "replay.test",
    "test",
]


@pytest.mark.parametrize("what", WHAT)
def test_another_content_of_the_same_name_is_refused_by_name(what: str, tmp_path: Path) -> None:
    save_base(tmp_path / "base", tiny_base())
    steps: dict[str, Any] = {
        "method": "lora",
        "rank": 2,
        "batch_size": 2,
        "epochs": 1,
        "resume": tmp_path / "state",
    }

    def go(version: int) -> str:
        asked = request(what, tmp_path, version)
        return Base(load_base(tmp_path / "base")).adapt(asked.pop("data"), **asked, **steps).fingerprint

    first = go(0)
    assert go(0) == first
    called = "reinforce.reward" if what == "a reward model" else what
    with pytest.raises(ArtifactError, match=rf"another {called} \({tmp_path}"):
        go(1)


def test_the_same_content_under_another_name_goes_on(tmp_path: Path) -> None:
    steps: dict[str, Any] = {
        "method": "lora",
        "rank": 2,
        "batch_size": 2,
        "epochs": 1,
        "resume": tmp_path / "state",
    }

    def go(name: str, function: str = "worth") -> str:
        (tmp_path / name).mkdir(exist_ok=True)
        reward = judge(tmp_path / name, 0).replace("worth", function)
        how = {"reward": reward, "group": 2, "max_tokens": 2}
        rows = [{"prompt": "say"}] * 2
        return Base(tiny_base()).adapt(rows, task="reinforce", reinforce=how, **steps).fingerprint

    assert go("here") == go("there")
    with pytest.raises(ArtifactError, match="reinforce.reward"):
        go("there", "other")


def test_what_is_no_longer_given_is_refused_too(tmp_path: Path) -> None:
    steps: dict[str, Any] = {"task": "classify", "method": "lora", "rank": 2, "resume": tmp_path / "state"}
    Base(tiny_base()).adapt(LABELLED, test=[{"text": "green", "label": "red"}], **steps)
    with pytest.raises(ArtifactError, match="another test"):
        Base(tiny_base()).adapt(LABELLED, **steps)


def test_another_template_of_the_base_is_refused(tmp_path: Path) -> None:
    steps: dict[str, Any] = {"task": "classify", "method": "lora", "rank": 2, "resume": tmp_path / "state"}
    Base(tiny_base()).adapt(LABELLED, **steps)
    other = tiny_base()
    other.text_codec = TextCodec(other.codec.tokenizer, ChatTemplate(ChatTemplate().source + " "))
    with pytest.raises(ArtifactError, match="base's template"):
        Base(other).adapt(LABELLED, **steps)


def test_a_run_folder_is_bound_to_what_its_sources_said(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for i in range(40):
        (texts / f"{i}.txt").write_text(f"The quick brown fox {i} jumps over the lazy dog.\n" * 8)
    tree = {
        "name": "small",
        "data": {"sources": [{"name": "a", "kind": "folder", "path": str(texts)}]},
        "model": {"width": 32, "depth": 1, "head_dim": 16, "context": 32, "vocab_size": 280},
        "train": {"steps": 2, "batch_size": 2, "sequence_length": 32, "device": "cpu"},
    }
    recipe = from_dict(Recipe, tree, "a test")
    made = pretrain(recipe, out=tmp_path / "run")
    assert pretrain(recipe, out=tmp_path / "run").fingerprint == made.fingerprint
    (texts / "7.txt").write_text("Something else.\n")
    with pytest.raises(ArtifactError, match=r"7\.txt \(source 'a'\) has changed since"):
        pretrain(recipe, out=tmp_path / "run")
    (texts / "7.txt").unlink()
    (texts / "new.txt").write_text("One more.\n")
    with pytest.raises(ArtifactError, match=r"new\.txt \(source 'a'\) did not exist when"):
        pretrain(recipe, out=tmp_path / "run")
    (texts / "new.txt").unlink()  # what is gone is not missed: the data is made
    assert pretrain(recipe, out=tmp_path / "run").fingerprint == made.fingerprint
    for damaged in (b"{", b"[]", b'{"a": 3}', b"\xff"):
        (tmp_path / "run" / "sources.json").write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"sources\.json was changed after it was written"):
            pretrain(recipe, out=tmp_path / "run")
