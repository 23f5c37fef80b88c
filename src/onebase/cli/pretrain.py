"""Commands about a recipe: the demo, pretraining, and the plan before."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onebase.cli.app import Out, app, example, print_json, say
from onebase.cli.names import with_plugins
from onebase.errors import UserError

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
