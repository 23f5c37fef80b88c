"""The command line: thin over the Python face, imports on use, failures as one line of cause and one of remedy."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onebase.errors import UserError

if TYPE_CHECKING:
    import onebase

app = typer.Typer(
    name="onebase",
    help="One base, every task, known origins: pretrain, adapt, measure, account for and serve a foundation model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Ref = Annotated[
    str, typer.Argument(metavar="REF", help="A base folder, a run folder that holds base/, or a store name.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
DType = Annotated[str, typer.Option(help="Number format of activations: auto, bf16 or fp32.")]
AdapterDir = Annotated[
    str | None, typer.Option(metavar="REF", help="An adapter to put on the base: a folder or a store name.")
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder to write.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")]


def example(*lines: str) -> str:
    """An epilog that shows how a command is used."""
    return "Example:\n\n" + "\n\n".join(lines)


@app.callback()
def _all(debug: Debug = False) -> None:
    if debug:
        os.environ["ONEBASE_DEBUG"] = "1"


@app.command(epilog=example("onebase demo --out runs/demo"))
def demo(
    out: Out = Path("runs/demo"),
    minutes: Annotated[
        float, typer.Option(help="Minutes of pretraining; more also trains a larger base.")
    ] = 2.75,
    quick: Annotated[bool, typer.Option(help="A few steps of everything, to see that it runs.")] = False,
) -> None:
    """The whole life of a base on data that pip alone brings: pretrain, adapt, measure, report."""
    from onebase.demo.run import run_demo

    run_demo(out, minutes=minutes, quick=quick, tell=_say)


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
    finished = run_recipe(read, out or Path("runs") / read.name, listeners=[Progress(read.name)], tell=_say)
    if finished.base is None:
        raise typer.Exit(EXIT_STOPPED)
    _say(f"base: {finished.out / 'base'} ({finished.base.fingerprint[:16]}...)")


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
    _refuse_existing(out)
    base = onebase.load(ref, device=device, dtype=dtype)
    options = parse_pairs(option or [])
    adapter = base.adapt(
        data or [], task=task, method=method, listeners=[Progress(f"{method} {task}")], tell=_say, **options
    )
    adapter.save(out)
    _say(f"adapter: {out} ({adapter.bytes / 1024:.1f} KiB, {method}, for {base.fingerprint[:16]}...)")


@app.command(
    "eval",
    epilog=example(
        "onebase eval runs/demo/pretrain --adapter runs/opinions --data examples/opinions/test.jsonl"
    ),
)
def eval_(
    ref: Ref,
    data: Annotated[Path, typer.Option(metavar="FILE", help="Labelled rows, completions, chats, or text.")],
    adapter: AdapterDir = None,
    task: Annotated[
        str | None, typer.Option(help="classify, complete, chat or text (default: the adapter's, or text).")
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The rows the adapter learnt from, for the gate: classical rivals and an untrained twin (classify).",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Score a base or an adapter, each number with its 95% interval; with --train, ask whether a base is needed at all."""
    import onebase
    from onebase.api.evaluating import against_classical

    base = _load(ref, adapter, device, dtype)
    scores = onebase.evaluate(base, data, task=task)
    verdict = against_classical(base, train, data) if train else None
    if json:
        _print_json({k: vars(s) for k, s in scores.items()} | ({"gate": verdict.line} if verdict else {}))
        return
    for score in scores.values():
        _say(f"{score.name}: {score.value:.4f} (95%: {score.low:.4f} to {score.high:.4f}, n = {score.n})")
    if verdict:
        _say(verdict.line)


@app.command(epilog=example('onebase generate runs/demo/pretrain "def main(" --max-tokens 40'))
def generate(
    ref: Ref,
    prompt: Annotated[str, typer.Argument(help="Text to continue; - reads it from standard input.")],
    adapter: AdapterDir = None,
    max_tokens: Annotated[int, typer.Option(help="New tokens at most.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_p: Annotated[
        float, typer.Option(help="Sample from the likeliest tokens of this total probability.")
    ] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="Text to stop before; may be given more than once.")
    ] = None,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Continue a text, printed as it comes."""
    base = _load(ref, adapter, device, dtype)
    text = sys.stdin.read() if prompt == "-" else prompt
    for piece in base.stream(
        text, max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed, stop=tuple(stop or ())
    ):
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


@app.command(epilog=example("onebase chat runs/demo/pretrain --adapter runs/chat"))
def chat(
    ref: Ref,
    adapter: AdapterDir = None,
    system: Annotated[str | None, typer.Option(help="A system message.")] = None,
    max_tokens: Annotated[int, typer.Option(help="New tokens of an answer, at most.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.7,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Talk to a base in the terminal; an empty line or end of input leaves."""
    base = _load(ref, adapter, device, dtype)
    messages = [{"role": "system", "content": system}] if system else []
    while True:
        try:
            said = input("you> " if sys.stdin.isatty() else "")
        except (EOFError, KeyboardInterrupt):
            said = ""
        if not said.strip():
            return
        messages.append({"role": "user", "content": said})
        answer = ""
        for piece in base.stream(messages, max_tokens=max_tokens, temperature=temperature):
            answer += piece
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
        messages.append({"role": "assistant", "content": answer})


