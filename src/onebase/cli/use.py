"""Commands that use a base: text, chat, the server."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from onebase.cli.app import (
    AdapterDir,
    Device,
    DType,
    Ref,
    Regex,
    Schema,
    Spaces,
    Vars,
    app,
    check_paths,
    constraint,
    example,
    load_base,
    say,
    variables,
)
from onebase.cli.lines import stdin_lines, stdin_text
from onebase.errors import UserError


@app.command(
    epilog=example(
        'onebase generate runs/demo/pretrain "def main(" --max-tokens 40',
        'onebase generate bases/coder "def add(a, b):" --suffix "    return total"',
        'onebase generate bases/llava "USER: <image> What is it? ASSISTANT:" --image photos/a.png',
    )
)
def generate(
    ref: Ref,
    prompt: Annotated[
        str | None,
        typer.Argument(
            help="Text to continue; - reads it from standard input. Not for a saved prompt without {text}."
        ),
    ] = None,
    adapter: AdapterDir = None,
    var: Vars = None,
    max_tokens: Annotated[int, typer.Option(help="New tokens at most.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_p: Annotated[
        float, typer.Option(help="Sample from the likeliest tokens of this total probability.")
    ] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.")] = None,
    suffix: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What comes behind: the text between PROMPT and it is written, by a base that learnt infill.",
        ),
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="Text to stop before; may be given more than once.")
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A picture for a base that sees them, one for each place in the prompt, in order.",
        ),
    ] = None,
    schema: Schema = None,
    spaces: Spaces = False,
    regex: Regex = None,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Continue a text, printed as it comes."""
    if prompt is None and not var:
        raise UserError("there is no text to continue", "give PROMPT, or --var for a saved prompt")
    check_paths(ref, adapter, image or ())
    form = constraint(schema, regex, spaces)
    base = load_base(ref, adapter, device, dtype)
    text = stdin_text() if prompt == "-" else prompt or ""
    for piece in base.stream(
        text,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        stop=tuple(stop or ()),
        images=image or (),
        variables=variables(var),
        constraint=form,
        suffix=suffix,
    ):
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


@app.command(epilog=example("onebase chat runs/demo/pretrain --adapter runs/chat"))
def chat(
    ref: Ref,
    adapter: AdapterDir = None,
    system: Annotated[str | None, typer.Option(help="A system message.")] = None,
    var: Vars = None,
    max_tokens: Annotated[int, typer.Option(help="New tokens of an answer, at most.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.7,
    schema: Schema = None,
    spaces: Spaces = False,
    regex: Regex = None,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Talk to a base in the terminal; an empty line or end of input leaves."""
    given = variables(var)
    check_paths(ref, adapter)
    form = constraint(schema, regex, spaces)
    base = load_base(ref, adapter, device, dtype)
    messages = [{"role": "system", "content": system}] if system else []
    lines = None if sys.stdin.isatty() else stdin_lines()
    while True:
        try:
            said = input("you> ") if lines is None else next(lines, "")
        except (EOFError, KeyboardInterrupt):
            said = ""
        if not said.strip():
            return
        messages.append({"role": "user", "content": said})
        answer = ""
        for piece in base.stream(
            messages, max_tokens=max_tokens, temperature=temperature, variables=given, constraint=form
        ):
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
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR",
            help="An adapter (a folder, a name in the store, or hf:org/name) to serve as a model NAME; NAME=DIR+DIR stacks.",
        ),
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
    from onebase.opening.find import named_adapters

    check_paths(ref, [str(a) for each in named_adapters(adapter or []).values() for a in each])
    import onebase.api  # noqa: F401  # tasks and methods of other packages register there
    from onebase.serve import serve_base

    serve_base(
        ref, adapters=adapter or [], host=host, port=port, name=name, device=device, dtype=dtype, log=say
    )
