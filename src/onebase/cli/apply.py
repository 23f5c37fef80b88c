"""The command apply: run an adapter on texts or rows."""

from pathlib import Path
from typing import Annotated

import typer

from onebase.cli.app import (
    Device,
    DType,
    FromTables,
    Ref,
    Vars,
    app,
    check_paths,
    echo,
    example,
    load_base,
    refuse_blank,
    variables,
)
from onebase.cli.lines import json_line, one_line, stdin_lines
from onebase.errors import UserError


@app.command(
    cls=FromTables,
    epilog=example(
        'onebase apply runs/demo/pretrain --adapter runs/opinions "What a fine day."',
        "onebase apply runs/demo/pretrain --adapter runs/opinions --data examples/opinions/test.jsonl --json",
        'onebase apply hf:org/some-classifier "What a fine day."',
    ),
)
def apply(
    ref: Ref,
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT...",
            help="Texts (files, for a task that reads one); - reads standard input, one per line.",
        ),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REF",
            help="Adapter to run: a folder (onebase or PEFT), a name in the store, or hf:org/name. Repeat to stack. Default: the base's own head.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Instead of TEXT: rows with a column `text` (or a prompt's variables)."
        ),
    ] = None,
    var: Vars = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Run an adapter on texts or rows, and print its predictions.

    Tasks: {applied}."""
    if bool(texts) == (data is not None):
        raise UserError(
            "both TEXT and --data are given" if texts else "no texts", "give TEXT..., or --data FILE"
        )
    lines = list(texts or [])
    if lines == ["-"]:
        lines = [line for line in stdin_lines() if line.strip()]
    refuse_blank(lines)
    values = variables(var) or {}
    check_paths(ref, adapter, [data])
    from onebase.data import Rows, read_rows
    from onebase.engine.prompting import inputs
    from onebase.opening.names import resolved
    from onebase.tasks.table import answers, asked_by, files_found

    base = load_base(ref, adapter, device, dtype)
    columns = asked_by(base.attached)
    if unknown := sorted(values.keys() - set(columns)):
        raise UserError(
            f"--var {unknown[0]}: the adapter has no such variable", f"it has: {', '.join(columns)}"
        )
    needed = [c for c in columns if c not in values]
    if lines and needed and "text" not in columns and len(needed) > 1:
        raise UserError(
            f"the adapter needs the columns {', '.join(columns)}, not one text", "give rows: --data FILE"
        )
    one = "text" if "text" in columns else needed[0] if needed else "text"
    read = read_rows(resolved(data), needed) if data else Rows({one: line} for line in lines)
    rows = [{**r, **values} for r in read]
    prompts = (
        inputs(base.attached, rows) if columns == ("text",) else files_found(base.attached, rows, read.folder)
    )
    for row, prompt, answer in zip(rows, prompts, answers(base, prompts), strict=True):
        shown = ("text", "text_pair") if isinstance(prompt, tuple) else columns
        fields = {c: str(row.get(c)) if columns == ("text",) else row.get(c) for c in shown}
        echo(json_line({**fields, **answer.fields}) if json else one_line(answer.line))
