"""Commands that read records. None of them needs torch, and none imports it, but `show --read`: that makes the order of a run anew."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from onebase.cli.app import ArtifactRef, app, example, print_json, say
from onebase.errors import UserError


@app.command(
    "list", epilog=example("onebase list --add demo=runs/demo/pretrain", "onebase list --kind adapter --json")
)
def list_(
    kind: Annotated[
        str | None, typer.Option(help="Only these: base, adapter, dataset, run or checkpoint.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
    add: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIR", help="Give a folder a name in the store (repeatable)."),
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Take a name out of the store; a folder elsewhere stays."),
    ] = None,
) -> None:
    """The store: names, what each is, from what it was made, how large and how old it is."""
    from onebase.govern.listing import listed, table
    from onebase.govern.store import Store

    store = Store()
    for word in add or []:
        name, separator, folder = word.partition("=")
        if not separator or not folder:
            raise UserError(f"--add {word}: no name and folder", "give NAME=DIR")
        store.add(folder, name)
    for name in remove or []:
        store.remove(name)
    found, gone = listed(store, kind)
    if json:
        print_json([x.fields for x in found])
        return
    say(table(store, found))
    for line in gone:
        say(f"not listed: {line}")


class BareRead(TyperCommand):
    """A command whose `--read` may stand without a value: alone at the end, or before another option."""

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
        typer.Option(metavar="FILE", help="Write it as one page, with the curves of its training, instead."),
    ] = None,
    read: Annotated[
        str | None,
        typer.Option(
            metavar="[ID]",
            help="Count instead what a base read in pretraining, by source; with the id or hash of a document: how often that was read.",
        ),
    ] = None,
) -> None:
    """What an artifact is made of: its record, every number with its origin."""
    from onebase.govern.show import describe, lines
    from onebase.opening.find import find_base, refuse_foreign

    if read is not None and html is not None:
        raise UserError("--read beside --html: a page has no count of documents", "give one of them")
    path = find_base(ref)
    refuse_foreign(path)
    if read is not None:
        _say_read(path, read, json)
        return
    if html is not None:
        from onebase.govern.page import write_page

        write_page(path, html)
    if json:
        print_json(describe(path))
    elif html is not None:
        say(f"page: {html}")
    else:
        say("\n".join(lines(path)))


def _say_read(path: Path, document: str, json: bool) -> None:
    """What --read asks for."""
    import onebase.api  # objectives of other packages register there

    found = onebase.documents_read(path)
    if not document:
        if json:
            print_json(found.facts)
        else:
            say(found.text)
        return
    each = found.document(document)
    if json:
        print_json([vars(one) for one in each])
    else:
        say("\n".join(one.line() for one in each))


@app.command(epilog=example("onebase verify runs/demo/pretrain"))
def verify(ref: ArtifactRef) -> None:
    """Reread every byte of an artifact (of a run folder: of all in it); check manifest, fingerprint and record."""
    from onebase.opening.find import find_artifact, refuse_foreign

    path = find_artifact(ref)
    refuse_foreign(path)
    from onebase.govern.verify import verify_tree

    for report in verify_tree(path):
        say(report.line())
