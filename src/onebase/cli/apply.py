"""The command that asks an adapter about texts or rows."""

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
    example,
    load_base,
    refuse_blank,
    say,
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
        typer.Argument(metavar="TEXT...", help="Texts; - reads one a line of standard input."),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REF",
            help="The adapter to ask: a folder (ours, or PEFT's), a name in the store, or hf:org/name. Given again, one more on top of it. Not given: the head that the base came with.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Rows with a column `text` (or a prompt's variables), in their place."
        ),
    ] = None,
    var: Vars = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Say what an adapter makes of texts or rows.

    For the tasks that are asked so: {asked}."""
    if bool(texts) == (data is not None):
        raise UserError("no texts, or texts from two places", "give TEXT..., or --data FILE")
    lines = list(texts or [])
    if lines == ["-"]:
        lines = [line for line in stdin_lines() if line.strip()]
    refuse_blank(lines)
    values = variables(var) or {}
    check_paths(ref, adapter, [data])
    from onebase.data import read_rows
    from onebase.engine.prompting import inputs
    from onebase.opening.names import resolved
    from onebase.tasks.table import answers, asked_by

    base = load_base(ref, adapter, device, dtype)
    reads = asked_by(base.attached)
    if unknown := sorted(values.keys() - set(reads)):
        raise UserError(
            f"--var {unknown[0]}: the adapter has no such variable", f"it has: {', '.join(reads)}"
        )
    needed = [c for c in reads if c not in values]
    if lines and "text" not in reads:
        raise UserError(
            f"the adapter is asked by {', '.join(reads)}, not by a text", "give rows: --data FILE"
        )
    found = read_rows(resolved(data), needed) if data else [{"text": line} for line in lines]
    rows = [{**r, **values} for r in found]
    given = inputs(base.attached, rows) if reads == ("text",) else rows
    for row, text, said in zip(rows, given, answers(base, given), strict=True):
        asked = ("text", "text_pair") if isinstance(text, tuple) else reads
        own = {c: str(row.get(c)) if reads == ("text",) else row.get(c) for c in asked}
        say(json_line({**own, **said.fields}) if json else one_line(said.line))
