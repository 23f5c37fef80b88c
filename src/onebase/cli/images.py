"""The command for pictures: their classes, the ones that a text describes, their nearest ones, or their vectors."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    say,
)
from onebase.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from onebase import Base


@app.command(
    epilog=example(
        "onebase images bases/vit photos/a.png photos/b.png",
        'onebase images bases/clip photos/*.jpg --query "a red house by the sea"',
        "onebase images bases/dinov2 photos/*.jpg --out vectors.npy",
    )
)
def images(
    ref: Ref,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Pictures: PNG, JPEG, WebP, GIF, BMP, TIFF.")
    ],
    adapter: AdapterDir = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="A class to choose from, for a base of images and text; give two or more."),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(help="The text of a --label, {label} in its place (default: a photo of a {label})."),
    ] = None,
    query: Annotated[
        str | None, typer.Option(help="List the pictures that this text describes best first.")
    ] = None,
    top: Annotated[int, typer.Option(help="How many classes of each picture.")] = 3,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npy", help="Write the vectors, float32 [N, D], and nothing else."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Say what is on pictures, by the base's classes or an adapter's; without classes, which of the others is nearest to each."""
    if sum(x is not None for x in (label, query, out)) > 1:
        raise UserError("--label, --query and --out ask for different things", "give one of them")
    if template is not None and not label:
        raise UserError(
            "--template is the text of labels, and none is given", "give --label NAME, twice or more"
        )
    if out is not None and (out.exists() or out.suffix != ".npy"):
        raise UserError(
            f"--out {out} exists, or does not end in .npy", "give a new file, for example vectors.npy"
        )
    check_paths(ref, adapter, files)
    from onebase.engine.image_features import classifies_images

    base = load_base(ref, adapter, device, dtype)
    _ = base.config.image  # says it where the base sees no images, before anything else is found wanting
    if out is not None:
        _save(out, base.embed_images(files))
        say(f"vectors: {out} ({len(files)} pictures)")
    elif query is not None:
        _find(base, query, files, json)
    elif label or classifies_images(base.loaded, base.attached.config if base.attached else None):
        _classes(base, files, label, template, top, json)
    else:
        _nearest(base, files, json)


def _classes(
    base: "Base", files: list[Path], labels: list[str] | None, template: str | None, top: int, json: bool
) -> None:
    found = base.classify_images(files, labels, **({} if template is None else {"template": template}))
    if json:
        print_json({str(f): x.scores for f, x in zip(files, found, strict=True)})
        return
    for file, label in zip(files, found, strict=True):
        best = sorted(label.scores.items(), key=lambda x: -x[1])[: max(1, top)]
        say(f"{file}: " + ", ".join(f"{name} {chance:.3f}" for name, chance in best))


def _find(base: "Base", query: str, files: list[Path], json: bool) -> None:
    found = base.search(query, files)
    if json:
        print_json({str(x.path): x.score for x in found})
        return
    for x in found:
        say(f"{x.path}: cosine {x.score:.3f}")


def _nearest(base: "Base", files: list[Path], json: bool) -> None:
    from onebase.engine.image_features import nearest

    if len(files) < 2:
        raise UserError(
            "this base has no classes of images, and one picture has no nearest other",
            "give two files or more, --out FILE.npy for vectors, or --adapter REF of one that classifies",
        )
    at, cosine = nearest(base.embed_images(files))
    pairs = [(f, files[i], c) for f, i, c in zip(files, at.tolist(), cosine.tolist(), strict=True)]
    if json:
        print_json({str(f): {"nearest": str(other), "cosine": c} for f, other, c in pairs})
        return
    for file, other, c in pairs:
        say(f"{file}: nearest {other} (cosine {c:.3f})")


def _save(out: Path, vectors_ND: "Tensor") -> None:
    from onebase.artifact.disk import write_atomic
    from onebase.artifact.raw import array_bytes

    write_atomic(out, b"".join(array_bytes(vectors_ND.numpy())))
