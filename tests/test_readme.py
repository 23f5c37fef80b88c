"""What the README and docs/commands.md show is run as it stands, on a tiny base in place of the demo's."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml

from onebase.cli import app
from onebase.cli.names import BUILT_IN, OPTIONS, from_tables, options_of_tables
from onebase.pretraining.objectives import OBJECTIVES, NextTokenConfig
from onebase.pretraining.recipe import Recipe
from onebase.tasks.options import AdaptOptions
from onebase.tasks.table import METHODS, PREDICTIONS, TASKS
from tests.native import saved as native
from tests.pictures import cutting, photos, sighted
from tests.pretrained import onebase, tiny_run
from tests.residues import esm
from tests.spoken import hearing, noise

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
NAMES = [
    "demo",
    "pretrain",
    "plan",
    "adapt",
    "combine",
    "merge",
    "eval",
    "compare",
    "audit",
    "apply",
    "embed",
    "search",
    "generate",
    "chat",
    "images",
    "segment",
    "contacts",
    "caption",
    "draw",
    "speak",
    "transcribe",
    "serve",
    "import",
    "export",
    "quantize",
    "student",
    "list",
    "show",
    "verify",
]
# What makes a recipe small enough to train here.
SMALL = "train.steps=2 train.batch_size=2 train.sequence_length=64 model.context=64 model.width=32 model.depth=1 model.head_dim=16 model.vocab_size=300"


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def lines(text: str) -> list[list[str]]:
    """The command lines of a text's shell blocks, as words; continued lines joined."""
    joined = "\n".join(blocks(text, "sh")).replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what a clone has and the commands read, with a tiny base where the demo puts its own."""
    for name in ("recipes", "examples", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "src" / "onebase" / "train", tmp_path / "src" / "onebase" / "train")
    shutil.copytree(tiny_run(), tmp_path / "runs" / "demo" / "pretrain")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_line(words: list[str]) -> None:
    """One `onebase` line of a document, made small where it would take long."""
    command = words[1]
    if command == "pretrain":
        words = [*words, *SMALL.split(), "--device", "cpu"]
    if command == "adapt":
        words = [*words, "-o", "epochs=1"]
    if command == "chat":
        words = [*words, "--temperature", "0"]  # a tiny base may draw an answer without a word
    said = onebase(*words[1:], stdin="Hello\n\n")
    # The rows of the example are too few for the controls of an audit: its status says so.
    assert said.status == (3 if command == "audit" else 0), (words, said.err)
    assert said.out.strip()


def serve_line(words: list[str]) -> None:
    """A `serve` line as a process on a free port, asked for its models."""
    at = words.index("--port")
    words = [*words[: at + 1], "0", *words[at + 2 :]]
    process = subprocess.Popen(
        [sys.executable, "-m", "onebase.cli", *words[1:]],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = ""
        while not (found := re.search(r"Serving on (\S+)", said)):
            line = process.stderr.readline()
            assert line, said
            said += line
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{found[1]}/models", timeout=600) as answer:
            served = answer.read().decode()
        assert all(f'"{w.partition("=")[0]}"' in served for b, w in pairwise(words) if b == "--adapter")
    finally:
        process.terminate()
        process.communicate(timeout=600)
    assert process.returncode == 0


def test_the_two_commands_stand_at_the_top_and_exist() -> None:
    assert blocks(README, "sh")[0].startswith("make demo")
    for target in ("demo", "test", "install"):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
    assert (
        "onebase demo --out"
        in subprocess.run(
            ["make", "-n", "demo", "MINUTES=60"], cwd=ROOT, capture_output=True, text=True, timeout=600
        ).stdout
    )


def test_the_commands_of_the_readme(clone: Path) -> None:
    found = [words for words in lines(README) if words[0] == "onebase"]
    assert {words[1] for words in found} >= set(NAMES) - {
        "demo",  # run by .ci/run
        "combine",  # in the manual
        "student",  # in the manual
        "embed",  # in the manual
        "search",  # in the manual
        "list",  # in the manual
        "compare",  # in the manual
        "merge",  # in the manual
        "audit",  # in the manual
        "images",  # in the manual, on a base that sees
        "segment",  # in the manual, on a base that cuts
        "transcribe",  # in the manual, on a base that listens
        "contacts",  # in the manual, on a base of proteins
        *("caption", "draw", "speak"),  # in the manual, on a base that does
        "import",  # these three are in the manual, on a base that can be exported
        "export",
        "quantize",
    }
    for words in found:
        (serve_line if words[1] == "serve" else run_line)(words)
    others = {words[0] for words in lines(README)} - {"onebase"}
    assert others == {"make", "curl"}
    assert any(words[0] == "curl" and words[-1].endswith("/v1/models") for words in lines(README))


def test_the_commands_of_the_manual(clone: Path) -> None:
    found = [words for words in lines(COMMANDS) if words[0] == "onebase"]
    assert {words[1] for words in found} >= set(NAMES)
    (clone / "data").mkdir()
    (clone / "data" / "a.jsonl").write_text('{"text": "one"}\n')
    onebase(
        "adapt",
        "runs/demo/pretrain",
        "--data",
        "examples/opinions/train.jsonl",
        "--method",
        "head",
        "--out",
        "runs/opinions",
    )
    onebase(
        *("adapt", "runs/demo/pretrain", "--data", "examples/chats.jsonl", "--task", "chat"),
        *("-o", "epochs=1", "--out", "runs/chat"),
    )
    sighted(clone / "bases" / "dinov2")
    cutting(clone / "bases" / "sam")
    photos(clone / "photos", "a", "b")
    native(clone / "bases" / "native")
    esm(clone / "bases" / "esm2")
    Path("protein.fasta").write_text(">one\nMKTAYIAKQRQISFVKSHFSRQ\n")
    noise(hearing(clone / "bases" / "whisper").parents[1] / "interview.wav")
    for words in found:
        if words[1] in ("demo", "serve"):
            continue
        if "--out" in words and Path(words[words.index("--out") + 1]).exists():
            words = [*words, "--out", words[words.index("--out") + 1] + "-again"]
        run_line(words)


def test_the_python_of_the_readme(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks(README, "python")
    assert 10 <= len([line for line in code.splitlines() if line.strip()]) <= 20
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    said = capsys.readouterr().out
    assert "accuracy" in said
    assert said.strip().endswith("True")


def test_the_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        if target != "docs/report.png":  # a picture of the demo's report
            assert (ROOT / target).is_file(), target


def test_help_without_the_tables_has_their_names() -> None:
    assert from_tables() == BUILT_IN


def test_options_without_the_tables_are_theirs() -> None:
    """Where this fails an option has changed: python -m onebase.cli.names writes the file anew."""
    assert json.loads(OPTIONS.read_text()) == json.loads(json.dumps(asdict(options_of_tables())))


def test_help_of_adapt_imports_no_torch() -> None:
    code = "import sys\nfrom onebase.cli import main\nsys.argv = ['onebase', 'adapt', '--help']\ntry:\n    main()\nfinally:\n    assert 'torch' not in sys.modules"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0 and "rerank" in found.stdout, found.stderr


def test_every_command_has_help_with_an_example() -> None:
    assert [c.name or c.callback.__name__ for c in app.registered_commands if c.callback] == NAMES
    said = onebase("--help")
    assert said.status == 0
    for name in NAMES:
        assert re.search(rf"^\W*{name} ", said.out, re.M), name
        page = onebase(name, "--help")
        assert page.status == 0
        assert "Example:" in page.out
        assert f"onebase {name} " in page.out


def keys(cls: Any, prefix: str = "") -> dict[str, Any]:
    """Every key of a config, dotted, with its default (None when it must be given or is not set)."""
    out: dict[str, Any] = {}
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.name == "objective":  # one of several, each with keys of its own
            for own in (keys(o.config, "objective.") for o in OBJECTIVES.values()):
                out |= own | {k: "by objective" for k in own.keys() & out.keys() if own[k] != out[k]}
            out["objective"] = out.pop("objective.kind") and NextTokenConfig().kind
            continue
        kinds = [k for k in (hints[field.name], *get_args(hints[field.name])) if dataclasses.is_dataclass(k)]
        given = None if field.default is dataclasses.MISSING else field.default
        given = given if field.default_factory is dataclasses.MISSING else field.default_factory()
        if kinds and field.name != "sources":
            out |= keys(kinds[0], f"{prefix}{field.name}.")
        else:
            out[prefix + field.name] = list(given) if isinstance(given, tuple) else given
    return out


@pytest.mark.parametrize(("cls", "document"), [(Recipe, "training"), (AdaptOptions, "adaptation")])
def test_the_manuals_list_every_key_with_its_default(cls: type, document: str) -> None:
    text = (ROOT / "docs" / f"{document}.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^\| `([\w.]+)` \| ([^|]+) \|", text, re.M))
    shown.pop("train.muon", None)  # its keys stand below it
    wanted = keys(cls)
    if cls is AdaptOptions:
        del wanted["of_task"], wanted["of_method"]  # the options of each, in their own classes
        for owner in (*TASKS.values(), *METHODS.values()):
            own = keys(owner.options)
            wanted |= own | {k: "by task" for k in own.keys() & wanted.keys() if own[k] != wanted[k]}
        shown = {k: v for k, v in shown.items() if k in wanted}
    assert set(shown) == set(wanted)
    for key, default in wanted.items():
        said = shown[key]
        assert said == str(default) or (None if said == "-" else yaml.safe_load(said)) == default, key


@pytest.mark.parametrize("document", ["continued", "distillation", "preferences", "reinforcement"])
def test_the_pages_of_tasks_give_the_defaults_of_the_code(document: str) -> None:
    text = (ROOT / "docs" / f"{document}.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| option \| default \| meaning \|\n((?:\|.*\n)+)", text, re.M)
    shown = re.findall(r"^\| `([\w.]+)` \| ([^|]+) \| ", table, re.M)
    wanted = {k: v for task in TASKS.values() for k, v in keys(task.options).items()} | keys(AdaptOptions)
    given = {key: None if said == "-" else yaml.safe_load(said) for key, said in shown if key in wanted}
    group = min(key.partition(".")[0] for key in given if "." in key)
    assert {key for key in wanted if key.startswith(f"{group}.")} <= given.keys()
    for key, said in given.items():
        assert said == wanted[key], key


@pytest.mark.parametrize(
    ("command", "before", "known"),
    [
        ("adapt", "Task:", TASKS),
        ("adapt", "Method:", METHODS),
        ("eval", "Task to score:", PREDICTIONS),
        ("eval", "completions (tasks", [t.name for t in TASKS.values() if t.takes_judge]),
        ("apply", "Tasks:", [t.name for t in TASKS.values() if t.answer]),
    ],
)
def test_the_help_names_every_task_and_method(command: str, before: str, known: Iterable[str]) -> None:
    said = " ".join(re.sub(r"[│╭╮╰╯─]", " ", onebase(command, "--help").out).split())
    assert f"{before} {', '.join(known)}" in said


def test_the_manual_lists_every_task_with_its_methods_and_its_path() -> None:
    """The table of docs/adaptation.md is that of the code, and so are the paths of docs/serving.md."""
    text = (ROOT / "docs" / "adaptation.md").read_text(encoding="utf-8")
    (head,) = re.findall(r"^\| task \| a row of data \| (.+) \|$", text, re.M)
    columns = [names.split(", ") for names in head.split(" | ")]
    assert {m for names in columns for m in names} == set(METHODS)
    rows = re.findall(r"^\| `(\w+)`(?: \(docs/\w+\.md\))? \| .+? \| ((?:(?:yes|-) \| ?)+)$", text, re.M)
    assert {task for task, _ in rows} == set(TASKS)
    for task, cells in rows:
        for names, cell in zip(columns, cells.strip(" |").split(" | "), strict=True):
            for method in names:
                assert (method in TASKS[task].makers) == (cell == "yes"), (task, method)
                assert (method in TASKS[task].refused) != (method in TASKS[task].makers), (task, method)
    served = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^\| `POST (/v1/[\w/]+)` \|", served, re.M))
    assert shown == {"/v1/chat/completions", "/v1/completions", *(t.path for t in TASKS.values() if t.answer)}
