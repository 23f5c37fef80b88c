"""Commands that use a base: scores, text, chat, the server."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onebase.cli.app import (
    AdapterDir,
    Column,
    Device,
    DType,
    FromTables,
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
    named_columns,
    print_json,
    say,
    variables,
)
from onebase.cli.lines import stdin_lines, stdin_text
from onebase.errors import UserError

if TYPE_CHECKING:
    from onebase.api.base import Base
    from onebase.evaluation.bootstrap import Score


@app.command(
    "eval",
    cls=FromTables,
    epilog=example(
        "onebase eval runs/demo/pretrain --adapter runs/opinions --data examples/opinions/test.jsonl",
        "onebase eval runs/demo/pretrain --lm-eval examples/audit/choice.yaml",
    ),
)
def eval_(
    ref: Ref,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Labelled rows, completions, chats, or text.")
    ] = None,
    adapter: AdapterDir = None,
    column: Column = None,
    task: Annotated[
        str | None,
        typer.Option(help="What is scored: {scored} (default: the adapter's, or text)."),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The rows the adapter learnt from, for the gate: is it better than classical systems (classify, regress, tag)?",
        ),
    ] = None,
    twin: Annotated[
        bool,
        typer.Option(
            "--twin",
            help="With --train: compare with the same adapter on an untrained base, too (it takes as long as the adapter took).",
        ),
    ] = False,
    schema: Schema = None,
    spaces: Spaces = False,
    max_tokens: Annotated[int, typer.Option(help="New tokens of a written answer, at most.")] = 64,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "-o",
            "--option",
            metavar="KEY=VALUE",
            help="How completions are judged (tasks {judged}): reward, max_tokens, stop, success, samples.",
        ),
    ] = None,
    score: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A score that is wanted, in the place of the task's own (repeatable; docs/evaluation.md).",
        ),
    ] = None,
    lm_eval: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK",
            help="In the place of --data: a task of lm-evaluation-harness, a file (.yaml) or a name (repeatable).",
        ),
    ] = None,
    lm_eval_include: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A folder of task files, for names.")
    ] = None,
    record: Annotated[
        bool,
        typer.Option(
            "--record/--no-record", help="Keep the scores in the adapter's record, with the hash of the data."
        ),
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Score a base or an adapter, each number with its 95% interval; with --train, ask whether a base is needed at all."""
    from onebase.config import parse_pairs

    if lm_eval:
        if data or train or task or column or score:
            raise UserError(
                "--lm-eval beside --data, --train, --task, --column or --score: two ways to score",
                "give one of them",
            )
        _by_harness(load_base(ref, adapter, device, dtype), lm_eval, lm_eval_include, json)
        return
    if data is None:
        raise UserError("there is nothing to score on", "give --data FILE, or --lm-eval TASK")
    if twin and not train:
        raise UserError("--twin without --train: there is no gate", "give --train FILE, the adapter's rows")
    columns = named_columns(column or [])
    judged = parse_pairs(option) if option else None
    check_paths(ref, adapter, [data, train])
    import onebase
    from onebase.assess.gating import against_classical, compared_adapter, refuse_other_rows
    from onebase.assess.keeping import keep_scores, kept_in
    from onebase.data.file_hashes import files_read
    from onebase.data.labelled import Data, Records
    from onebase.opening.names import resolved

    form = constraint(schema)
    base = load_base(ref, adapter, device, dtype)
    rows: Data = data
    if train:
        compared_adapter(base)  # says what the gate does not compare
        learnt = Records.of(resolved(train), columns).kept()
    with files_read() as files:
        if train or columns:
            rows = Records.of(resolved(data), columns).kept()
        if train:
            refuse_other_rows(base, learnt, rows)
        scores = onebase.evaluate(
            base, rows, task=task, max_tokens=max_tokens, constraint=form, judge=judged, scores=score
        )
    verdict = None
    if train:
        verdict = against_classical(base, learnt, rows, twin=twin)
    if record and (folder := kept_in(adapter or [])) is not None:
        keep_scores(folder, scores, files, verdict)
    if json:
        gate = (
            {
                "gate": verdict.line,
                "gate_answer": verdict.answer,
                "gate_costs": [vars(c) for c in verdict.costs],
            }
            if verdict
            else {}
        )
        print_json({k: _fields(s) for k, s in scores.items()} | gate)
        return
    _say_scores(scores)
    if verdict:
        say(verdict.line)
        say(verdict.table)


def _by_harness(base: "Base", tasks: list[str], include: Path | None, json: bool) -> None:
    """Score by lm-evaluation-harness, and say what it found."""
    import onebase

    found = onebase.lm_eval(base, tasks, include=include)
    if json:
        print_json(found.to_dict())
        return
    _say_scores(found.scores)
    for name, numbers in found.results.items():
        say(f"lm_eval {found.versions['lm_eval']}, {name}: {numbers}")
    if found.cut:
        say(f"{found.cut} contexts lost their beginning: they were longer than the base reads")


def _say_scores(scores: "dict[str, Score]") -> None:
    for score in scores.values():
        how = f"  {score.how}" if score.how else ""
        say(f"{score.name}: {score.value:.4f} (95%: {score.low:.4f} to {score.high:.4f}, n = {score.n}){how}")


def _fields(score: "Score") -> dict[str, Any]:
    return {k: v for k, v in vars(score).items() if v != ""}


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
