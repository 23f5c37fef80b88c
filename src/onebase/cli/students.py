"""The command that makes a smaller base for a larger one to teach."""

from typing import Annotated

import typer

from onebase.cli.app import Out, Ref, app, check_paths, example, refuse_existing, say


@app.command(
    epilog=example(
        "onebase student runs/demo/pretrain --layers 2 --out bases/student",
        "onebase student bases/minilm --layers 2 --tokens 5000 --data texts.jsonl --out bases/small",
    )
)
def student(
    ref: Ref,
    out: Out,
    layers: Annotated[int, typer.Option(help="Layers that it keeps, spread evenly.")],
    tokens: Annotated[
        int | None, typer.Option(help="Tokens of the vocabulary that it keeps at most (WordPiece).")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="FILE", help="Texts that say which: rows of text, or files.")
    ] = None,
) -> None:
    """Make a smaller base of some layers of a base, for `adapt --task distil`."""
    refuse_existing(out)
    check_paths(ref, None, [data])
    import onebase

    made = onebase.load(ref).student(layers, tokens=tokens, data=data)
    made.save(out)
    now, before = (made.record.get(f"student.parameters{x}") for x in ("", "_before"))
    say(f"base: {out} ({made.fingerprint[:16]}..., {now:,} of {before:,} parameters)")
