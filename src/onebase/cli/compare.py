"""The command that compares what may do a task: classical systems, and methods on bases."""

from pathlib import Path
from typing import Annotated

import typer

from onebase.cli.app import (
    Column,
    Device,
    DType,
    app,
    check_paths,
    example,
    named_columns,
    print_json,
    refuse_existing,
    say,
)


@app.command(
    epilog=example(
        "onebase compare runs/demo/pretrain --data examples/opinions/train.jsonl --test examples/opinions/test.jsonl",
        "onebase compare bases/minilm bases/smol --data train.csv --test test.csv --minutes 30 --save runs/best --report best.html",
    )
)
def compare(
    bases: Annotated[
        list[str],
        typer.Argument(metavar="BASE...", help="One or more bases: folders, run folders or store names."),
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="Training rows: jsonl, json, csv, tsv, parquet or hf:org/name[:split]."
        ),
    ],
    test: Annotated[str, typer.Option(metavar="FILE", help="Test rows, which are asked once at the end.")],
    task: Annotated[str | None, typer.Option(help="The task (default: by the columns).")] = None,
    minutes: Annotated[float, typer.Option(help="Time for all candidates together.")] = 10.0,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Only these: classical, prompt, head, contrast, lora, full, or another method of the task (repeatable).",
        ),
    ] = None,
    column: Column = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "-o",
            "--option",
            metavar="KEY=VALUE",
            help="An option of adaptation, for the candidates that have it.",
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to write the best adapter to.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="HTML file to write table and chart to.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Which is best for a task: a classical system, or a prompt, head, contrast, LoRA or all weights on one of the bases?"""
    import sys

    from onebase.config import parse_pairs

    if save is not None:
        refuse_existing(save, option="--save")
    for ref in bases:
        check_paths(ref, None, [data, test])
    import onebase
    import onebase.api  # methods of other packages register there
    from onebase.govern.page import refuse_place

    if report is not None:
        refuse_place(report)
    found = onebase.compare(
        bases,
        data,
        test,
        task=task,
        minutes=minutes,
        methods=method,
        columns=named_columns(column or []),
        device=device,
        dtype=dtype,
        log=lambda line: print(line, file=sys.stderr, flush=True),
        **parse_pairs(option or []),
    )
    if report is not None:
        found.write_page(report)
    if save is not None and found.adapter is not None:
        found.adapter.save(save)
    if json:
        print_json(found.facts)
        return
    say(found.table)
    say(found.line)
    if save is not None:
        kept = f"adapter: {save}" if found.adapter is not None else "no adapter was made, nothing is saved"
        say(kept)
