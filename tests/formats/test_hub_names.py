"""Names on the Hub, read and refused before anything is asked of a server; and the package that asks."""

import subprocess
import sys
from pathlib import Path

import pytest

import onebase
from onebase.errors import UserError
from onebase.formats.hub.names import HubName, parse


@pytest.mark.parametrize(
    "ref",
    ["hf:", "hf:a/b/c", "hf:../x", "hf:a/..", "hf:a b/c", "hf:org/name@", "hf:o/n@a/../b", "hf:o/../x.gguf"],
)
def test_names_that_are_none(ref: str) -> None:
    with pytest.raises(UserError, match="not a valid name on the Hub"):
        onebase.load(ref)


def test_a_name_without_its_beginning_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="neither a path nor a name") as e:
        onebase.load("org/name")
    assert "hf:org/name" in e.value.remedy
    with pytest.raises(UserError) as e:
        onebase.load("runs/nothing")
    assert "hf:" not in e.value.remedy


def test_names_are_read() -> None:
    assert parse("hf:org/name") == HubName("org/name", None, "main")
    assert parse("hf:gpt2@refs/pr/3") == HubName("gpt2", None, "refs/pr/3")
    assert parse("hf:org/name/a/B-Q4_K.gguf@v1.0") == HubName("org/name", "a/B-Q4_K.gguf", "v1.0")
    assert str(parse("hf:org/name/a.gguf@v1")) == "hf:org/name/a.gguf@v1"


MISSING = """
import sys
import onebase
onebase.load
assert "huggingface_hub" not in sys.modules, "imported before a name is given"
sys.modules["huggingface_hub"] = None
try:
    onebase.load("hf:org/name")
except onebase.errors.UserError as e:
    print(e.cause, "|", e.remedy)
"""


def test_without_the_package_it_says_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MISSING], capture_output=True, text=True, timeout=600, check=False
    )
    assert (
        "need the package huggingface_hub" in done.stdout and "pip install 'onebase[hub]'" in done.stdout
    ), done.stderr
