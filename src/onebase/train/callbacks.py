"""Callbacks of the training loop: the JSONL log and the progress bar (trackers are in `track`). The loop knows only `Callback`."""

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from onebase.artifact.disk import disk_errors
from onebase.artifact.files import write_atomic
from onebase.readable import duration


@dataclass(frozen=True)
class StepInfo:
    """Facts of one finished step. loss: nats per supervised token; of several losses the weighted sum, of which `losses` are the parts by name. seconds: since the run began, over all resumes. total: steps of the run, None
    until a budget in minutes has become a number of steps."""

    step: int
    total: int | None
    loss: float
    grad_norm: float
    factor: float
    tokens: int
    tokens_per_second: float
    seconds: float
    skipped: bool = False
    scores: dict[str, float] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)


def as_line(info: StepInfo) -> dict[str, Any]:
    """A step as a line of `log.jsonl`: its facts, then its losses (`loss/flow.image_patches`) and scores by name."""
    facts = {k: v for k, v in vars(info).items() if k not in ("scores", "losses")}
    return facts | {f"loss/{k}": v for k, v in info.losses.items()} | info.scores


class Callback(Protocol):
    """Receives the events of a run. `close` is always called if `start` returned."""

    def start(self, step: int, total: int | None) -> None:
        """The run begins, or resumes at `step`."""

    def step(self, info: StepInfo) -> None:
        """A step is finished."""

    def close(self) -> None:
        """The run has ended, with or without an error."""


class NoCallback:
    """Ignores every event; a base class for callbacks that need only some."""

    def start(self, step: int, total: int | None) -> None:
        return

    def step(self, info: StepInfo) -> None:
        return

    def close(self) -> None:
        return


class JsonLog(NoCallback):
    """Writes one JSON object per step to `log.jsonl`; a resumed run drops the lines of steps that it repeats.

    Raises ArtifactError when the disk is full, so that no log has gaps.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, step: int, total: int | None) -> None:
        kept = [line for line in read_log(self.path) if line["step"] < step]
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, "".join(json.dumps(line) + "\n" for line in kept).encode())
            self.file = self.path.open("a", encoding="utf-8")

    def step(self, info: StepInfo) -> None:
        with disk_errors(self.path):
            self.file.write(json.dumps(as_line(info)) + "\n")
            self.file.flush()

    def close(self) -> None:
        # Every step was flushed. Only a line that a full disk refused can be left, and `step` has reported that.
        with contextlib.suppress(OSError):
            self.file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The valid lines of a log. Broken lines (of a killed run, or edited) are skipped."""
    if not path.exists():
        return []
    out = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):  # may end within a character
        with contextlib.suppress(ValueError, RecursionError):
            entry = json.loads(line)
            if isinstance(entry, dict) and type(entry.get("step")) is int:
                out.append(entry)
    return out


class Progress(NoCallback):
    """A progress bar: step, loss, tokens per second, time left. Not on a terminal: a line every tenth of the run."""

    def __init__(self, title: str) -> None:
        self.title = title

    def start(self, step: int, total: int | None) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.live = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  {task.fields[speed]} tokens/s  left"),
            TimeRemainingColumn(),
        )
        self.terminal = self.live.console.is_terminal
        if self.terminal:
            self.live.start()
        self.task = self.live.add_task(self.title, total=total, completed=step, loss="...", speed="...")
        self.smooth: dict[str, float] = {}

    def step(self, info: StepInfo) -> None:
        if not info.skipped:
            now = {"": info.loss} | info.losses
            self.smooth = {k: 0.9 * self.smooth.get(k, v) + 0.1 * v for k, v in now.items()}
        parts = ", ".join(f"{k} {v:.3f}" for k, v in self.smooth.items() if k)
        shown = f"{self.smooth['']:.3f}" if self.smooth else "..."
        shown += f" ({parts})" if parts else ""
        speed = f"{info.tokens_per_second:,.0f}"
        self.live.update(self.task, completed=info.step + 1, total=info.total, loss=shown, speed=speed)
        if info.total is None:
            if not self.terminal and info.step == 0:
                print(f"{self.title}  loss {shown}  {speed} tokens/s  timing the first steps", flush=True)
            return
        tenth = max(1, info.total // 10)
        if not self.terminal and ((info.step + 1) % tenth == 0 or info.step + 1 == info.total):
            left = info.seconds / (info.step + 1) * (info.total - info.step - 1)
            print(
                f"{self.title} {info.step + 1}/{info.total}  loss {shown}  {speed} tokens/s  {duration(left)} left",
                flush=True,
            )

    def close(self) -> None:
        if self.terminal:
            self.live.stop()
