"""Commands that convert a base: import, export, merge and quantize."""

from pathlib import Path
from typing import Annotated

import typer

from onebase.cli.app import (
    AdapterDir,
    Out,
    Ref,
    app,
    check_paths,
    echo,
    example,
    load_base,
    pairs_option,
    refuse_existing,
)


@app.command(
    "import",
    epilog=example(
        "onebase import models/SmolLM2-135M-Instruct --out bases/smollm2",
        "onebase import models/mine --licence MIT --source https://example.org/mine --out bases/mine",
        "onebase import models/peft-adapter --base bases/smollm2 --out runs/adapter",
    ),
)
def import_(
    src: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="Open model: a folder (Hugging Face, CTranslate2), a .gguf file or hf:org/name. With --base: a PEFT adapter.",
        ),
    ],
    out: Out,
    base: Annotated[
        str | None,
        typer.Option(metavar="REF", help="Base of the PEFT adapter SRC."),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--licence",
            "--license",
            metavar="TEXT",
            help="Licence of SRC, if it does not state one: MIT, apache-2.0 ...",
        ),
    ] = None,
    source: Annotated[str | None, typer.Option(metavar="TEXT", help="Origin of SRC, for the record.")] = None,
) -> None:
    """Convert an open model to a base folder, with its origin in the record. (Other commands also open SRC directly.)"""
    from onebase.opening.find import find_artifact

    refuse_existing(out)
    check_paths(base)
    if not src.startswith("hf:"):
        find_artifact(src)
    import onebase

    if base is not None:
        from onebase.artifact.record import state
        from onebase.opening.names import read_adapter

        loaded = onebase.load(base).loaded
        parts = read_adapter(loaded, find_artifact(src))
        for field, value in (("licence", licence), ("source", source)):
            state(parts.record, field, value, echo)
        onebase.Adapter(parts).save(out)
        echo(f"adapter: {out} (for {loaded.fingerprint[:16]}...)")
        return
    imported = onebase.import_base(src, out, licence=licence, source=source, log=echo)
    echo(f"base: {out} ({imported.fingerprint[:16]}...)")
    if imported.head is not None:
        labels = imported.head.parts.config.head.labels if imported.head.parts.config.head else ()
        names = f": {', '.join(labels[:8])}{', ...' if len(labels) > 8 else ''}" if labels else ""
        echo(f"head: {imported.head.task}{names} (onebase apply {out}, onebase eval {out})")


@app.command(epilog=example("onebase export runs/demo/pretrain --format hf --out exported"))
def export(
    ref: Ref,
    out: Out,
    format: Annotated[str, typer.Option(help="Output format: hf, or another one of docs/bases.md.")] = "hf",
    adapter: AdapterDir = None,
    option: Annotated[list[str] | None, pairs_option("Option of the format, as YAML (repeatable).")] = None,
) -> None:
    """Convert a base to a format of other programs; with --adapter its weights are merged in."""
    from onebase.config import parse_pairs

    refuse_existing(out)
    options = parse_pairs(option or [])
    check_paths(ref, adapter)
    from onebase.derive.exporting import export as write

    write(load_base(ref, adapter, "cpu", "fp32"), out, format, options)
    echo(f"{format}: {out}")


@app.command(epilog=example("onebase merge runs/demo/pretrain runs/chat --out bases/merged"))
def merge(
    ref: Ref,
    adapter: Annotated[
        str,
        typer.Argument(
            metavar="ADAPTER",
            help="LoRA or full adapter: a folder (onebase or PEFT), a name in the store, or hf:org/name.",
        ),
    ],
    out: Out,
    max_drift: Annotated[
        float | None,
        typer.Option(
            help="Maximum loss from rounding on a quantized base, in nats per token (docs/adaptation.md)."
        ),
    ] = None,
    fp32: Annotated[
        bool,
        typer.Option(
            "--fp32", help="Store the merged weights in fp32, so that no adapter delta is lost to rounding."
        ),
    ] = False,
) -> None:
    """Merge an adapter into its base, as a new base."""
    refuse_existing(out)
    base = load_base(ref, adapter, "cpu", "fp32").merged(max_drift=max_drift, fp32=fp32)
    base.save(out)
    echo(f"base: {out} ({base.fingerprint[:16]}...)")
    if (drift := base.record.get("merged.drift")) is not None:
        effect = base.record.get("merged.effect")
        echo(f"rounding: {drift:.4f} nats per token; the adapter's effect is {effect:.4f}")
    if (lost := base.record.get("merged.lost")) is not None:
        echo(f"rounding: {lost:.2%} of the adapter's weight deltas are lost (--fp32 keeps all)")


@app.command(
    epilog=example(
        "onebase quantize bases/smollm2 --bits 4 --out bases/smollm2-4bit",
        "onebase quantize bases/mine --bits 8 --data held-out.txt --out bases/mine-8bit",
    )
)
def quantize(
    ref: Ref,
    out: Out,
    bits: Annotated[int, typer.Option(help="Bits per weight: 8 or 4.")],
    group: Annotated[
        int | None, typer.Option(help="Group size: inputs per scale (4 bits; default 32).")
    ] = None,
    head: Annotated[
        int | None,
        typer.Option(help="Bits of the output head: 8 (default), 4, or 0 for no quantization."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Text file to measure perplexity on (default: the Python language reference)."),
    ] = None,
) -> None:
    """Quantize a base to 8 or 4 bits; its record contains the change in perplexity."""
    refuse_existing(out)
    check_paths(ref, None, [data])
    from onebase.derive.quantising import StorageOptions

    options: StorageOptions = {} if group is None else {"group": group}
    if head is not None:
        options["head"] = head or None
    small = load_base(ref, None, "cpu", "fp32").quantize(bits, data=data, **options)
    small.save(out)
    echo(f"base: {out} ({small.fingerprint[:16]}...)")
    echo(str(small.record.get("quantised.line")))