@app.command(
    epilog=example(
        "onebase serve runs/demo/pretrain --adapter chat=runs/chat --port 8000",
        "curl http://127.0.0.1:8000/v1/models",
    )
)
def serve(
    ref: Ref,
    adapter: Annotated[
        list[str] | None, typer.Option(metavar="NAME=DIR", help="An adapter to serve as a model NAME.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default is this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8000,
    name: Annotated[str | None, typer.Option(help="Model name of the base (default: its own).")] = None,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Serve a base and its adapters behind an OpenAI-shaped HTTP API."""
    from onebase.api.serving import serve_base

    serve_base(
        ref, adapters=adapter or [], host=host, port=port, name=name, device=device, dtype=dtype, tell=_say
    )


@app.command(epilog=example("onebase show runs/demo/pretrain", "onebase show runs/demo/pretrain --json"))
def show(
    ref: Ref,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """What an artifact is made of: its record, every number with its origin."""
    from onebase.api.exchange import refuse_foreign
    from onebase.api.loading import find_base
    from onebase.govern.show import describe, lines

    path = find_base(ref)
    refuse_foreign(path)
    if json:
        _print_json(describe(path))
    else:
        _say("\n".join(lines(path)))


@app.command(epilog=example("onebase verify runs/demo/pretrain"))
def verify(ref: Ref) -> None:
    """Reread every byte of an artifact (of a run folder: of all in it); check manifest, fingerprint and record."""
    from onebase.api.exchange import refuse_foreign
    from onebase.api.loading import find_artifact
    from onebase.govern.verify import verify_tree

    path = find_artifact(ref)
    refuse_foreign(path)
    for report in verify_tree(path):
        _say(report.line())


@app.command(
    "import",
    epilog=example(
        "onebase import models/SmolLM2-135M-Instruct --out bases/smollm2",
        "onebase import models/peft-adapter --base bases/smollm2 --out runs/adapter",
    ),
)
def import_(
    src: Annotated[str, typer.Argument(metavar="SRC", help="An open model, or an adapter (docs/bases.md).")],
    out: Out,
    base: Annotated[str | None, typer.Option(metavar="REF", help="The base of an adapter of PEFT.")] = None,
) -> None:
    """Take an open model into a base folder, its record saying where from. (Other commands also take SRC as it is.)"""
    import onebase

    _refuse_existing(out)
    if base is not None:
        from onebase.api.exchange import read_adapter
        from onebase.api.loading import find_artifact

        loaded = onebase.load(base).loaded
        onebase.Adapter(read_adapter(loaded, find_artifact(src))).save(out)
        _say(f"adapter: {out} (for {loaded.fingerprint[:16]}...)")
        return
    found = onebase.import_base(src, out)
    _say(f"base: {out} ({found.fingerprint[:16]}...)")


@app.command(epilog=example("onebase export runs/demo/pretrain --format hf --out exported"))
def export(
    ref: Ref,
    out: Out,
    format: Annotated[str, typer.Option(help="hf, or another format of docs/bases.md.")] = "hf",
    adapter: AdapterDir = None,
    option: Annotated[
        list[str] | None,
        typer.Option("-o", "--option", metavar="KEY=VALUE", help="An option of the format, as YAML."),
    ] = None,
) -> None:
    """Write a base for other programs; with --adapter its weights are merged in."""
    from onebase.api.exchange import export as write
    from onebase.config import parse_pairs

    _refuse_existing(out)
    write(_load(ref, adapter, "cpu", "fp32"), out, format, parse_pairs(option or []))
    _say(f"{format}: {out}")


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
        _print_json(found.facts)
    else:
        _say(found.text)


def _load(ref: str, adapter: str | None, device: str, dtype: str) -> "onebase.Base":
    import onebase
    from onebase.api.loading import find_artifact

    found = find_artifact(adapter) if adapter else None  # say that it is not there before the base is read
    base = onebase.load(ref, device=device, dtype=dtype)
    return base.with_adapter(found) if found else base


def _say(line: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # under torchrun one process speaks for all
        print(line, flush=True)


def _print_json(value: Any) -> None:
    import json

    print(json.dumps(value, indent=1))


def _refuse_existing(out: Path) -> None:
    """Say that the folder is taken before the work, not after it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} already exists", "choose another --out")


def main() -> None:
    """Entry point. A UserError becomes two lines on standard error and status 1."""
    _guard(lambda: app(prog_name="onebase"))


def _guard(work: Callable[[], Any]) -> None:
    try:
        work()
    except UserError as e:
        if os.environ.get("ONEBASE_DEBUG"):
            raise
        print(f"error: {e.cause}", file=sys.stderr)
        if e.remedy:
            print(f"  {e.remedy}", file=sys.stderr)
        raise SystemExit(e.exit_status) from None
    except OSError as e:
        # What a room did not foresee: still a cause and a remedy. A closed pipe (`| head`) is no failure.
        if isinstance(e, BrokenPipeError):
            sys.stderr.close()
            raise SystemExit(0) from None
        if os.environ.get("ONEBASE_DEBUG"):
            raise
        print(f"error: {e}", file=sys.stderr)
        print("  check the disk, the path and its permissions (--debug shows where)", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
