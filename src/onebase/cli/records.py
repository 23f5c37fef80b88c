"""Commands that read records."""

from pathlib import Path
from typing import Annotated

import typer

from onebase.cli.app import Ref, app, example, print_json, say


@app.command(
    epilog=example("onebase show runs/demo/pretrain --json", "onebase show runs/adds --html runs/adds.html")
)
def show(
    ref: Ref,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write it as one page, with the curves of its training, instead."),
    ] = None,
) -> None:
    """What an artifact is made of: its record, every number with its origin."""
    from onebase.govern.show import describe, lines
    from onebase.opening.names import find_base, refuse_foreign

    path = find_base(ref)
    refuse_foreign(path)
    if html is not None:
        from onebase.govern.page import write_page

        write_page(path, html)
    if json:
        print_json(describe(path))
    elif html is not None:
        say(f"page: {html}")
    else:
        say("\n".join(lines(path)))


@app.command(epilog=example("onebase verify runs/demo/pretrain"))
def verify(ref: Ref) -> None:
    """Reread every byte of an artifact (of a run folder: of all in it); check manifest, fingerprint and record."""
    from onebase.govern.verify import verify_tree
    from onebase.opening.names import find_artifact, refuse_foreign

    path = find_artifact(ref)
    refuse_foreign(path)
    for report in verify_tree(path):
        say(report.line())
