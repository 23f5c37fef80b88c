"""Commands that learn: the demo, pretraining, adapting, and the plan before."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onebase.cli.app import (
    Column,
    Device,
    DType,
    FromTables,
    Out,
    Ref,
    app,
    check_paths,
    example,
    named_columns,
    print_json,
    refuse_existing,
    say,
)
from onebase.cli.names import BUILT_IN, with_plugins
from onebase.errors import UserError
from onebase.readable import size

if TYPE_CHECKING:
    from onebase.pretraining.recipe import Recipe


@app.command(epilog=example("onebase demo --out runs/demo"))
def demo(
    out: Out = Path("runs/demo"),
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Minutes of pretraining, in place of a fixed number of tokens; from 30 on also a larger base."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option(help="A few steps of everything, to see that it runs.")] = False,
) -> None:
    """The whole life of a base on data that pip alone brings: pretrain, adapt, measure, report."""
    from onebase.demo.run import run_demo

    run_demo(out, minutes=minutes, quick=quick, log=say)


@app.command(
    epilog=example(
        "onebase pretrain recipes/tiny.yaml train.steps=200 --out runs/tiny",
        "onebase pretrain recipes/tiny.yaml train.steps=200 --out runs/tiny --extend minutes=60",
    )
)
def pretrain(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML).")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Recipe keys to change.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Run folder; runs/NAME when not given.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or mps (default: as the recipe says).")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="auto, bf16 or fp32 (default: as the recipe says).")
    ] = None,
    extend: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Go on from a finished run, by one of steps, tokens, epochs, minutes; the base of before is kept.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="With --extend: do not keep the base of before.")
    ] = False,
    tensorboard: Annotated[bool, typer.Option(help="Also log to TensorBoard.")] = False,
    wandb: Annotated[bool, typer.Option(help="Also log to Weights & Biases.")] = False,
) -> None:
    """Pretrain a base from a recipe. The same command goes on where an interrupted one stopped (exit status 75)."""
    more = [f"train.{k}={v}" for k, v in (("device", device), ("dtype", dtype)) if v]
    more += [f"log.{k}=true" for k, v in (("tensorboard", tensorboard), ("wandb", wandb)) if v]
    read = _recipe(recipe, [*(overrides or []), *more])
    from onebase.api.loading import run_recipe
    from onebase.config import parse_pairs
    from onebase.train.callbacks import Progress
    from onebase.train.signals import EXIT_STOPPED

    finished = run_recipe(
        read,
        out or Path("runs") / read.name,
        callbacks=[Progress(read.name)],
        log=say,
        extend=None if extend is None else parse_pairs([extend]),
        overwrite=overwrite,
    )
    if finished.base is None:
        raise typer.Exit(EXIT_STOPPED)
    say(f"base: {finished.out / 'base'} ({finished.base.fingerprint[:16]}...)")


def _recipe(path: Path, overrides: list[str]) -> "Recipe":
    """The recipe, read without torch; the objectives of other packages are known."""
    from onebase import config
    from onebase.pretraining.recipe import Recipe

    with_plugins()
    return config.load(Recipe, path, overrides)


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


@app.command(
    epilog=example(
        "onebase plan recipes/124m.yaml",
        "onebase plan recipes/124m.yaml train.micro_batch=8",
        "onebase plan --machine",
    )
)
def plan(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe (YAML); none with --machine.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Recipe keys to change.")
    ] = None,
    machine: Annotated[
        bool,
        typer.Option(
            "--machine", help="What this machine computes with: formats, kernels, their measured speed."
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Parameters, FLOPs, memory and time of a recipe, before anything is allocated; or what was chosen for this machine."""
    if machine == (recipe is not None):
        raise UserError(
            "a recipe and --machine" if machine else "neither a recipe nor --machine",
            "give one: onebase plan recipes/tiny.yaml, or onebase plan --machine",
        )
    read = _recipe(recipe, overrides or []) if recipe else None
    from onebase.pretraining.planning import plan_machine, plan_recipe

    found = plan_machine() if read is None else plan_recipe(read)
    if json:
        print_json(found.facts)
    else:
        say(found.text)
