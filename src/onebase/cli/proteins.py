"""The command of proteins: contacts."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onebase.cli.app import AdapterDir, Device, DType, Ref, app, check_paths, echo, example, load_base
from onebase.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

FASTA = (".fasta", ".fa", ".faa")
OUTS = (".png", ".csv")
APART = 6
"""Residues between two that are printed: nearer ones are in contact by the chain itself."""


@app.command(
    epilog=example(
        "onebase contacts bases/esm2 MKTAYIAKQRQISFVKSHFSRQ --out contacts.png",
        "onebase contacts bases/esm2 protein.fasta --out contacts.csv",
    )
)
def contacts(
    ref: Ref,
    sequence: Annotated[
        str,
        typer.Argument(
            metavar="SEQUENCE|FILE", help=f"Residues, or a file ({', '.join(FASTA)}) with one protein."
        ),
    ],
    adapter: AdapterDir = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Output file: .png (the map; dark is likely) or .csv (a row per pair of residues).",
        ),
    ] = None,
    top: Annotated[
        int, typer.Option(help="Most pairs to print: the likeliest that are 6 residues or more apart.")
    ] = 10,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Predict which residues of a protein touch."""
    if out is not None and (out.exists() or out.suffix not in OUTS):
        what = "already exists" if out.exists() else "does not end in a known suffix"
        raise UserError(f"--out {out} {what}", f"give a new file that ends in {', '.join(OUTS)}")
    file = Path(sequence) if sequence.endswith(FASTA) else None
    check_paths(ref, adapter, [file] if file else [])
    residues = sequence if file is None else _only(file)
    map_LL = load_base(ref, adapter, device, dtype).contacts(residues)
    if out is not None:
        _write(out, residues, map_LL)
        echo(f"{out}: {len(residues)} residues")
        return
    for i, j, p in _pairs(map_LL, APART)[: max(0, top)]:
        echo(f"{residues[i]}{i + 1}\t{residues[j]}{j + 1}\t{p:.3f}")


def _only(file: Path) -> str:
    from onebase.data import read_source
    from onebase.data.sources import SourceConfig

    found = list(read_source(SourceConfig(name="protein", kind="fasta", path=str(file))))
    if len(found) != 1:
        raise UserError(
            f"{file} has {len(found)} proteins", "give a file with one, or the residues themselves"
        )
    return found[0].text


def _pairs(map_LL: "Tensor", apart: int) -> list[tuple[int, int, float]]:
    """Pairs of residues (from 0) with their probabilities, the likeliest first."""
    rows = map_LL.tolist()
    found = [(i, j, rows[i][j]) for i in range(len(rows)) for j in range(i + apart, len(rows))]
    return sorted(found, key=lambda pair: -pair[2])


def _write(out: Path, residues: str, map_LL: "Tensor") -> None:
    if out.suffix == ".png":
        try:
            from PIL import Image
        except ImportError:
            raise UserError(
                "writing a picture needs Pillow", "pip install 'onebase[vision]', or write .csv"
            ) from None
        scale = max(1, 512 // len(residues))
        grey = ((1 - map_LL) * 255).round().byte().numpy()
        Image.fromarray(grey).resize((scale * len(residues),) * 2, Image.Resampling.NEAREST).save(out)
        return
    with out.open("w", encoding="utf-8", newline="") as f:
        lines = csv.writer(f)
        lines.writerow(["i", "j", "residue_i", "residue_j", "probability"])
        for i, j, p in sorted(_pairs(map_LL, 1)):
            lines.writerow([i + 1, j + 1, residues[i], residues[j], f"{p:.6f}"])
