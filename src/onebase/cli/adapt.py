"""The command adapt: train an adapter of a base for a task."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from onebase.cli.app import (
    TRAIN_DATA,
    Column,
    Device,
    DType,
    FromTables,
    Ref,
    app,
    check_paths,
    echo,
    example,
    named_columns,
    pairs_option,
    refuse_existing,
)
from onebase.cli.names import BUILT_IN
from onebase.errors import UserError
from onebase.readable import size


@app.command(
    cls=FromTables,
    epilog=example(
        "onebase adapt runs/demo/pretrain --data examples/opinions/train.jsonl --task classify --method head --out runs/opinions",
        "onebase adapt runs/demo/pretrain --data examples/chats.jsonl --task chat --method lora -o epochs=20 -o rank=16 --out runs/chat",
        "onebase adapt runs/demo/pretrain --data reviews.tsv --column text=body --column label=stars --method head --dry-run",
    ),
)
def adapt(
    ref: Ref,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Output folder; not needed with --dry-run.")
    ] = None,
    data: Annotated[str | None, TRAIN_DATA] = None,
    column: Column = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show the token ledger, memory and time, and stop before step 1. Writes nothing.",
        ),
    ] = False,
    task: Annotated[str | None, typer.Option(help="Task: {tasks} (default: classify).")] = None,
    method: Annotated[str | None, typer.Option(help="Method: {methods} (default: lora).")] = None,
    option: Annotated[
        list[str] | None,
        pairs_option("Option of the task or method, as YAML (repeatable); -o help lists them."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Samples per optimizer step (as -o batch_size=N)."),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace an adapter in --out once the new one is complete."),
    ] = False,
    test: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Test rows: an error if any of them is in --data."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="CODE", help="Finding of the token ledger to ignore (repeatable)."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for checkpoints; the same command resumes from it."),
    ] = None,
    data_licence: Annotated[
        str | None,
        typer.Option(
            "--data-licence", "--data-license", metavar="TEXT", help="Licence of --data, for the record."
        ),
    ] = None,
    data_source: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Origin of --data, for the record.")
    ] = None,
    tune: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="First try N learning rates and ranks, validated on rows split off --data (docs/tuning.md).",
        ),
    ] = 0,
    score: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --tune: the score to select by (docs/tuning.md).")
    ] = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Adapt a base to a task; only the adapter is written. Method prompt needs no --data."""
    from onebase.cli.names import option_names
    from onebase.config import parse_pairs
    from onebase.tasks.option_names import METHOD, TASK

    known = option_names()
    given = {"task": task, "method": method}  # None: the default
    task, method = task or TASK, method or METHOD
    if option == ["help"]:
        known.check_pair(task, method)
        _explain(task, method)
        return
    options = parse_pairs(option or [])
    if batch_size is not None:
        if "batch_size" in options:
            raise UserError("both --batch-size and -o batch_size are given", "give one of them")
        options["batch_size"] = batch_size
    if allow:
        options["allow"] = [*options.get("allow", []), *allow]
    known.check(options, task, method)
    if tune and resume:
        raise UserError(
            "--tune and --resume do not go together: trials save no checkpoints", "give one of them"
        )
    if score and not tune:
        raise UserError(
            "--score needs --tune: it selects the best trial", "give --tune N, or score with onebase eval"
        )
    if data is None and method != "prompt" and method in BUILT_IN["methods"]:
        raise UserError(f"method {method} needs training data", "give --data FILE")
    if out is None and not dry_run:
        raise UserError("no output folder for the adapter", "give --out DIR, or --dry-run for a plan only")
    if out is not None:
        refuse_existing(out, hold=not dry_run, overwrite="adapter" if overwrite else "")
    columns = named_columns(column or [])
    check_paths(ref, None, [data, test])
    import onebase
    import onebase.api  # loads plug-ins; the table below holds tasks with their options
    import onebase.tasks.table
    from onebase.methods.table import method_of
    from onebase.tasks.options import read_options
    from onebase.train.callbacks import Progress

    if data is None and method_of(method).needs_rows:
        raise UserError(f"method {method} needs training data", "give --data FILE")
    read_options(options, task, method)  # checks their values before the base is read
    base = onebase.load(ref, device=device, dtype=dtype)
    if out is None or dry_run:
        plan = base.plan_adapt(data or [], **given, test=test, columns=columns, trials=tune, **options)
        echo(plan.text)
        return
    train = partial(base.tune, trials=tune, score=score) if tune else partial(base.adapt, resume=resume)
    adapter = train(
        data or [],
        **given,
        callbacks=[Progress(f"{method} {task}")],
        log=echo,
        test=test,
        columns=columns,
        data_licence=data_licence,
        data_source=data_source,
        **options,
    )
    adapter.save(out, overwrite=overwrite)
    echo(f"adapter: {out} ({size(adapter.bytes)}, {method}, for {base.fingerprint[:16]}...)")


def _explain(task: str, method: str) -> None:
    import onebase.api
    import onebase.tasks.table  # noqa: F401  # and here the built-in tasks with their options
    from onebase.tasks.options import explained

    echo(explained(task, method))
