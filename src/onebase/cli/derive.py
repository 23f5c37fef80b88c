"""Commands that make one adapter of several, and a smaller base for a larger one to teach."""

from typing import Annotated

import typer

from onebase.cli.app import Out, Ref, app, check_paths, example, refuse_existing, say
from onebase.errors import UserError
from onebase.readable import size


@app.command(
    epilog=example(
        "onebase combine runs/chat runs/code --weights 0.5,0.5 --out runs/both",
        "onebase combine runs/a runs/b runs/c --how ties --density 0.2 --rank 16 --out runs/all",
    )
)
def combine(
    adapters: Annotated[
        list[str],
        typer.Argument(metavar="REF...", help="LoRA adapters of one base: folders, or names in the store."),
    ],
    out: Out,
    weights: Annotated[
        str | None, typer.Option(help="One for each, with commas between (default: equal, adding up to 1).")
    ] = None,
    how: Annotated[str | None, typer.Option(help="linear (exact, the default) or ties.")] = None,
    density: Annotated[
        float | None, typer.Option(help="ties: the share of each delta that stays (default 0.2).")
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="Rank of the result (default: the sum of the adapters').")
    ] = None,
) -> None:
    """Make one adapter of several of the same base, for the task of the first."""
    refuse_existing(out)
    shares = None if weights is None else _numbers(weights)
    check_paths(None, adapters)
    import onebase

    made = onebase.combine(
        adapters,
        shares,
        how=how,  # type: ignore[arg-type]  # checked there, with the accepted words
        density=density,
        rank=rank,
    )
    made.save(out)
    error = made.record.get("combined.error")
    say(f"adapter: {out} ({size(made.bytes)}, of {len(adapters)}; {100 * error:.2f}% of the deltas left out)")


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(
            f"weights {text!r}", "give numbers with commas between, for example 0.5,0.5"
        ) from None


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
