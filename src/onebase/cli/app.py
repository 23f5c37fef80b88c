"""What the commands share: the app, common options, argument checks and output."""

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
    """A command whose help lists tasks and methods: {tasks}, {methods}, {scored}, {judged} and {applied} are filled in from the tables,
    plug-ins included. The tables are read only when the help is shown, so that no command waits for them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Add to a usage error what to write instead."""
        try:
            return super().parse_args(ctx, args)
        except Exception as e:  # the class of a usage error is internal to typer
            if hint := usage_hint(str(getattr(e, "message", "")), {o for p in self.params for o in p.opts}):
                e.message += hint  # type: ignore[attr-defined]
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:
        parts: list[Any] = [self, *(p for p in self.params if hasattr(p, "help"))]
        for part in parts:
            for key, values in names().items():
                part.help = (part.help or "").replace(f"{{{key}}}", ", ".join(values))
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
        help="The base: a folder (base, run, Hugging Face or CTranslate2 model), a .gguf file, a name in the store (onebase list), or hf:org/name.",
    ),
]
ArtifactRef = Annotated[
    str,
    typer.Argument(
        metavar="REF",
        help="A base, adapter, data set or run: its folder, or its name in the store (onebase list).",
    ),
]
Device = Annotated[str, typer.Option(help="Device: auto, cpu, cuda or mps.")]
DType = Annotated[str, typer.Option(help="Dtype of activations: auto, bf16 or fp32.")]
AdapterDir = Annotated[
    list[str] | None,
    typer.Option(
        metavar="REF",
        help="Adapter to attach: a folder (onebase or PEFT), a name in the store, or hf:org/name. Repeat to stack.",
    ),
]
Vars = Annotated[
    list[str] | None,
    typer.Option("--var", metavar="NAME=VALUE", help="Value for a variable of a saved prompt (repeatable)."),
]
Schema = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="JSON schema that the output must match (docs/structured.md)."),
]
Regex = Annotated[
    str | None,
    typer.Option(help="Regular expression that the whole output must match (^ and $ are implied)."),
]
Spaces = Annotated[
    bool, typer.Option("--spaces", help="With --schema: allow white space between JSON tokens.")
]
Column = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TASK=FILE",
        help="Map a column of the task to a column of the file: text=body (repeatable).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
MaxTokens = Annotated[int, typer.Option(help="Maximum new tokens.")]
Temperature = Annotated[float, typer.Option(help="Sampling temperature; 0 is greedy.")]
TRAIN_DATA = typer.Option(
    "--data",
    metavar="FILE",
    help="Training rows: jsonl, json, csv, tsv, parquet or hf:org/name[:split].",
)
Out = Annotated[Path, typer.Option(metavar="DIR", help="Output folder.")]


def pairs_option(help: str) -> Any:
    """The repeatable option -o KEY=VALUE."""
    return typer.Option("-o", "--option", metavar="KEY=VALUE", help=help)


def example(*lines: str) -> str:
    """The examples at the end of a command's help."""
    return "Example:\n\n" + "\n\n".join(lines)


def check_paths(
    ref: str | None,
    adapters: str | Sequence[str] | None = None,
    files: Sequence[str | Path | None] = (),
) -> None:
    """Raise UserError for a base, an adapter or a file that is missing or of another kind, before torch is imported, which takes seconds."""
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
    """The base with the adapters attached, the last one on top."""
    check_paths(ref, adapters)
    import onebase
    from onebase.opening.find import find_artifact

    refs = [adapters] if isinstance(adapters, str) else list(adapters or [])
    paths = [find_artifact(a) for a in refs]
    base = onebase.load(ref, device=device, dtype=dtype)
    return base.with_adapter(paths) if paths else base


def refuse_blank(texts: Sequence[str]) -> None:
    """Raises UserError for a blank text: the model would give an output for it, and it would mean nothing."""
    for i, text in enumerate(texts, 1):
        if not text.strip():
            raise UserError(f"text {i} of {len(texts)} is empty", "give a text; is a shell variable empty?")


def named_columns(pairs: list[str]) -> dict[str, str]:
    """`text=body` pairs as a mapping from the task's columns to the file's. Raises UserError."""
    out: dict[str, str] = {}
    for pair in pairs:
        task, equals, name = pair.partition("=")
        if not equals or not task.strip() or not name.strip() or task.strip() in out:
            raise UserError(
                f"--column {pair!r} "
                + ("names a column twice" if task.strip() in out else "is not of the form TASK=FILE"),
                "write for example --column text=body --column label=topic, each column once",
            )
        out[task.strip()] = name.strip()
    return out


def constraint(
    schema: Path | None, regex: str | None = None, spaces: bool = False
) -> "onebase.Constraint | None":
    """The constraint of --schema or --regex."""
    if schema is None and regex is None:
        return None
    try:
        text = None if schema is None else schema.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        inline = str(schema).lstrip().startswith("{")
        raise UserError(
            f"--schema {schema} is not a file" if inline else f"--schema {schema} cannot be read: {e}",
            "write the schema to a file and give its path" if inline else "give a file with a JSON schema",
        ) from None
    import onebase

    return onebase.Constraint(schema=text, regex=regex, spaces=spaces and schema is not None)


def variables(pairs: Sequence[str] | None) -> dict[str, str] | None:
    """`NAME=VALUE` pairs as a mapping; None if there are none. Raises UserError."""
    out: dict[str, str] = {}
    for pair in pairs or ():
        name, sign, value = pair.partition("=")
        if not sign or not name or name in out:
            what = "names a variable twice" if name in out else "is not of the form NAME=VALUE"
            raise UserError(f"--var {pair!r} {what}", "write for example --var language=French, each once")
        out[name] = value
    return out or None


def echo(line: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # under torchrun only rank 0 prints
        print(line, flush=True)


def print_json(value: Any) -> None:
    import json

    print(json.dumps(value, indent=1))


locks = contextlib.ExitStack()
"""Locks on output folders; `main` releases them when the command ends."""


def refuse_existing(out: Path, *, hold: bool = True, overwrite: str = "", option: str = "--out") -> None:
    """Raise UserError for an output folder that exists, before the work starts. With `hold` the folder is locked until the command ends, and
    another process that would write it fails at once. overwrite: the kind of artifact that may exist there and is replaced."""
    from onebase.artifact.manifest import MANIFEST, read_manifest
    from onebase.artifact.owned import owned

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not overwrite:
            raise UserError(f"{out} already exists", f"choose another {option}")
        if not (out / MANIFEST).is_file():
            raise UserError(
                f"{out} was not written by onebase, so it is not overwritten", f"choose another {option}"
            )
        read_manifest(out, overwrite)
    if hold and os.environ.get("RANK", "0") == "0":
        locks.enter_context(owned(out, beside=True))
