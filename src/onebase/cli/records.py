"""Commands that read records."""

from typing import Annotated

import typer

from onebase.cli.app import Ref, app, example, print_json, say


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
        print_json(describe(path))
    else:
        say("\n".join(lines(path)))


@app.command(epilog=example("onebase verify runs/demo/pretrain"))
def verify(ref: Ref) -> None:
    """Reread every byte of an artifact (of a run folder: of all in it); check manifest, fingerprint and record."""
    from onebase.api.exchange import refuse_foreign
    from onebase.api.loading import find_artifact
    from onebase.govern.verify import verify_tree

    path = find_artifact(ref)
    refuse_foreign(path)
    for report in verify_tree(path):
        say(report.line())
