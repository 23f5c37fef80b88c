"""What the commands share: the app, common options, and how they speak and refuse."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from onebase.cli.names import names
from onebase.errors import UserError

if TYPE_CHECKING:
    import onebase


class FromTables(TyperCommand):
    """A command whose help names tasks and methods: {tasks}, {methods}, {scored}, {judged} and {asked} stand for those of the tables, what
    plug-ins bring among them. They are read when the help is shown, for no command should wait for them."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        parts: list[Any] = [self, *(p for p in self.params if hasattr(p, "help"))]
        for part in parts:
            for key, found in names().items():
                part.help = (part.help or "").replace(f"{{{key}}}", ", ".join(found))
        super().format_help(ctx, formatter)


app = typer.Typer(
    name="onebase",
    help="One base, every task, known origins: pretrain, adapt, measure, account for and serve a foundation model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Ref = Annotated[
    str, typer.Argument(metavar="REF", help="A base folder, a run folder that holds base/, or a store name.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
DType = Annotated[str, typer.Option(help="Number format of activations: auto, bf16 or fp32.")]
AdapterDir = Annotated[
    list[str] | None,
    typer.Option(
        metavar="REF",
        help="An adapter to put on the base: a folder or a store name. Given again, one more on top of it.",
    ),
]
Vars = Annotated[
    list[str] | None,
    typer.Option(
        "--var", metavar="NAME=VALUE", help="A value for a variable of a saved prompt (repeatable)."
    ),
]
Schema = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A JSON schema that answers must fit (docs/structured.md)."),
]
Regex = Annotated[str | None, typer.Option(help="A regular expression that answers must match whole.")]
Column = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TASK=FILE",
        help="What the task calls a column, and what the file calls it: text=body (repeatable).",
    ),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder to write.")]


def example(*lines: str) -> str:
    """An epilog that shows how a command is used."""
    return "Example:\n\n" + "\n\n".join(lines)


def load_base(ref: str, adapters: str | Sequence[str] | None, device: str, dtype: str) -> "onebase.Base":
    """The base with the adapters on it, the last one on top."""
    import onebase
    from onebase.opening.names import find_artifact

    each = [adapters] if isinstance(adapters, str) else list(adapters or [])
    found = [find_artifact(a) for a in each]  # say that one is not there before the base is read
    base = onebase.load(ref, device=device, dtype=dtype)
    return base.with_adapter(found) if found else base


def named_columns(pairs: list[str]) -> dict[str, str]:
    """`text=body` as what the task calls a column, and what the file calls it. Raises UserError."""
    out: dict[str, str] = {}
    for pair in pairs:
        task, equals, name = pair.partition("=")
        if not equals or not task.strip() or not name.strip() or task.strip() in out:
            raise UserError(
                f"--column {pair!r} " + ("names a column again" if equals else "is no TASK=FILE"),
                "write for example --column text=body --column label=topic, each column once",
            )
        out[task.strip()] = name.strip()
    return out


def constraint(schema: Path | None, regex: str | None = None) -> "onebase.Constraint | None":
    """The form that --schema or --regex asks for."""
    import onebase

    if schema is None and regex is None:
        return None
    try:
        text = None if schema is None else schema.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"--schema {schema} cannot be read: {e}", "give a file with a JSON schema") from None
    return onebase.Constraint(schema=text, regex=regex)


def variables(pairs: Sequence[str] | None) -> dict[str, str] | None:
    """`NAME=VALUE` pairs; None without any. Raises UserError."""
    out: dict[str, str] = {}
    for pair in pairs or ():
        name, sign, value = pair.partition("=")
        if not sign or not name or name in out:
            what = "names a variable again" if name in out else "is no NAME=VALUE"
            raise UserError(f"--var {pair!r} {what}", "write for example --var language=French, each once")
        out[name] = value
    return out or None


def say(line: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # under torchrun one process speaks for all
        print(line, flush=True)


def print_json(value: Any) -> None:
    import json

    print(json.dumps(value, indent=1))


held = contextlib.ExitStack()
"""What a command has claimed; `main` lets go of it when the command ends."""


def refuse_existing(out: Path, *, hold: bool = True, option: str = "--out") -> None:
    """Say that the folder is taken before the work, not after it; with `hold` it is ours until the command ends, and another process
    that is to write it is told now."""
    from onebase.artifact.owned import owned

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} already exists", f"choose another {option}")
    if hold and os.environ.get("RANK", "0") == "0":
        held.enter_context(owned(out, beside=True))
