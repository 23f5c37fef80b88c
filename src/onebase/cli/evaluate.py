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
    Json,
    MaxTokens,
    Ref,
    Schema,
    Spaces,
    app,
    check_paths,
    constraint,
    echo,
    example,
    load_base,
    named_columns,
    pairs_option,
    print_json,
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
        Path | None,
        typer.Option(metavar="FILE", help="Rows to score: labelled rows, completions, chats or text."),
    ] = None,
    adapter: AdapterDir = None,
    column: Column = None,
    task: Annotated[
        str | None,
        typer.Option(help="Task to score: {scored} (default: the adapter's, or text)."),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Training rows of the adapter, for the gate against classical systems (classify, regress, tag).",
        ),
    ] = None,
    twin: Annotated[
        bool,
        typer.Option(
            "--twin", help="With --train: also train the same adapter on an untrained base, and compare."
        ),
    ] = False,
    schema: Schema = None,
    spaces: Spaces = False,
    max_tokens: MaxTokens = 64,
    option: Annotated[
        list[str] | None,
        pairs_option(
            "Option of judging completions (tasks {judged}): reward, max_tokens, stop, success, samples."
        ),
    ] = None,
    score: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Score to compute instead of the task's default scores (repeatable; docs/evaluation.md).",
        ),
    ] = None,
    lm_eval: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK",
            help="Instead of --data: a task of lm-evaluation-harness, a .yaml file or a name (repeatable).",
        ),
    ] = None,
    lm_eval_include: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of task files that --lm-eval may name.")
    ] = None,
    record: Annotated[
        bool,
        typer.Option(
            "--record/--no-record", help="Save the scores in the adapter's record, with the hash of the data."
        ),
    ] = True,
    json: Json = False,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Score a base or an adapter, with 95% intervals; with --train, compare it with classical systems."""
    from onebase.config import parse_pairs

    if lm_eval:
        if data or train or task or column or score:
            raise UserError(
                "--lm-eval does not go with --data, --train, --task, --column or --score",
                "give one of them",
            )
        from onebase.assess.keeping import keep_harness_scores, kept_in

        report = _by_harness(load_base(ref, adapter, device, dtype), lm_eval, lm_eval_include, json)
        if record and (folder := kept_in(adapter or [])) is not None:
            keep_harness_scores(folder, report)
        return
    if data is None:
        raise UserError("no data to score", "give --data FILE, or --lm-eval TASK")
    if twin and not train:
        raise UserError("--twin needs --train", "give --train FILE, the training rows of the adapter")
    columns = named_columns(column or [])
    judge = parse_pairs(option) if option else None
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
        compared_adapter(base)  # raises for what the gate cannot compare
        train_rows = Records.of(resolved(train), columns).kept()
    with files_read() as files:
        if train or columns:
            rows = Records.of(resolved(data), columns).kept()
        if train:
            refuse_other_rows(base, train_rows, rows)
        scores = onebase.evaluate(
            base, rows, task=task, max_tokens=max_tokens, constraint=form, judge=judge, scores=score
        )
    verdict = None
    if train:
        verdict = against_classical(base, train_rows, rows, twin=twin)
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
    _print_scores(scores)
    if verdict:
        echo(verdict.line)
        echo(verdict.table)


def _by_harness(base: "Base", tasks: list[str], include: Path | None, json: bool) -> "Harnessed":
    """Score with lm-evaluation-harness, and print the results."""
    import onebase

    report = onebase.lm_eval(base, tasks, include=include)
    if json:
        print_json(report.to_dict())
        return report
    _print_scores(report.scores)
    for name, numbers in report.results.items():
        echo(f"lm_eval {report.versions['lm_eval']}, {name}: {numbers}")
    if report.cut:
        echo(f"{report.cut} contexts were cut at their beginning: they exceed the base's context")
    return report


def _print_scores(scores: "dict[str, Score]") -> None:
    for score in scores.values():
        how = f"  {score.how}" if score.how else ""
        echo(
            f"{score.name}: {score.value:.4f} (95%: {score.low:.4f} to {score.high:.4f}, n = {score.n}){how}"
        )


def _fields(score: "Score") -> dict[str, Any]:
    return {k: v for k, v in vars(score).items() if v != ""}
