"""What the commands share: the app, common options, and how they speak and refuse."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from onebase.cli.names import names, usage_hint
from onebase.errors import UserError

if TYPE_CHECKING:
    import onebase


class FromTables(TyperCommand):
    """A command whose help names tasks and methods: {tasks}, {methods}, {scored}, {judged} and {asked} stand for those of the tables, what
    plug-ins bring among them. They are read when the help is shown, for no command should wait for them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As the class above; what it refuses is told with what to write instead."""
        try:
            return super().parse_args(ctx, args)
        except Exception as e:  # its class is typer's own affair
            if hint := usage_hint(str(getattr(e, "message", "")), {o for p in self.params for o in p.opts}):
                e.message += hint  # type: ignore[attr-defined]
            raise

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
    str,
    typer.Argument(
        metavar="REF",
        help="A base: a folder (of a base, a run, or a Hugging Face or CTranslate2 model), a .gguf file, a name in the store (onebase list), or hf:org/name on the Hub.",
    ),
]
ArtifactRef = Annotated[
    str,
    typer.Argument(
        metavar="REF",
        help="What onebase made: the folder of a base, adapter, data set or run, or a name in the store (onebase list).",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
DType = Annotated[str, typer.Option(help="Number format of activations: auto, bf16 or fp32.")]
AdapterDir = Annotated[
    list[str] | None,
    typer.Option(
        metavar="REF",
        help="An adapter to put on the base: a folder (ours, or PEFT's), a name in the store, or hf:org/name. Given again, one more on top of it.",
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
Regex = Annotated[
    str | None,
    typer.Option(help="A regular expression that the whole answer must match (^ and $ are implied)."),
]
Spaces = Annotated[
    bool, typer.Option("--spaces", help="With --schema: allow white space between the parts of the JSON.")
]
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


def check_paths(
    ref: str | None,
    adapters: str | Sequence[str] | None = None,
    files: Sequence[str | Path | None] = (),
) -> None:
    """Raise UserError for a base, an adapter or a file that is not there or is something else: before torch is imported, which takes seconds."""
    from onebase.artifact.disk import check_file
    from onebase.formats.hub.names import is_name
    from onebase.opening.find import expect_adapter, expect_base

    if ref is not None:
        expect_base(ref)
    for adapter in [adapters] if isinstance(adapters, str) else adapters or []:
        expect_adapter(adapter)
    for file in files:
        if file is not None and not is_name(file) and not Path(file).is_dir():
            check_file(Path(file))


def load_base(ref: str, adapters: str | Sequence[str] | None, device: str, dtype: str) -> "onebase.Base":
    """The base with the adapters on it, the last one on top."""
    check_paths(ref, adapters)
    import onebase
    from onebase.opening.find import find_artifact

    each = [adapters] if isinstance(adapters, str) else list(adapters or [])
    found = [find_artifact(a) for a in each]
    base = onebase.load(ref, device=device, dtype=dtype)
    return base.with_adapter(found) if found else base


def refuse_blank(texts: Sequence[str]) -> None:
    """Raises UserError for a text without a letter: a base makes something even of that, which means nothing."""
    for i, text in enumerate(texts, 1):
        if not text.strip():
            raise UserError(
                f"text {i} of {len(texts)} is empty", "give a text; is a variable of the shell empty?"
            )


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


def constraint(
    schema: Path | None, regex: str | None = None, spaces: bool = False
) -> "onebase.Constraint | None":
    """The form that --schema or --regex asks for."""
    if schema is None and regex is None:
        return None
    try:
        text = None if schema is None else schema.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        inline = str(schema).lstrip().startswith("{")
        raise UserError(
            f"--schema {schema} is no file" if inline else f"--schema {schema} cannot be read: {e}",
            "write the schema into a file, and give its path" if inline else "give a file with a JSON schema",
        ) from None
    import onebase

    return onebase.Constraint(schema=text, regex=regex, spaces=spaces and schema is not None)


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


def refuse_existing(out: Path, *, hold: bool = True, overwrite: str = "", option: str = "--out") -> None:
    """Say that the folder is taken before the work, not after it; with `hold` it is ours until the command ends, and another process
    that is to write it is told now. overwrite: the kind of an artifact that may be there, and is replaced."""
    from onebase.artifact.manifest import MANIFEST, read_manifest
    from onebase.artifact.owned import owned

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not overwrite:
            raise UserError(f"{out} already exists", f"choose another {option}")
        if not (out / MANIFEST).is_file():
            raise UserError(
                f"{out} was not made by onebase, so it is not overwritten", f"choose another {option}"
            )
        read_manifest(out, overwrite)
    if hold and os.environ.get("RANK", "0") == "0":
        held.enter_context(owned(out, beside=True))
