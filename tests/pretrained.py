"""What the tests of the whole share: a tiny base pretrained once for each worker, and the command line run in this process."""

import contextlib
import functools
import io
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from examples.pretrain_tiny import tiny_base
from onebase.cli import main

_kept: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends


@functools.cache
def tiny_run() -> Path:
    """The run folder of a tiny base (context 128), with base/ in it. Tests only read it."""
    folder = tempfile.TemporaryDirectory(prefix="onebase-tiny-")
    _kept.append(folder)
    tiny_base(Path(folder.name))
    return Path(folder.name) / "run"


@dataclass(frozen=True)
class Said:
    """How a command ended and what it wrote."""

    status: int
    out: str
    err: str


def onebase(*words: str | Path, stdin: str = "") -> Said:
    """Run the command line as a user would, in this process."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["onebase", *map(str, words)]
    status = 0
    with (
        mock.patch.object(sys, "argv", argv),
        mock.patch.object(sys, "stdin", io.StringIO(stdin)),
        mock.patch.dict(os.environ),  # --debug sets a variable
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as e:
            status = e.code if isinstance(e.code, int) else 1 if e.code else 0
    return Said(status, out.getvalue(), err.getvalue())
