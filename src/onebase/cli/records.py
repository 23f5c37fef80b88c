"""Commands that read records: list, show and verify. None imports torch except `show --read`, which recomputes the order of a run."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from onebase.cli.app import ArtifactRef, app, echo, example, print_json
from onebase.errors import UserError


@app.command(
    "list", epilog=example("onebase list --add demo=runs/demo/pretrain", "onebase list --kind adapter --json")
)
def list_(
    kind: Annotated[
        str | None, typer.Option(help="Only this kind: base, adapter, dataset, run or checkpoint.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
    add: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIR", help="Add a folder to the store under a name (repeatable)."),
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Remove a name from the store; folders outside the store are not deleted (repeatable).",
        ),
    ] = None,
) -> None:
    """List the artifacts in the store: name, kind, parents, size and age."""
    from onebase.govern.listing import listed, table
    from onebase.govern.store import Store

    store = Store()
    for word in add or []:
        name, separator, folder = word.partition("=")
        if not separator or not folder:
            raise UserError(f"--add {word} is not of the form NAME=DIR", "give a name and a folder: NAME=DIR")
        store.add(folder, name)
    for name in remove or []:
        store.remove(name)
    entries, missing = listed(store, kind)
    if json:
        print_json([x.fields for x in entries])
        return
    echo(table(store, entries))
    for line in missing:
        echo(f"not listed: {line}")


class BareRead(TyperCommand):
    """A command whose `--read` may be given without a value: at the end, or before another option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        after = [*args[1:], "-"]
        bare = [
            "--read=" if a == "--read" and b.startswith("-") else a for a, b in zip(args, after, strict=True)
        ]
        return super().parse_args(ctx, bare)


@app.command(
    cls=BareRead,
    epilog=example(
        "onebase show runs/demo/pretrain --json",
        "onebase show runs/adds --html runs/adds.html",
        "onebase show runs/demo/pretrain --read",
    ),
)
def show(
    ref: ArtifactRef,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write an HTML page instead, with the training curves."),
    ] = None,
    read: Annotated[
        str | None,
        typer.Option(
            metavar="[ID]",
            help="Count what was read in pretraining, by source; with a document's id or hash: how often it was read.",
        ),
    ] = None,
) -> None:
    """Show the record of an artifact: where it comes from, with the origin of every number."""
    from onebase.govern.show import describe, lines
    from onebase.opening.find import find_base, refuse_foreign

    if read is not None and html is not None:
        raise UserError("--read does not go with --html: the page has no document counts", "give one of them")
    path = find_base(ref)
    refuse_foreign(path)
    if read is not None:
        _print_read(path, read, json)
        return
    if html is not None:
        from onebase.govern.page import write_page

        write_page(path, html)
    if json:
        print_json(describe(path))
    elif html is not None:
        echo(f"page: {html}")
    else:
        echo("\n".join(lines(path)))


def _print_read(path: Path, document: str, json: bool) -> None:
    """Print what was read in pretraining: all sources, or one document."""
    import onebase.api  # loads plug-ins

    report = onebase.documents_read(path)
    if not document:
        if json:
            print_json(report.facts)
        else:
            echo(report.text)
        return
    matches = report.document(document)
    if json:
        print_json([vars(one) for one in matches])
    else:
        echo("\n".join(one.line() for one in matches))


@app.command(epilog=example("onebase verify runs/demo/pretrain"))
def verify(ref: ArtifactRef) -> None:
    """Reread every byte of an artifact, or of all artifacts in a run folder; check manifest, fingerprint and record."""
    from onebase.opening.find import find_artifact, refuse_foreign

    path = find_artifact(ref)
    refuse_foreign(path)
    from onebase.govern.verify import verify_tree

    for report in verify_tree(path):
        echo(report.line())
