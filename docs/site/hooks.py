"""What MkDocs needs to read pages that are written for a repository: links for names of pages, and lists as GitHub reads them."""

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
AT_THE_TOP = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changes.md": "CHANGELOG.md"}
"""Pages of the site that are files at the top of the repository."""
FENCE = re.compile(r"^ *(?:```|~~~)")
ITEM = re.compile(r"^ *(?:[-*]|\d+\.) ")
NAMED = re.compile(r"(?<![\w/(\[`])`?\bdocs/(\w+(?:/\w+)?\.md)\b`?")
LINK = re.compile(r"\[([^\[\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """README, CONTRIBUTING and CHANGELOG as pages."""
    for page, source in AT_THE_TOP.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with links to pages that it names (`docs/data.md`), and lists and tables set off as Python-Markdown wants them."""
    here = page.file.src_uri
    lines: list[str] = []
    fenced = False
    for line in markdown.splitlines():
        if FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            if starts_list(line, lines) or (
                line.startswith("|") and lines and not ends_block(lines[-1], "|")
            ):
                lines.append("")
            line = re.sub(r"^ {2,3}(?=[-*|]|\d+\. )", "    ", line)
            line = LINK.sub(lambda m: linked(m, here), line)
            line = NAMED.sub(lambda m: f"[{Path(m[1]).stem}]({relpath(m[1], dirname(here) or '.')})", line)
        lines.append(line)
    return "\n".join(lines)


def starts_list(line: str, before: list[str]) -> bool:
    """Whether a list begins here behind a line of text. A line behind an item, indented or not, belongs to that item."""
    if not ITEM.match(line) or not before:
        return False
    for earlier in reversed(before):
        if not earlier.strip() or earlier.startswith("#"):
            return False
        if ITEM.match(earlier):
            return len(line) - len(line.lstrip()) > len(earlier) - len(earlier.lstrip())
        if not earlier.startswith(" "):
            return True
    return False


def ends_block(line: str, same: str) -> bool:
    return not line.strip() or line.lstrip().startswith(("#", same))


def linked(found: re.Match[str], here: str) -> str:
    """A link of the repository as the site has it. A file that the site has not is named, not linked."""
    text, target, heading = found[1], found[2], found[3] or ""
    there = normpath(join(dirname(AT_THE_TOP.get(here, f"docs/{here}")), target))
    pages = {source: page for page, source in AT_THE_TOP.items()}
    if there in pages:
        inside = pages[there]
    elif there.startswith("docs/"):
        inside = there.removeprefix("docs/")
    else:
        return text
    return f"[{text}]({relpath(inside, dirname(here) or '.')}{heading})"
