"""The command segment: the mask of an object in a picture, from points and a box."""

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
)
from onebase.errors import UserError


@app.command(
    epilog=example(
        "onebase segment runs/sam picture.png --point 120,80 --out mask.png",
        "onebase segment bases/dinov2 picture.png --adapter runs/cells --box 40,30,200,160 --out mask.png",
    )
)
def segment(
    ref: Ref,
    picture: Annotated[
        Path, typer.Argument(metavar="FILE", help="Image file: PNG, JPEG, WebP, GIF, BMP, TIFF.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE.png", help="Output file for the mask: white is the object.")
    ],
    point: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y",
            help="Pixel on the object, from the upper left; X,Y,0: one beside it. Repeat for more.",
        ),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(metavar="X0,Y0,X1,Y1", help="Box around the object; X1 and Y1 behind its last pixel."),
    ] = None,
    adapter: AdapterDir = None,
    json: Json = False,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Write the mask of one object in a picture, from points on it or a box around it."""
    points = [_numbers(p, "--point", (2, 3)) for p in point or []] or None
    corners = None if box is None else [_numbers(box, "--box", (4,))]
    if points is None and corners is None:
        raise UserError(
            "neither a point nor a box is given", "give --point X,Y or --box X0,Y0,X1,Y1, or both"
        )
    if out.exists() or out.suffix != ".png":
        raise UserError(
            f"--out {out} exists, or does not end in .png", "give a new file, for example mask.png"
        )
    check_paths(ref, adapter, [picture])
    from onebase.artifact.disk import write_atomic
    from onebase.engine.segmenting import png

    base = load_base(ref, adapter, device, dtype)
    found = base.segment(picture, points=points, boxes=corners)
    mask, score = found.masks[0], float(found.scores[0])
    write_atomic(out, png(mask))
    share = float(mask.mean())
    if json:
        print_json({"mask": str(out), "score": score, "share": share})
        return
    echo(f"mask: {out} ({share:.1%} of the picture, predicted IoU {score:.2f})")


def _numbers(given: str, option: str, counts: tuple[int, ...]) -> tuple[float, ...]:
    parts = given.split(",")
    try:
        numbers = tuple(map(float, parts))
    except ValueError:
        numbers = ()
    if len(numbers) not in counts:
        wanted = (
            "four numbers, X0,Y0,X1,Y1"
            if option == "--box"
            else "X,Y, or X,Y,0 for a point beside the object"
        )
        raise UserError(f"{option} {given}", f"give {wanted}, in pixels")
    return numbers
