"""Names in the store by command: given, used in the place of a folder, listed, and taken away."""

import json
from pathlib import Path

import pytest

from onebase.base.folder import save_base
from tests.helpers import tiny_base
from tests.pretrained import onebase


def test_a_name_is_given_used_and_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEBASE_HOME", str(tmp_path / "home"))
    save_base(tmp_path / "folder", tiny_base())
    said = onebase("list", "--add", f"small={tmp_path / 'folder'}", "--json")
    assert said.status == 0 and [x["name"] for x in json.loads(said.out)] == ["small"]
    assert onebase("verify", "small").status == 0
    assert onebase("list", "--remove", "small").status == 0 and (tmp_path / "folder").is_dir()
    assert json.loads(onebase("list", "--json").out) == []


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("--add", "small"), "not of the form NAME=DIR"),
        (("--add", "small=gone"), "gone"),
        (("--add", "a/b=folder"), "cannot be a store name"),
        (("--remove", "none"), "none"),
    ],
)
def test_mistakes(
    words: tuple[str, ...], cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEBASE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    save_base(tmp_path / "folder", tiny_base())
    said = onebase("list", *words)
    assert said.status == 1 and cause in said.err
