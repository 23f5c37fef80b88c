"""Commands that use a base: scores, text, chat, the server."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from onebase.cli.app import AdapterDir, Device, DType, Ref, app, example, load_base, print_json, say


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
        str | None,
        typer.Option(
            help="classify, regress, tag, complete, chat, embed or text (default: the adapter's, or text)."
        ),
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
    from onebase.api.gating import against_classical

    base = load_base(ref, adapter, device, dtype)
    scores = onebase.evaluate(base, data, task=task)
    verdict = against_classical(base, train, data) if train else None
    if json:
        print_json({k: vars(s) for k, s in scores.items()} | ({"gate": verdict.line} if verdict else {}))
        return
    for score in scores.values():
        say(f"{score.name}: {score.value:.4f} (95%: {score.low:.4f} to {score.high:.4f}, n = {score.n})")
    if verdict:
        say(verdict.line)


@app.command(
    epilog=example(
        'onebase generate runs/demo/pretrain "def main(" --max-tokens 40',
        'onebase generate bases/llava "USER: <image> What is it? ASSISTANT:" --image photos/a.png',
    )
)
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
    image: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A picture for a base that sees them, one for each place in the prompt, in order.",
        ),
    ] = None,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Continue a text, printed as it comes."""
    base = load_base(ref, adapter, device, dtype)
    text = sys.stdin.read() if prompt == "-" else prompt
    for piece in base.stream(
        text,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        stop=tuple(stop or ()),
        images=image or (),
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
    base = load_base(ref, adapter, device, dtype)
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
        ref, adapters=adapter or [], host=host, port=port, name=name, device=device, dtype=dtype, tell=say
    )
