"""Commands that learn: the demo, pretraining, adapting, and the plan before."""

from pathlib import Path
from typing import Annotated

import typer

from onebase.cli.app import Device, DType, Out, Ref, app, example, print_json, refuse_existing, say
from onebase.errors import UserError


@app.command(epilog=example("onebase demo --out runs/demo"))
def demo(
    out: Out = Path("runs/demo"),
    minutes: Annotated[
        float, typer.Option(help="Minutes of pretraining; more also trains a larger base.")
    ] = 2.6,
    quick: Annotated[bool, typer.Option(help="A few steps of everything, to see that it runs.")] = False,
) -> None:
    """The whole life of a base on data that pip alone brings: pretrain, adapt, measure, report."""
    from onebase.demo.run import run_demo

    run_demo(out, minutes=minutes, quick=quick, tell=say)


@app.command(epilog=example("onebase pretrain recipes/tiny.yaml train.steps=200 --out runs/tiny"))
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
    tensorboard: Annotated[bool, typer.Option(help="Also log to TensorBoard.")] = False,
    wandb: Annotated[bool, typer.Option(help="Also log to Weights & Biases.")] = False,
) -> None:
    """Pretrain a base from a recipe. The same command goes on where an interrupted one stopped (exit status 75)."""
    from onebase import config
    from onebase.api.pretraining import run_recipe
    from onebase.api.recipe import Recipe
    from onebase.train.listen import Progress
    from onebase.train.signals import EXIT_STOPPED

    more = [f"train.{k}={v}" for k, v in (("device", device), ("dtype", dtype)) if v]
    more += [f"log.{k}=true" for k, v in (("tensorboard", tensorboard), ("wandb", wandb)) if v]
    read = config.load(Recipe, recipe, [*(overrides or []), *more])
    finished = run_recipe(read, out or Path("runs") / read.name, listeners=[Progress(read.name)], tell=say)
    if finished.base is None:
        raise typer.Exit(EXIT_STOPPED)
    say(f"base: {finished.out / 'base'} ({finished.base.fingerprint[:16]}...)")


@app.command(
    epilog=example(
        "onebase adapt runs/demo/pretrain --data examples/opinions/train.jsonl --task classify --method head --out runs/opinions",
        "onebase adapt runs/demo/pretrain --data examples/chats.jsonl --task chat --method lora -o epochs=20 -o rank=16 --out runs/chat",
    )
)
def adapt(
    ref: Ref,
    out: Out,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="jsonl, csv or parquet: text+label, prompt+completion, or messages. Not for method prompt.",
        ),
    ] = None,
    task: Annotated[str, typer.Option(help="classify, complete or chat.")] = "classify",
    method: Annotated[str, typer.Option(help="prompt, head, lora or full.")] = "lora",
    option: Annotated[
        list[str] | None,
        typer.Option("-o", "--option", metavar="KEY=VALUE", help="Any option of Base.adapt, as YAML."),
    ] = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Adapt a base to a task; only the adapter is written."""
    import onebase
    from onebase.config import parse_pairs
    from onebase.train.listen import Progress

    if data is None and method != "prompt":
        raise UserError(f"method {method} learns from data", "give --data FILE")
    refuse_existing(out)
    base = onebase.load(ref, device=device, dtype=dtype)
    options = parse_pairs(option or [])
    adapter = base.adapt(
        data or [], task=task, method=method, listeners=[Progress(f"{method} {task}")], tell=say, **options
    )
    adapter.save(out)
    say(f"adapter: {out} ({adapter.bytes / 1024:.1f} KiB, {method}, for {base.fingerprint[:16]}...)")


@app.command(epilog=example("onebase plan recipes/124m.yaml", "onebase plan recipes/124m.yaml train.micro=8"))
def plan(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML).")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Recipe keys to change.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Parameters, FLOPs, memory and time of a recipe, before anything is allocated."""
    from onebase import config
    from onebase.api.planning import plan_recipe
    from onebase.api.recipe import Recipe

    found = plan_recipe(config.load(Recipe, recipe, overrides or []))
    if json:
        print_json(found.facts)
    else:
        say(found.text)
