"""The command line: a thin layer over the Python API with lazy imports; an error is one line of cause and one of remedy."""

import io
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from onebase.cli import (
    adapt,
    apply,
    audit,
    compare,
    derive,
    evaluate,
    exchange,
    images,
    media,
    pretrain,
    proteins,
    records,
    segment,
    speech,
    use,
    vectors,
)
from onebase.cli.app import app, locks
from onebase.errors import UserError

__all__ = [
    "adapt",
    "app",
    "apply",
    "audit",
    "compare",
    "derive",
    "evaluate",
    "exchange",
    "images",
    "main",
    "pretrain",
    "records",
    "media",
    "proteins",
    "segment",
    "speech",
    "use",
    "vectors",
]
ORDER = [
    "demo",
    "pretrain",
    "plan",
    "adapt",
    "combine",
    "merge",
    "eval",
    "compare",
    "audit",
    "apply",
    "embed",
    "search",
    "generate",
    "chat",
    "images",
    "segment",
    "contacts",
    "caption",
    "draw",
    "speak",
    "transcribe",
    "serve",
    "import",
    "export",
    "quantize",
    "student",
    "list",
    "show",
    "verify",
]
app.registered_commands.sort(key=lambda c: ORDER.index(c.name or str(getattr(c.callback, "__name__", ""))))
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def _version(show: bool) -> None:
    if show:
        from onebase import __version__

        print(f"onebase {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
]


@app.callback()
def _all(debug: Debug = False, version: Version = False) -> None:
    if debug:
        os.environ["ONEBASE_DEBUG"] = "1"


def main() -> None:
    """Entry point. A UserError becomes two lines on standard error and status 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a character that the locale lacks must not stop a command
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        _guard(lambda: app(prog_name="onebase"))
        return
    from onebase.train.signals import exit_now

    try:
        _guard(lambda: app(prog_name="onebase"))
    except SystemExit as e:
        exit_now(e.code if isinstance(e.code, int) else int(e.code is not None))


def _guard(work: Callable[[], Any]) -> None:
    try:
        with locks:
            work()
    except UserError as e:
        if os.environ.get("ONEBASE_DEBUG"):
            raise
        print(f"error: {e.cause}", file=sys.stderr)
        if e.remedy:
            print(f"  {e.remedy}", file=sys.stderr)
        raise SystemExit(e.exit_status) from None
    except OSError as e:
        # Not handled below: still a cause and a remedy. A closed pipe (`| head`) is not an error.
        if isinstance(e, BrokenPipeError):
            sys.stderr.close()
            raise SystemExit(0) from None
        if os.environ.get("ONEBASE_DEBUG"):
            raise
        print(f"error: {e}", file=sys.stderr)
        print("  check the disk, the path and its permissions (--debug shows where)", file=sys.stderr)
        raise SystemExit(1) from None
