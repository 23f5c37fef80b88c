"""The command eval: the scores of a base or an adapter, and the gate."""

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
    Schema,
    Spaces,
    app,
    check_paths,
    constraint,
    example,
    load_base,
    named_columns,
    print_json,
    say,
)
from onebase.errors import UserError

if TYPE_CHECKING:
    from onebase.api.base import Base
    from onebase.assess.harness import Harnessed
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
        from onebase.assess.keeping import keep_harness_scores, kept_in

        found = _by_harness(load_base(ref, adapter, device, dtype), lm_eval, lm_eval_include, json)
        if record and (folder := kept_in(adapter or [])) is not None:
            keep_harness_scores(folder, found)
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


def _by_harness(base: "Base", tasks: list[str], include: Path | None, json: bool) -> "Harnessed":
    """Score by lm-evaluation-harness, and print the scores."""
    import onebase

    found = onebase.lm_eval(base, tasks, include=include)
    if json:
        print_json(found.to_dict())
        return found
    _say_scores(found.scores)
    for name, numbers in found.results.items():
        say(f"lm_eval {found.versions['lm_eval']}, {name}: {numbers}")
    if found.cut:
        say(f"{found.cut} contexts lost their beginning: they were longer than the base reads")
    return found


def _say_scores(scores: "dict[str, Score]") -> None:
    for score in scores.values():
        how = f"  {score.how}" if score.how else ""
        say(f"{score.name}: {score.value:.4f} (95%: {score.low:.4f} to {score.high:.4f}, n = {score.n}){how}")


def _fields(score: "Score") -> dict[str, Any]:
    return {k: v for k, v in vars(score).items() if v != ""}
