"""Trackers (extra `track`): TensorBoard and Weights & Biases. A resumed run continues the same curves."""

import contextlib
import secrets
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from onebase.artifact.disk import disk_errors
from onebase.artifact.files import write_atomic
from onebase.errors import UserError
from onebase.train.callbacks import NoCallback, StepInfo, as_line, read_log

FACTS = frozenset(f.name for f in fields(StepInfo))
CONNECT_SECONDS = 30.0
"""Longest wait for the server of Weights & Biases at the start of a run."""
UPLOAD_SECONDS = 60.0
"""Longest wait for uploads at the end of a run; the rest stays on the disk for `wandb sync`."""


def scalars(line: dict[str, Any]) -> dict[str, float]:
    """The curves of one line of `log.jsonl`: loss, grad_norm, rate_factor, tokens_per_second, and the scores."""
    shown = {k: line[k] for k in ("loss", "grad_norm", "tokens_per_second")}
    return shown | {"rate_factor": line["factor"]} | {k: v for k, v in line.items() if k not in FACTS}


class TensorBoard(NoCallback):
    """Scalars for TensorBoard, in `folder`. Steps of a killed run that are repeated are purged."""

    def __init__(self, folder: Path) -> None:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError:
            raise UserError("TensorBoard is not installed", 'run: pip install "onebase[track]"') from None
        self.folder = folder

    def start(self, step: int, total: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        with disk_errors(self.folder):
            self.writer = SummaryWriter(str(self.folder), purge_step=step)

    def step(self, info: StepInfo) -> None:
        with disk_errors(self.folder):
            for name, value in scalars(as_line(info)).items():
                self.writer.add_scalar(name, value, info.step)
            self.writer.flush()  # buffered steps (up to two minutes) would be a gap in the curves after a kill

    def close(self) -> None:
        with contextlib.suppress(OSError):  # `step` has reported a full disk
            self.writer.close()


class WandB(NoCallback):
    """Scalars for Weights & Biases: one W&B run per run folder `out`, however often it is resumed.

    The run's id is stored in `out/wandb/id`; a run that starts at step 0 gets a new one. Weights & Biases cannot go back to an earlier
    step, and offline it cannot append to an earlier file. So steps that it has are not logged again, and missing ones are logged from
    `log.jsonl`: the newest offline file is complete. If its service dies, the run continues without it.

    Online if the user has logged in (`wandb login`, WANDB_API_KEY) and the server responds, else offline, in files under `out/wandb` that
    `wandb sync` uploads. WANDB_MODE=offline or disabled is respected. Never prompts for a login.
    """

    def __init__(self, out: Path, name: str) -> None:
        try:
            import wandb  # noqa: F401
        except ImportError:
            raise UserError(
                "Weights & Biases is not installed", 'run: pip install "onebase[track]"'
            ) from None
        self.out, self.name = out, name

    def start(self, step: int, total: int | None) -> None:
        path = self.out / "wandb" / "id"
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if step == 0 or not path.is_file():
                write_atomic(path, secrets.token_hex(4).encode())
            id = path.read_text(encoding="utf-8")
        self.ended, self.lost = step == total, False
        self._try(lambda: self._begin(id))
        for line in read_log(self.out / "log.jsonl"):
            if line["step"] < step:
                self._tell(line)

    def step(self, info: StepInfo) -> None:
        self._tell(as_line(info))
        self.ended = info.step + 1 == info.total

    def close(self) -> None:
        self._try(lambda: self.run.finish(exit_code=0 if self.ended else 1))

    def _begin(self, id: str) -> None:
        import wandb

        mode: Literal["online", "offline"] | None = None  # the user's choice
        if wandb.setup().settings.mode == "online":
            try:
                mode = "online" if wandb.login(prompt=False, verify=True) else "offline"
            except wandb.Error as e:
                wandb.termwarn(f"{e}. Logging offline.")
                mode = "offline"
        self.run = wandb.init(
            project="onebase",
            name=self.name,
            id=id,
            resume="allow" if mode == "online" else None,
            mode=mode,
            dir=str(self.out),
            reinit="create_new",  # do not log to a run that the user's own script has open
            settings=wandb.Settings(
                console="off", init_timeout=CONNECT_SECONDS, finish_timeout=UPLOAD_SECONDS
            ),
        )
        self.first = self.run.starting_step

    def _tell(self, line: dict[str, Any]) -> None:
        if not self.lost and line["step"] >= self.first:
            self._try(lambda: self.run.log(scalars(line), step=line["step"]))

    def _try(self, what: Callable[[], None]) -> None:
        """Call `what` unless W&B has failed. It runs in another process: its errors must not end a training run."""
        if self.lost:
            return
        try:
            what()
        except Exception as e:
            self.lost = True
            print(
                f"Weights & Biases failed ({type(e).__name__}: {e}); logging continues in log.jsonl",
                file=sys.stderr,
            )
