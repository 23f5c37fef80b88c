"""What the commands share: the app, common options, and how they speak and refuse."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onebase.errors import UserError

if TYPE_CHECKING:
    import onebase

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
    str | None, typer.Option(metavar="REF", help="An adapter to put on the base: a folder or a store name.")
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder to write.")]


def example(*lines: str) -> str:
    """An epilog that shows how a command is used."""
    return "Example:\n\n" + "\n\n".join(lines)


def load_base(ref: str, adapter: str | None, device: str, dtype: str) -> "onebase.Base":
    import onebase
    from onebase.api.loading import find_artifact

    found = find_artifact(adapter) if adapter else None  # say that it is not there before the base is read
    base = onebase.load(ref, device=device, dtype=dtype)
    return base.with_adapter(found) if found else base


def say(line: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # under torchrun one process speaks for all
        print(line, flush=True)


def print_json(value: Any) -> None:
    import json

    print(json.dumps(value, indent=1))


def refuse_existing(out: Path) -> None:
    """Say that the folder is taken before the work, not after it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} already exists", "choose another --out")
