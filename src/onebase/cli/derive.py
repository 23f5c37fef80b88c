"""Commands that combine adapters, and that create a student base for distillation."""

from typing import Annotated

import typer

from onebase.cli.app import Out, Ref, app, check_paths, echo, example, refuse_existing
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
        str | None,
        typer.Option(help="One weight per adapter, separated by commas (default: equal, summing to 1)."),
    ] = None,
    how: Annotated[str | None, typer.Option(help="Strategy: linear (exact, the default) or ties.")] = None,
    density: Annotated[
        float | None, typer.Option(help="With ties: the share of each delta that is kept (default 0.2).")
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="Rank of the result (default: the sum of the adapters').")
    ] = None,
) -> None:
    """Combine several LoRA adapters of one base into one, for the task of the first."""
    refuse_existing(out)
    shares = None if weights is None else _numbers(weights)
    check_paths(None, adapters)
    import onebase

    combined = onebase.combine(
        adapters,
        shares,
        how=how,  # type: ignore[arg-type]  # checked there, with the accepted words
        density=density,
        rank=rank,
    )
    combined.save(out)
    error = combined.record.get("combined.error")
    echo(
        f"adapter: {out} ({size(combined.bytes)}, of {len(adapters)}; {100 * error:.2f}% of the deltas left out)"
    )


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(
            f"--weights {text!r} are not numbers", "give numbers separated by commas, for example 0.5,0.5"
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
    layers: Annotated[int, typer.Option(help="Number of layers to keep, spread evenly.")],
    tokens: Annotated[
        int | None, typer.Option(help="Maximum vocabulary to keep, in tokens (WordPiece only).")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Texts whose most frequent tokens are kept, with --tokens."),
    ] = None,
) -> None:
    """Create a smaller base from some layers of a base, for `adapt --task distil`."""
    refuse_existing(out)
    check_paths(ref, None, [data])
    import onebase

    small = onebase.load(ref).student(layers, tokens=tokens, data=data)
    small.save(out)
    now, before = (small.record.get(f"student.parameters{x}") for x in ("", "_before"))
    echo(f"base: {out} ({small.fingerprint[:16]}..., {now:,} of {before:,} parameters)")
