"""Commands that train from a recipe: demo, pretrain and plan."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onebase.cli.app import Json, Out, app, echo, example, print_json
from onebase.cli.names import with_plugins
from onebase.errors import UserError

if TYPE_CHECKING:
    from onebase.pretraining.recipe import Recipe


@app.command(epilog=example("onebase demo --out runs/demo"))
def demo(
    out: Out = Path("runs/demo"),
    minutes: Annotated[
        float | None,
        typer.Option(help="Minutes of pretraining, instead of a number of tokens; from 30 on a larger base."),
    ] = None,
    quick: Annotated[bool, typer.Option(help="Run a few steps of everything, as a smoke test.")] = False,
) -> None:
    """Pretrain, adapt, evaluate and report on a small base; the data comes with pip packages."""
    from onebase.demo.run import run_demo

    run_demo(out, minutes=minutes, quick=quick, log=echo)


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
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Run folder (default: runs/NAME).")] = None,
    device: Annotated[
        str | None, typer.Option(help="Device: auto, cpu, cuda or mps (default: the recipe's).")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Dtype of activations: auto, bf16 or fp32 (default: the recipe's).")
    ] = None,
    extend: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Continue a finished run by steps, tokens, epochs or minutes; the previous base is kept.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="With --extend: replace the previous base.")
    ] = False,
    tensorboard: Annotated[bool, typer.Option(help="Also log to TensorBoard.")] = False,
    wandb: Annotated[bool, typer.Option(help="Also log to Weights & Biases.")] = False,
) -> None:
    """Pretrain a base from a recipe. The same command resumes an interrupted run (exit status 75)."""
    flags = [f"train.{k}={v}" for k, v in (("device", device), ("dtype", dtype)) if v]
    flags += [f"log.{k}=true" for k, v in (("tensorboard", tensorboard), ("wandb", wandb)) if v]
    config = _recipe(recipe, [*(overrides or []), *flags])
    from onebase.api.loading import run_recipe
    from onebase.config import parse_pairs
    from onebase.train.callbacks import Progress
    from onebase.train.signals import EXIT_STOPPED

    finished = run_recipe(
        config,
        out or Path("runs") / config.name,
        callbacks=[Progress(config.name)],
        log=echo,
        extend=None if extend is None else parse_pairs([extend]),
        overwrite=overwrite,
    )
    if finished.base is None:
        raise typer.Exit(EXIT_STOPPED)
    echo(f"base: {finished.out / 'base'} ({finished.base.fingerprint[:16]}...)")


def _recipe(path: Path, overrides: list[str]) -> "Recipe":
    """The recipe, read without torch; objectives of plug-ins are known."""
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
        typer.Option("--machine", help="Show this machine's dtypes, kernels and their measured speed."),
    ] = False,
    json: Json = False,
) -> None:
    """Say what a recipe takes: parameters and FLOPs counted, memory and time measured by a few steps; or describe this machine."""
    if machine == (recipe is not None):
        raise UserError(
            "both a recipe and --machine are given" if machine else "neither a recipe nor --machine is given",
            "give one: onebase plan recipes/tiny.yaml, or onebase plan --machine",
        )
    config = _recipe(recipe, overrides or []) if recipe else None
    from onebase.pretraining.planning import plan_machine, plan_recipe

    report = plan_machine() if config is None else plan_recipe(config)
    if json:
        print_json(report.facts)
    else:
        echo(report.text)
