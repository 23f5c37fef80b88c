"""Bad input as a user meets it at the command line: status 1, one line of cause, at most one of remedy, nothing lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import onebase as package
from tests.pretrained import Said, onebase, tiny_run

ROOT = Path(__file__).parents[1]
GOOD = "".join(json.dumps({"text": f"The text {i} is good.", "label": "ab"[i % 2]}) + "\n" for i in range(12))
RECIPE = """\
name: x
data:
  sources:
    - {name: a, kind: jsonl, path: data.jsonl}
model: {width: 32, depth: 1, head_dim: 16, context: 64, vocab_size: 300}
train: {steps: 1, batch_size: 2, sequence_length: 64, device: cpu}
"""
LONG = "word " * 400


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with a good recipe and good rows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "data.jsonl").write_text(GOOD)
    return tmp_path


def refused(said: Said, *parts: str) -> None:
    """The command failed as it should, and what it said holds every part."""
    assert said.status == 1, said
    lines = said.err.splitlines()
    assert 1 <= len(lines) <= 2, said.err
    assert lines[0].startswith("error: ")
    assert all(line.startswith("  ") for line in lines[1:])
    assert "Traceback" not in said.err + said.out
    for part in parts:
        assert part in said.err, f"{part!r} is not in {said.err!r}"


def lines_of(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


# --- recipes ---------------------------------------------------------------------------------------------------------------


def test_wrong_recipe_key_has_file_line_and_the_nearest_key() -> None:
    Path("recipe.yaml").write_text(RECIPE.replace("steps:", "stepz:"))
    refused(onebase("pretrain", "recipe.yaml"), "recipe.yaml:6", "'train.stepz'", "did you mean 'steps'")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("nothing.yaml",), ("no recipe at nothing.yaml",)),
        (("recipe.yaml", "train.batch_size=many"), ("'train.batch_size' is 'many'", "whole number")),
        (("recipe.yaml", "train.batch_size"), ("'train.batch_size' is not key=value",)),
        (("recipe.yaml", "train.minutes=1"), ("steps and minutes", "exactly one")),
        (
            ("recipe.yaml", "train.sequence_length=100"),
            ("train.sequence_length 100 is larger than model.context 64",),
        ),
        (("recipe.yaml", "model.head_dim=15"), ("width 32 is not a multiple of head_dim 15",)),
        (("recipe.yaml", "--device", "gpu"), ("'train.device' is 'gpu'", "auto, cpu, cuda, mps")),
        (("recipe.yaml", "--dtype", "fp8"), ("'train.dtype' is 'fp8'", "auto, bf16, fp32")),
        (("recipe.yaml", "tokenizer.path=nothing.json"), ("no tokenizer at nothing.json",)),
        (("recipe.yaml", "objective={kind: infill, sources: [b]}"), ("objective.sources names 'b'", "a")),
        (("recipe.yaml", "data={dataset: nothing}"), ("nothing",)),
    ],
)
def test_a_recipe_that_cannot_be(words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    refused(onebase("pretrain", *words), *parts)


def test_after_a_mistake_the_same_folder_takes_the_mended_recipe() -> None:
    refused(
        onebase("pretrain", "recipe.yaml", "data.sources.0.path=missing.jsonl", "--out", "run"),
        "missing.jsonl",
    )
    refused(
        onebase("pretrain", "recipe.yaml", "objective={kind: infill, sources: [b]}", "--out", "run"), "'b'"
    )
    assert onebase("pretrain", "recipe.yaml", "--out", "run").status == 0
    said = onebase("pretrain", "recipe.yaml", "train.batch_size=4", "--out", "run")
    refused(said, "run contains a run of another recipe: 'train.batch_size' is 4, there 2\n", "--out")
    assert onebase("verify", "run").status == 0


def test_prepared_data_binds_the_folder_to_its_sources() -> None:
    refused(
        onebase("pretrain", "recipe.yaml", "objective={kind: infill, sources: [b]}", "--out", "run"), "'b'"
    )
    Path("other.jsonl").write_text(GOOD.replace("good", "bad"))
    said = onebase("pretrain", "recipe.yaml", "data.sources.0.path=other.jsonl", "--out", "run")
    refused(said, """'data.sources.0.path' is "other.jsonl", there "data.jsonl"\n""")


# --- data ------------------------------------------------------------------------------------------------------------------

FILES: dict[str, tuple[bytes | None, tuple[str, ...]]] = {
    "missing": (None, ("bad.jsonl: no such file",)),
    "empty": (b"", ("bad.jsonl: the file is empty",)),
    "binary": (b"\x7fELF\x00\x01\x02\n" * 9, ("bad.jsonl:1: a binary file",)),
    "broken line": (GOOD.encode() + b'{"text": "a",\n', ("bad.jsonl:13: not valid JSON",)),
    "missing column": (GOOD.encode() + b'{"txt": "a"}\n', ("bad.jsonl:13: no column 'text'", "txt")),
    "no UTF-8": ('{"text": "naïve", "label": "a"}\n'.encode("latin-1"), ("bad.jsonl:1: not UTF-8", "0xef")),
    "no text": (b'{"text": 3, "label": "a"}\n', ("bad.jsonl:1", "'text' is int")),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("command", ["pretrain", "adapt", "eval"])
def test_a_file_that_cannot_be_read(name: str, command: str, here: Path) -> None:
    content, parts = FILES[name]
    if content is not None:
        Path("bad.jsonl").write_bytes(content)
    if command == "pretrain":
        said = onebase("pretrain", "recipe.yaml", "data.sources.0.path=bad.jsonl", "--out", "out")
        parts = tuple(p.replace("'text' is int", "column 'text' is int") for p in parts)
    elif command == "adapt":
        said = onebase("adapt", tiny_run(), "--data", "bad.jsonl", "--method", "head", "--out", "out")
        parts = tuple(p.replace("'text'", "'text', 'label'") if "column" in p else p for p in parts)
    else:
        said = onebase("eval", tiny_run(), "--data", "bad.jsonl")
    refused(said, *parts)
    left = [p.name for p in here.rglob("*") if p.is_file() and p.suffix not in (".jsonl", ".yaml")]
    assert left in ([], ["recipe.json"]), left


@pytest.mark.parametrize(
    ("task", "row", "parts"),
    [
        ("classify", {"text": LONG, "label": "a"}, ("rows.jsonl:13 has", "the limit is 128")),
        ("complete", {"prompt": LONG, "completion": "x"}, ("rows.jsonl:13 has", "the limit is 128")),
        ("complete", {"prompt": "x", "completion": "  "}, ("'completion' is empty",)),
        (
            "chat",
            {"messages": [{"role": "user", "content": LONG}, {"role": "assistant", "content": "x"}]},
            ("rows.jsonl:13 has", "the limit is 128"),
        ),
        ("chat", {"messages": [{"role": "user", "content": "x"}]}, ("sample 13", "no token is supervised")),
        ("chat", {"messages": [{"role": "usr", "content": "x"}]}, ("rows.jsonl:13", 'unknown role "usr"')),
        ("chat", {"messages": "x"}, (":13: 'messages' is str",)),
    ],
)
def test_a_row_that_cannot_be_learnt(task: str, row: dict[str, object], parts: tuple[str, ...]) -> None:
    fine: dict[str, dict[str, object]] = {
        "classify": {"text": "x", "label": "b"},
        "complete": {"prompt": "x", "completion": "y"},
        "chat": {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
    }
    Path("rows.jsonl").write_text(lines_of(*[fine[task]] * 12, row))
    words = ["adapt", tiny_run(), "--data", "rows.jsonl", "--task", task, "-o", "epochs=1", "--out", "out"]
    if task == "classify":  # it reads long texts in windows, unless told otherwise
        words += ["-o", "long=refuse"]
    refused(onebase(*words), *parts)
    assert not Path("out").exists()


def test_a_label_seen_only_in_the_test_rows() -> None:
    assert onebase("adapt", tiny_run(), "--data", "data.jsonl", "--method", "head", "--out", "ad").status == 0
    Path("test.jsonl").write_text(lines_of({"text": "x", "label": "a"}, {"text": "y", "label": "zebra"}))
    refused(onebase("eval", tiny_run(), "--adapter", "ad", "--data", "test.jsonl"), "'zebra'", "a, b")
    refused(
        onebase("eval", tiny_run(), "--adapter", "ad", "--data", "test.jsonl", "--train", "data.jsonl"),
        "'zebra'",
    )


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("-o", "epoch=2"), ("unknown key 'epoch'", "did you mean 'epochs'")),
        (("-o", "epochs=0"), ("'epochs' is 0", "at least 1")),
        (("-o", "lr=-1"), ("'lr' is -1",)),
        (("-o", "sites=[zz]"), ("LoRA site 'zz'", "accepted: ")),
        (("--method", "haed"), ("'haed' is not known", "prompt, head, lora")),
        (("--task", "sort"), ("'sort'", "classify")),
        (("--method", "prompt"), ("needs `answers`",)),
    ],
)
def test_an_option_that_cannot_be(options: tuple[str, ...], parts: tuple[str, ...]) -> None:
    refused(onebase("adapt", tiny_run(), "--data", "data.jsonl", "--out", "out", *options), *parts)


def test_adapting_without_data() -> None:
    refused(onebase("adapt", tiny_run(), "--method", "head", "--out", "out"), "--data")


# --- bases, adapters, prompts ----------------------------------------------------------------------------------------------


def test_a_prompt_longer_than_the_context() -> None:
    refused(onebase("generate", tiny_run(), LONG), "the context of this base is 128 tokens", "shorten")
    refused(onebase("chat", tiny_run(), stdin=LONG + "\n"), "the context of this base is 128 tokens")
    refused(onebase("generate", tiny_run(), "-", stdin=LONG), "the context of this base is 128 tokens")


@pytest.mark.parametrize("command", [("generate", "hi"), ("chat",), ("eval", "--data", "data.jsonl")])
def test_an_unknown_adapter_name(command: tuple[str, ...]) -> None:
    said = onebase(command[0], tiny_run(), *command[1:], "--adapter", "nonsense")
    refused(said, "'nonsense' is neither a path nor a name in the store", "names in the store")


def test_serving_an_adapter_that_is_not_there() -> None:
    refused(onebase("serve", tiny_run(), "--adapter", "nonsense"), "'nonsense' is not NAME=DIR")
    refused(
        onebase("serve", tiny_run(), "--adapter", "a=nonsense"), "'nonsense' is neither a path nor a name"
    )


@pytest.mark.parametrize("command", ["generate", "show", "verify", "adapt", "serve"])
def test_an_unknown_base(command: str) -> None:
    more = {"generate": ["hi"], "adapt": ["--data", "data.jsonl", "--out", "out"]}.get(command, [])
    refused(onebase(command, "nonsense", *more), "'nonsense' is neither a path nor a name in the store")


def test_things_that_are_no_base() -> None:
    refused(onebase("generate", ".", "hi"), "no manifest.json")
    refused(onebase("generate", "data.jsonl", "hi"), "data.jsonl")
    refused(onebase("generate", tiny_run(), "hi", "--adapter", tiny_run() / "base"), "'base', not an adapter")


def test_an_adapter_of_another_base() -> None:
    assert onebase("adapt", tiny_run(), "--data", "data.jsonl", "--method", "head", "--out", "ad").status == 0
    other = package.pretrain("recipe.yaml", out="other", model__vocab_size=400)
    said = onebase("generate", "other", "hi", "--adapter", "ad")
    refused(said, "was made for a base with other", other.fingerprint[:16], "adapt this base again")


def test_a_changed_byte_is_named() -> None:
    package.pretrain("recipe.yaml", out="run")
    weights = Path("run/base/model-00001.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    refused(onebase("verify", "run/base"), "model-00001.safetensors")
    refused(onebase("generate", "run", "hi"), "model-00001.safetensors")


# --- output ----------------------------------------------------------------------------------------------------------------


def test_output_that_is_taken_is_said_before_the_work() -> None:
    Path("taken").mkdir()
    Path("taken/notes.txt").write_text("mine")
    refused(
        onebase("adapt", tiny_run(), "--data", "data.jsonl", "--out", "taken"),
        "taken already exists",
        "--out",
    )
    assert Path("taken/notes.txt").read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that nobody may write to")
def test_read_only_output() -> None:
    refused(onebase("pretrain", "recipe.yaml", "--out", "/proc/onebase"), "/proc/onebase")
    refused(
        onebase("adapt", tiny_run(), "--data", "data.jsonl", "--method", "head", "--out", "/proc/onebase"),
        "/proc/onebase",
    )


def test_a_file_where_the_output_folder_should_be() -> None:
    refused(onebase("pretrain", "recipe.yaml", "--out", "data.jsonl"), "data.jsonl")
    refused(
        onebase("adapt", tiny_run(), "--data", "data.jsonl", "--out", "data.jsonl"),
        "data.jsonl already exists",
    )
    assert Path("data.jsonl").read_text() == GOOD


# --- the real program ------------------------------------------------------------------------------------------------------


def test_the_program_shows_a_traceback_with_debug_only() -> None:
    env = {k: v for k, v in os.environ.items() if k != "ONEBASE_DEBUG"}
    command = [sys.executable, "-m", "onebase.cli"]
    words = ["plan", "nothing.yaml"]
    plain = subprocess.run([*command, *words], env=env, capture_output=True, text=True, timeout=600)
    refused(Said(plain.returncode, plain.stdout, plain.stderr), "no recipe at nothing.yaml")
    loud = subprocess.run([*command, "--debug", *words], env=env, capture_output=True, text=True, timeout=600)
    assert loud.returncode == 1
    assert "Traceback" in loud.stderr
    assert "no recipe at nothing.yaml" in loud.stderr


def test_a_wrong_word_on_the_command_line_shows_the_usage() -> None:
    for words in (["nocommand"], ["generate"], ["plan", "recipe.yaml", "--colour"]):
        said = onebase(*words)
        assert said.status == 2
        assert "Usage: onebase" in said.err
        assert "Traceback" not in said.err
