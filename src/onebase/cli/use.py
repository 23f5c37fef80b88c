"""Commands that run a base: generate, chat and serve."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from onebase.cli.app import (
    AdapterDir,
    Device,
    DType,
    MaxTokens,
    Ref,
    Regex,
    Schema,
    Spaces,
    Temperature,
    Vars,
    app,
    check_paths,
    constraint,
    echo,
    example,
    load_base,
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
            help="Text to continue; - reads standard input. Not needed for a saved prompt without {text}."
        ),
    ] = None,
    adapter: AdapterDir = None,
    var: Vars = None,
    max_tokens: MaxTokens = 128,
    temperature: Temperature = 0.0,
    top_p: Annotated[
        float,
        typer.Option(help="Nucleus sampling: sample from the likeliest tokens of this total probability."),
    ] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Random seed, for repeatable sampling.")] = None,
    suffix: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Infill: generate the text between PROMPT and this suffix, with a base trained for infill.",
        ),
    ] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Stop before this text (repeatable).")] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Image file, one per image placeholder in the prompt, in order (repeatable).",
        ),
    ] = None,
    schema: Schema = None,
    spaces: Spaces = False,
    regex: Regex = None,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Continue a text, streamed to standard output."""
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
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    var: Vars = None,
    max_tokens: MaxTokens = 128,
    temperature: Temperature = 0.7,
    schema: Schema = None,
    spaces: Spaces = False,
    regex: Regex = None,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Chat with a base in the terminal; an empty line or end of input exits."""
    values = variables(var)
    check_paths(ref, adapter)
    form = constraint(schema, regex, spaces)
    base = load_base(ref, adapter, device, dtype)
    messages = [{"role": "system", "content": system}] if system else []
    lines = None if sys.stdin.isatty() else stdin_lines()
    while True:
        try:
            message = input("you> ") if lines is None else next(lines, "")
        except (EOFError, KeyboardInterrupt):
            message = ""
        if not message.strip():
            return
        messages.append({"role": "user", "content": message})
        answer = ""
        for piece in base.stream(
            messages, max_tokens=max_tokens, temperature=temperature, variables=values, constraint=form
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
            help="Adapter (folder, name in the store, or hf:org/name) to serve as model NAME; NAME=DIR+DIR stacks (repeatable).",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default accepts local connections only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 picks a free one.")] = 8000,
    name: Annotated[str | None, typer.Option(help="Model name of the base (default: its own).")] = None,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Serve a base and its adapters over an OpenAI-compatible HTTP API."""
    from onebase.opening.find import named_adapters

    check_paths(ref, [str(a) for each in named_adapters(adapter or []).values() for a in each])
    import onebase.api  # noqa: F401  # loads plug-ins
    from onebase.serve import serve_base

    serve_base(
        ref, adapters=adapter or [], host=host, port=port, name=name, device=device, dtype=dtype, log=echo
    )
