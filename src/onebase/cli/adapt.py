"""The command adapt: a base learns a task."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from onebase.cli.app import (
    Column,
    Device,
    DType,
    FromTables,
    Ref,
    app,
    check_paths,
    example,
    named_columns,
    refuse_existing,
    say,
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
        Path | None, typer.Option(metavar="DIR", help="Folder to write; not needed with --dry-run.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="jsonl, json, csv, tsv, parquet or hf:org/name[:split], with the columns of the task. Not for method prompt.",
        ),
    ] = None,
    column: Column = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Do all that comes before step 1, show the ledger, memory and time, and stop. Writes nothing.",
        ),
    ] = False,
    task: Annotated[str | None, typer.Option(help="What is learnt: {tasks} (default: classify).")] = None,
    method: Annotated[str | None, typer.Option(help="How: {methods} (default: lora).")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "-o",
            "--option",
            metavar="KEY=VALUE",
            help="Any option of Base.adapt, as YAML; -o help says which this task and method take.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Samples in an optimizer step (as -o batch_size=N)."),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the adapter that is in --out, when the new one is whole."),
    ] = False,
    test: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Test rows: refused when some are among the rows of --data."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="CODE", help="A finding of the token ledger to go on with (repeatable)."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep the state of learning there; the same command goes on from it.",
        ),
    ] = None,
    data_licence: Annotated[
        str | None,
        typer.Option(
            "--data-licence", "--data-license", metavar="TEXT", help="The licence of --data, for the record."
        ),
    ] = None,
    data_source: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Where --data is from, for the record.")
    ] = None,
    tune: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Try N learning rates and ranks first, judged on a part of the rows of --data (docs/tuning.md).",
        ),
    ] = 0,
    score: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --tune: the score that judges (docs/tuning.md).")
    ] = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Adapt a base to a task; only the adapter is written."""
    from onebase.cli.names import option_names
    from onebase.config import parse_pairs
    from onebase.tasks.option_names import METHOD, TASK

    known = option_names()
    said = {"task": task, "method": method}  # what the user says; the rest is the default
    task, method = task or TASK, method or METHOD
    if option == ["help"]:
        known.check_pair(task, method)
        _explain(task, method)
        return
    options = parse_pairs(option or [])
    if batch_size is not None:
        if "batch_size" in options:
            raise UserError("--batch-size beside -o batch_size: the same said twice", "give one of them")
        options["batch_size"] = batch_size
    if allow:
        options["allow"] = [*options.get("allow", []), *allow]
    known.check(options, task, method)
    if tune and resume:
        raise UserError("--tune beside --resume: trials keep no state", "give one of them")
    if score and not tune:
        raise UserError(
            "--score without --tune: nothing is judged", "give --tune N, or score by onebase eval"
        )
    if data is None and method != "prompt" and method in BUILT_IN["methods"]:
        raise UserError(f"method {method} learns from data", "give --data FILE")
    if out is None and not dry_run:
        raise UserError(
            "nothing says where the adapter goes", "give --out DIR, or --dry-run for a plan alone"
        )
    if out is not None:
        refuse_existing(out, hold=not dry_run, overwrite="adapter" if overwrite else "")
    columns = named_columns(column or [])
    check_paths(ref, None, [data, test])
    import onebase
    import onebase.api  # methods of other packages register there, and tasks with their options in the table below
    import onebase.tasks.table
    from onebase.methods.table import method_of
    from onebase.tasks.options import read_options
    from onebase.train.callbacks import Progress

    if data is None and method_of(method).needs_rows:
        raise UserError(f"method {method} learns from data", "give --data FILE")
    read_options(options, task, method)  # their values, before the base is read
    base = onebase.load(ref, device=device, dtype=dtype)
    if out is None or dry_run:
        found = base.plan_adapt(data or [], **said, test=test, columns=columns, trials=tune, **options)
        say(found.text)
        return
    learn = partial(base.tune, trials=tune, score=score) if tune else partial(base.adapt, resume=resume)
    adapter = learn(
        data or [],
        **said,
        callbacks=[Progress(f"{method} {task}")],
        log=say,
        test=test,
        columns=columns,
        data_licence=data_licence,
        data_source=data_source,
        **options,
    )
    adapter.save(out, overwrite=overwrite)
    say(f"adapter: {out} ({size(adapter.bytes)}, {method}, for {base.fingerprint[:16]}...)")


def _explain(task: str, method: str) -> None:
    import onebase.api
    import onebase.tasks.table  # noqa: F401  and our tasks with their options here
    from onebase.tasks.options import explained

    say(explained(task, method))
