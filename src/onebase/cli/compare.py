"""The command compare: classical systems and methods on bases, compared on one task."""

from pathlib import Path
from typing import Annotated

import typer

from onebase.cli.app import (
    TRAIN_DATA,
    Column,
    Device,
    DType,
    Json,
    app,
    check_paths,
    echo,
    example,
    named_columns,
    pairs_option,
    print_json,
    refuse_existing,
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
        typer.Argument(metavar="BASE...", help="One or more bases: folders or names in the store."),
    ],
    data: Annotated[str, TRAIN_DATA],
    test: Annotated[str, typer.Option(metavar="FILE", help="Test rows, scored once at the end.")],
    task: Annotated[str | None, typer.Option(help="Task (default: inferred from the columns).")] = None,
    minutes: Annotated[float, typer.Option(help="Minutes for all candidates together.")] = 10.0,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Only this candidate: classical, prompt, head, contrast, lora, full or another method (repeatable).",
        ),
    ] = None,
    column: Column = None,
    option: Annotated[
        list[str] | None, pairs_option("Option of adaptation, for the candidates that have it (repeatable).")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Output folder for the best adapter.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Output HTML file with table and chart.")
    ] = None,
    json: Json = False,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Find the best system for a task: a classical one, or a prompt, head, contrast, LoRA or full fine-tuning of a base."""
    import sys

    from onebase.config import parse_pairs

    if save is not None:
        refuse_existing(save, option="--save")
    for ref in bases:
        check_paths(ref, None, [data, test])
    import onebase
    import onebase.api  # loads plug-ins
    from onebase.govern.page import refuse_place

    if report is not None:
        refuse_place(report)
    comparison = onebase.compare(
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
        comparison.write_page(report)
    if save is not None and comparison.adapter is not None:
        comparison.adapter.save(save)
    if json:
        print_json(comparison.facts)
        return
    echo(comparison.table)
    echo(comparison.line)
    if save is not None:
        echo(f"adapter: {save}" if comparison.adapter is not None else "no adapter to save")
