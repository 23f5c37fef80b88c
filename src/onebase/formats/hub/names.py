"""Parses names on the Hugging Face Hub: `hf:org/name[/file.gguf][@revision]`. Nothing is fetched here."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onebase.errors import UserError

PREFIX = "hf:"
_NAME = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?)(?P<file>(?:/[\w.+ -]+)+\.gguf)?(?:@(?P<revision>[\w./+-]+))?",
    re.ASCII,
)
_ADDRESS = re.compile(
    r"(?:https?:/+)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?!datasets/|spaces/)([\w.-]+/[\w.-]+)"
)
FIRST_MODELS = {
    "gpt2": "openai-community",
    "bert-": "google-bert",
    "distilbert-": "distilbert",
    "distilgpt2": "distilbert",
    "roberta-": "FacebookAI",
    "xlm-roberta-": "FacebookAI",
    "all-minilm-": "sentence-transformers",
    "all-mpnet-": "sentence-transformers",
}
"""Prefixes of model names known without an organisation, and the organisation."""


@dataclass(frozen=True)
class HubName:
    """`hf:repo[/file.gguf][@revision]`; a revision is a branch, a tag or a commit hash."""

    repo: str
    file: str | None
    revision: str
    kind: Literal["model", "dataset"] = "model"

    def __str__(self) -> str:
        end = "" if self.revision == "main" else f"@{self.revision}"
        return f"{PREFIX}{self.repo}{'/' + self.file if self.file else ''}{end}"


def is_name(ref: str | Path) -> bool:
    """Is this a name on the Hub, and not an existing path?"""
    return str(ref).startswith(PREFIX) and not Path(ref).exists()


def looks_like_one(ref: str | Path) -> bool:
    """Could this text, which is not a path, be a name on the Hub without `hf:`?"""
    text = str(ref)
    return (
        text.count("/") == 1
        and not text.startswith((".", "runs/", "bases/"))
        and _NAME.fullmatch(text) is not None
    )


def hub_name(ref: str | Path) -> str | None:
    """`hf:org/name` for a text that is not a path and looks like a model on the Hub: its URL, a name without `hf:`, or one of the first
    models, which had no organisation. None for other texts."""
    text = str(ref)
    if match := _ADDRESS.match(text):
        return f"{PREFIX}{match[1]}"
    if looks_like_one(ref):
        return f"{PREFIX}{text}"
    org = next((org for begins, org in FIRST_MODELS.items() if text.lower().startswith(begins)), None)
    return None if org is None or "/" in text else f"{PREFIX}{org}/{text}"


def parse(ref: str) -> HubName:
    """Read `hf:org/name[/file.gguf][@revision]`. Raises UserError."""
    match = _NAME.fullmatch(ref.removeprefix(PREFIX))
    parts = re.split(r"[/@]", ref)
    if match is None or ".." in parts or "." in parts:
        raise UserError(
            f"{ref!r} is not a valid name on the Hub",
            "write hf:org/name, hf:org/name@revision or hf:org/name/file.gguf",
        )
    return HubName(
        match["repo"], (match["file"] or "").removeprefix("/") or None, match["revision"] or "main"
    )
