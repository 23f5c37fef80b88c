"""The command images: classify images, search them by text, find nearest neighbours, or write embeddings."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
        list[Path], typer.Argument(metavar="FILE...", help="Image files: PNG, JPEG, WebP, GIF, BMP, TIFF.")
    ],
    adapter: AdapterDir = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Class to choose from, for an image-text base; give two or more."),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(help="Text for each --label; {label} is replaced (default: a photo of a {label})."),
    ] = None,
    query: Annotated[
        str | None, typer.Option(help="Rank the images by their similarity to this text.")
    ] = None,
    top: Annotated[int, typer.Option(help="Number of classes to print per image.")] = 3,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npy", help="Output file for the embeddings, float32 [N, D]."),
    ] = None,
    json: Json = False,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Classify images with the base's classes or an adapter's; without classes, find the nearest neighbour of each."""
    if sum(x is not None for x in (label, query, out)) > 1:
        raise UserError("--label, --query and --out do not go together", "give one of them")
    if template is not None and not label:
        raise UserError("--template needs labels", "give --label NAME, twice or more")
    if out is not None and (out.exists() or out.suffix != ".npy"):
        raise UserError(
            f"--out {out} exists, or does not end in .npy", "give a new file, for example vectors.npy"
        )
    check_paths(ref, adapter, files)
    from onebase.engine.image_features import classifies_images

    base = load_base(ref, adapter, device, dtype)
    _ = base.config.image  # raises first if the base has no image codec
    if out is not None:
        _save(out, base.embed_images(files))
        echo(f"vectors: {out} ({len(files)} images)")
    elif query is not None:
        _find(base, query, files, json)
    elif label or classifies_images(base.loaded, base.attached.config if base.attached else None):
        _classes(base, files, label, template, top, json)
    else:
        _nearest(base, files, json)


def _classes(
    base: "Base", files: list[Path], labels: list[str] | None, template: str | None, top: int, json: bool
) -> None:
    results = base.classify_images(files, labels, **({} if template is None else {"template": template}))
    if json:
        print_json({str(f): x.scores for f, x in zip(files, results, strict=True)})
        return
    for file, label in zip(files, results, strict=True):
        best = sorted(label.scores.items(), key=lambda x: -x[1])[: max(1, top)]
        echo(f"{file}: " + ", ".join(f"{name} {probability:.3f}" for name, probability in best))


def _find(base: "Base", query: str, files: list[Path], json: bool) -> None:
    results = base.search(query, files)
    if json:
        print_json({str(x.path): x.score for x in results})
        return
    for x in results:
        echo(f"{x.path}: cosine {x.score:.3f}")


def _nearest(base: "Base", files: list[Path], json: bool) -> None:
    from onebase.engine.image_features import nearest

    if len(files) < 2:
        raise UserError(
            "the base has no image classes, and one image has no nearest neighbour",
            "give two files or more, --out FILE.npy for vectors, or --adapter REF of one that classifies",
        )
    at, cosine = nearest(base.embed_images(files))
    pairs = [(f, files[i], c) for f, i, c in zip(files, at.tolist(), cosine.tolist(), strict=True)]
    if json:
        print_json({str(f): {"nearest": str(other), "cosine": c} for f, other, c in pairs})
        return
    for file, other, c in pairs:
        echo(f"{file}: nearest {other} (cosine {c:.3f})")


def _save(out: Path, vectors_ND: "Tensor") -> None:
    from onebase.artifact.disk import write_atomic
    from onebase.artifact.raw import array_bytes

    write_atomic(out, b"".join(array_bytes(vectors_ND.numpy())))
