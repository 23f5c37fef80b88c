"""What docs/install.md says works: the wheel that `make wheel` builds, in an environment of its own, and an extra added later."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RECIPE = """
name: tiny
data:
  sources: [{name: notes, kind: text, path: notes.txt, licence: CC0-1.0}]
model: {width: 32, depth: 1, head_dim: 16, context: 64, vocab_size: 300}
train: {steps: 2, batch_size: 2, sequence_length: 64}
"""


def run(*words: str | Path, cwd: Path) -> str:
    """What a command says; nothing of this process's environment leads it to the source tree."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(w) for w in words],
        cwd=cwd,
        env=env | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, (words, done.stdout[-1000:], done.stderr[-3000:])
    return done.stdout + done.stderr


def test_the_page_lists_every_extra() -> None:
    extras = PROJECT["optional-dependencies"]
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    named = {name.strip(" `") for cell in rows for name in cell.split(",")}
    assert {name for name in named if not name.startswith("make")} == set(extras)


def test_the_demo_needs_nothing_that_the_tests_do_not_install() -> None:
    """The mark of the demo's environment is set when that of the tests is made."""
    (dev,) = (x for x in PROJECT["optional-dependencies"]["dev"] if x.startswith("onebase["))
    assert "demo" in dev.partition("[")[2].rstrip("]").split(",")


@pytest.mark.slow
def test_a_wheel_in_an_environment_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Water boils at one hundred degrees.\n\n" * 40)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    # The line of `make wheel`, with this environment's pip.
    making = run("make", "-n", "wheel", f"BIN={Path(sys.executable).parent}", cwd=ROOT)
    (line,) = (x for x in making.splitlines() if " pip wheel " in x)
    run("bash", "-c", line.replace("--wheel-dir dist", f"--wheel-dir {tmp_path}"), cwd=ROOT)
    (wheel,) = tmp_path.glob("onebase-*.whl")
    named = PAGE.partition("dist/onebase-")[2].partition("[")[0].split()[0]
    assert wheel.name == f"onebase-{named}"
    with zipfile.ZipFile(wheel) as z:
        inside = set(z.namelist())
    sources = {p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src").rglob("*") if p.is_file()}
    assert {p for p in sources if "__pycache__" not in p and ".egg-info" not in p} <= inside

    run(sys.executable, "-m", "venv", "new", cwd=tmp_path)
    python = tmp_path / "new" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    onebase = python.with_name("onebase")
    assert "pretrain" in run(onebase, "--help", cwd=tmp_path)
    run(onebase, "pretrain", "recipe.yaml", "--out", "runs/tiny", "--device", "cpu", cwd=tmp_path)
    assert "CC0-1.0" in run(onebase, "show", "runs/tiny", cwd=tmp_path)
    run(onebase, "generate", "runs/tiny", "Water", "--max-tokens", "4", "--device", "cpu", cwd=tmp_path)

    # The remedy of an error about a missing extra: pip finds the onebase that is installed.
    run(python, "-m", "pip", "install", "--quiet", "onebase[structured]", cwd=tmp_path)
    where = run(python, "-c", "import llguidance, onebase; print(onebase.__file__)", cwd=tmp_path)
    assert where.strip().startswith(str(tmp_path))
