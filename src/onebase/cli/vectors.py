"""Commands that embed texts, and search texts by their embeddings."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onebase.cli.app import (
    AdapterDir,
    Column,
    Device,
    DType,
    Ref,
    app,
    check_paths,
    echo,
    example,
    load_base,
    named_columns,
    refuse_blank,
)
from onebase.cli.lines import json_line, one_line, stdin_lines
from onebase.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt")
"""Suffixes of text files: rows with a column `text`, or in .txt one text per line."""
OUTS = (".npy", ".jsonl", ".parquet")


@app.command(
    epilog=example(
        'onebase embed bases/minilm "Where is my parcel?"',
        "onebase embed bases/minilm faq.jsonl --column text=question --out vectors.parquet",
    )
)
def embed(
    ref: Ref,
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXT|FILE|-...",
            help=f"Texts, files of them ({', '.join(ENDINGS)}), or - for the lines of standard input.",
        ),
    ],
    adapter: AdapterDir = None,
    column: Column = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Output file: .npy (float32 [N, D]), .jsonl or .parquet (rows with a column `vector`). Default: JSON lines to standard output.",
        ),
    ] = None,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Embed texts with the base, or with an adapter of task embed."""
    if out is not None and (out.exists() or out.suffix not in OUTS):
        what = "already exists" if out.exists() else "does not end in a known suffix"
        raise UserError(f"--out {out} {what}", f"give a new file that ends in {', '.join(OUTS)}")
    refuse_blank(texts)
    columns = named_columns(column or [])
    check_paths(ref, adapter, [t for t in texts if _is_file(t)])
    base = load_base(ref, adapter, device, dtype)
    rows = _rows(texts, columns)
    vectors_ND = base.embed([str(r["text"]) for r in rows])
    if out is None:
        for row, vector in zip(rows, vectors_ND.tolist(), strict=True):
            echo(json_line({**row, "vector": vector}))
        return
    _write(out, rows, vectors_ND)
    echo(f"vectors: {out} ({len(rows):,} texts, {vectors_ND.shape[1]} numbers each)")


@app.command(
    epilog=example(
        "onebase search bases/minilm --index runs/faq --add faq.jsonl --column text=question",
        'onebase search bases/minilm --index runs/faq "Where is my parcel?" -k 3',
    )
)
def search(
    ref: Ref,
    query: Annotated[
        str | None,
        typer.Argument(metavar="QUERY", help="Text to search for; - reads standard input, one per line."),
    ] = None,
    index: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the index: texts and their embeddings.")
    ] = None,
    add: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Add the texts of a file to the index, created if missing (repeatable; - is standard input).",
        ),
    ] = None,
    top: Annotated[int, typer.Option("-k", "--top", help="Maximum number of results.")] = 5,
    adapter: AdapterDir = None,
    column: Column = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per result.")] = False,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Find the texts nearest to a query, in an index of embeddings on disk."""
    if index is None:
        raise UserError("no index to search", "give --index DIR; --add FILE creates it")
    if query is None and not add:
        raise UserError("neither QUERY nor --add is given", "give QUERY, or --add FILE to add texts")
    if top < 1:
        raise UserError(f"-k is {top}", "give at least 1")
    files, columns = list(add or []), named_columns(column or [])
    for name in files:
        if name != "-" and not _is_file(name):
            raise UserError(
                f"--add {name}: not a file of texts", f"give a file that ends in {', '.join(ENDINGS)}"
            )
    check_paths(ref, adapter, [f for f in files if f != "-"])
    exists = index.exists()
    if exists or not files:
        from onebase.artifact.manifest import read_manifest

        read_manifest(index, "index")
    base = load_base(ref, adapter, device, dtype)
    texts = base.index(path=index if exists else None)
    if files:
        rows = _rows(files, columns)
        new = texts.add(rows, _print_progress if sys.stderr.isatty() else lambda done, of: None)
        texts.save(index, overwrite=exists)
        already = f", {len(rows) - new:,} were already in it" if new < len(rows) else ""
        echo(f"index: {index} ({len(texts):,} texts, {new:,} new{already})")
    for line in stdin_lines() if query == "-" else [query] if query is not None else []:
        for near in texts.search(line, top) if line.strip() else []:
            fields = {"text": near.text, "score": near.score, **({"row": near.row} if near.row else {})}
            if query == "-":
                fields = {"query": line, **fields}
            echo(json_line(fields) if json else f"{near.score:.3f}  {one_line(near.text)}")


def _is_file(text: str) -> bool:
    """Does it name a file of texts? A text may have such a suffix, but then it contains a space."""
    return (Path(text).suffix.lower() in ENDINGS and not any(c.isspace() for c in text)) or (
        len(text) < 256 and Path(text).is_file()
    )


def _rows(inputs: Sequence[str], columns: dict[str, str]) -> list[dict[str, Any]]:
    """Rows with a column `text`, from texts, files and standard input."""
    from onebase.data import read_rows
    from onebase.data.files import text_lines
    from onebase.data.lines import without_end

    out: list[dict[str, Any]] = []
    for one in inputs:
        if one == "-":
            out += [{"text": line} for line in stdin_lines() if line.strip()]
        elif not _is_file(one):
            out.append({"text": one})
        elif Path(one).suffix.lower() in (".txt", ""):
            out += [{"text": t} for line in text_lines(Path(one)) if (t := without_end(line)).strip()]
        else:
            out += read_rows(one, ("text",), columns=columns)
    if not out:
        raise UserError(
            "there are no texts", "give TEXT..., a file that is not empty, or lines on standard input"
        )
    return out


def _write(out: Path, rows: list[dict[str, Any]], vectors_ND: "Tensor") -> None:
    import io

    from onebase.artifact.disk import write_atomic

    into = io.BytesIO()
    if out.suffix == ".npy":
        import numpy as np

        np.lib.format.write_array(into, np.ascontiguousarray(vectors_ND.numpy()), allow_pickle=False)
    elif out.suffix == ".jsonl":
        for row, vector in zip(rows, vectors_ND.tolist(), strict=True):
            into.write((json_line({**row, "vector": vector}) + "\n").encode())
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        flat = pa.array(vectors_ND.contiguous().numpy().reshape(-1))
        vectors = pa.FixedSizeListArray.from_arrays(flat, vectors_ND.shape[1])
        names = dict.fromkeys(k for row in rows for k in row)
        try:
            columns = {name: pa.array([row.get(name) for row in rows]) for name in names}
        except pa.ArrowException as e:
            raise UserError(f"the rows cannot be written as Parquet: {e}", "write .jsonl or .npy") from None
        pq.write_table(pa.table({**columns, "vector": vectors}), into)
    write_atomic(out, into.getvalue())


def _print_progress(done: int, of: int) -> None:
    print(f"\r{done:,} of {of:,} texts embedded", end="\n" if done == of else "", file=sys.stderr, flush=True)
