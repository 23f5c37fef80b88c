"""What the pages name exists: options of commands, modules and their parts, files of the repository, other pages and their headings."""

import importlib
import re
from pathlib import Path

import pytest
import typer

from onebase.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted(p for p in (ROOT / "docs").rglob("*.md") if p.stem != "log")
NAMES = [p.stem for p in PAGES]
OPTIONS = {"serving": "serve", "speech": "transcribe", "images": "images", "audits": "audit", "demo": "demo"}
"""Pages whose tables list every option of a command."""
EVERYWHERE = {"--help", "--device", "--dtype"}


def prose(page: Path) -> str:
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Headings as links name them."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", OPTIONS)
def test_the_table_of_options_is_that_of_the_command(page: str) -> None:
    command = typer.main.get_command(app).commands[OPTIONS[page]]
    known = {name for p in command.params for name in p.opts if name.startswith("--")}
    rows = re.findall(r"^\| (`--[^|]+) \|", prose(ROOT / "docs" / f"{page}.md"), re.M)
    shown = {name for row in rows for name in re.findall(r"--[a-z-]+", row)}
    assert shown | EVERYWHERE == known | EVERYWHERE


def test_options_of_eval_and_compare_exist() -> None:
    before, _, rest = prose(ROOT / "docs" / "evaluation.md").partition("\n## Compare")
    section, _, after = rest.partition("\n## ")
    for command, text in (("eval", before + after), ("compare", section)):
        known = {name for p in typer.main.get_command(app).commands[command].params for name in p.opts}
        shown = re.findall(r"^\| `(--[a-z-]+)", text, re.M)
        assert len(shown) > 5 and set(shown) <= known


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_modules_and_their_parts_exist(page: Path) -> None:
    for name in re.findall(r"`(onebase(?:\.\w+)+)[`(]", prose(page)):
        parts = name.split(".")
        found = importlib.import_module("onebase")
        for i, part in enumerate(parts[1:], 2):
            if not hasattr(found, part):
                importlib.import_module(".".join(parts[:i]))
            found = getattr(found, part)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_of_the_repository_exist(page: Path) -> None:
    for name in re.findall(
        r"\b((?:tests|src|bench|examples|recipes|fuzz|docs)/[\w/.-]+\.(?:py|md|yaml|jsonl|csv))\b",
        prose(page),
    ):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", prose(page)):
        name, _, heading = target.partition("#")
        there = page.parent / name if name else page
        assert there.exists(), target
        assert not heading or heading in anchors(there), target


def test_the_names_of_our_side_exist() -> None:
    """Each call, command, option, task and method in the right column of docs/coming_from.md, and theirs where the package is installed."""
    import onebase
    from onebase.tasks.option_names import OptionNames
    from onebase.tasks.options import option_names
    from onebase.tasks.table import METHODS, TASKS

    names: OptionNames = option_names()
    options = {*names.common, *(k for own in (*names.tasks.values(), *names.methods.values()) for k in own)}
    commands = typer.main.get_command(app).commands
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", (ROOT / "docs" / "coming_from.md").read_text(), re.M)
    ours = "\n".join(right for _, right in rows)
    for name in re.findall(r"\bBase\.(\w+)", ours):
        assert hasattr(onebase.Base, name), name
    for name in re.findall(r"\bonebase\.(\w+)", ours):
        assert name in onebase.__all__, name
    used = re.findall(r"`onebase ([a-z]+)([^`]*)", ours)
    assert len(used) > 15
    for command, rest in used:
        known = {name for p in commands[command].params for name in p.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, (command, rest)
    for kind, known in (("task", TASKS), ("method", METHODS)):
        said = re.findall(rf"--{kind} (\w+)|{kind}=\"(\w+)\"", ours)
        said += [
            (w, "")
            for found in re.findall(rf"\b{kind}s? ((?:`\w+`(?:, | and | or )?)+)", ours)
            for w in re.findall(r"\w+(?=`)", found)
        ]
        assert said and {a or b for a, b in said} <= set(known), kind
    for name in re.findall(r"options? ((?:`[^`]+`(?:, )?)+)", ours):
        assert {w.partition("=")[0] for w in re.findall(r"`([^`]+)`", name)} <= options, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "names"),
    [
        (
            "transformers",
            "AutoModelForCausalLM TextIteratorStreamer Trainer TrainingArguments TrainerCallback BitsAndBytesConfig pipeline",
        ),
        ("peft", "LoraConfig get_peft_model PromptTuningConfig PrefixTuningConfig PeftModel"),
        ("sentence_transformers", "SentenceTransformer CrossEncoder util"),
    ],
)
def test_the_names_of_their_side_exist(package: str, names: str) -> None:
    there = pytest.importorskip(package)
    page = (ROOT / "docs" / "coming_from.md").read_text()
    for name in names.split():
        assert f"{name}" in page and hasattr(there, name), name
