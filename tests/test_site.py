"""The documentation site builds with every link checked, loads nothing from elsewhere, and can be searched."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def build(clone: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("mkdocs", reason='needs: pip install -e ".[docs]"')
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"],
        cwd=clone,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in ("docs", "src"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("mkdocs.yml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_the_site(clone: Path) -> None:
    done = build(clone)
    assert done.returncode == 0, done.stderr
    site = clone / "site"
    pages = {p.relative_to(site).as_posix(): p.read_text(encoding="utf-8") for p in site.rglob("*.html")}
    assert len(pages) > 40
    for name, page in pages.items():
        assert not re.findall(r"<(?:link|script|img|iframe)[^>]*(?:href|src)=[\"']?(?:https?:)?//", page), (
            name
        )
        assert "fonts.googleapis" not in page, name
    assert 'href="data.html"' in pages["commands.html"]  # `docs/data.md` in the text is a link
    assert "<li>" in pages["index.html"].partition('id="for-whom"')[2].partition("<h2")[0]
    assert 'id="onebase.api.base.Base.adapt"' in pages["reference.html"]
    found = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"]
    for word in ("batch size", "fine-tun", "resume", "structured output", "quantiz", "LoRA", "RAG", "GGUF"):
        assert any(word in d["text"] + d["title"] for d in found), word


def test_broken_links_fail(clone: Path) -> None:
    with (clone / "docs" / "demo.md").open("a", encoding="utf-8") as f:
        f.write("\nSee [x](no_page.md), [y](data.md#no-heading) and docs/none.md.\n")
    done = build(clone)
    assert done.returncode != 0
    for missing in ("no_page.md", "data.md#no-heading", "none.md"):
        assert missing in done.stderr
