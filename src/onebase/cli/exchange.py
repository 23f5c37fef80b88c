"""Commands that turn a base into another form."""

from pathlib import Path
from typing import Annotated

import typer

from onebase.cli.app import AdapterDir, Out, Ref, app, check_paths, example, load_base, refuse_existing, say


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
            help="An open model: a folder (Hugging Face, CTranslate2), a .gguf file or hf:org/name. With --base an adapter of PEFT, likewise.",
        ),
    ],
    out: Out,
    base: Annotated[
        str | None,
        typer.Option(metavar="REF", help="The base of an adapter of PEFT, as other commands take it."),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--licence",
            "--license",
            metavar="TEXT",
            help="Its licence, where SRC does not say it: MIT, apache-2.0 ...",
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Where it is from, for the record.")
    ] = None,
) -> None:
    """Take an open model into a base folder, its record saying where from. (Other commands also take SRC as it is.)"""
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
            state(parts.record, field, value, say)
        onebase.Adapter(parts).save(out)
        say(f"adapter: {out} (for {loaded.fingerprint[:16]}...)")
        return
    found = onebase.import_base(src, out, licence=licence, source=source, log=say)
    say(f"base: {out} ({found.fingerprint[:16]}...)")
    if found.head is not None:
        labels = found.head.parts.config.head.labels if found.head.parts.config.head else ()
        said = f": {', '.join(labels[:8])}{', ...' if len(labels) > 8 else ''}" if labels else ""
        say(f"head: {found.head.task}{said} (onebase apply {out}, onebase eval {out})")


@app.command(epilog=example("onebase export runs/demo/pretrain --format hf --out exported"))
def export(
    ref: Ref,
    out: Out,
    format: Annotated[str, typer.Option(help="hf, or another format of docs/bases.md.")] = "hf",
    adapter: AdapterDir = None,
    option: Annotated[
        list[str] | None,
        typer.Option("-o", "--option", metavar="KEY=VALUE", help="An option of the format, as YAML."),
    ] = None,
) -> None:
    """Write a base for other programs; with --adapter its weights are merged in."""
    from onebase.config import parse_pairs

    refuse_existing(out)
    options = parse_pairs(option or [])
    check_paths(ref, adapter)
    from onebase.derive.exporting import export as write

    write(load_base(ref, adapter, "cpu", "fp32"), out, format, options)
    say(f"{format}: {out}")


@app.command(epilog=example("onebase merge runs/demo/pretrain runs/chat --out bases/merged"))
def merge(
    ref: Ref,
    adapter: Annotated[
        str,
        typer.Argument(
            metavar="ADAPTER",
            help="Its adapter, lora or full: a folder (ours, or PEFT's), a name in the store, or hf:org/name.",
        ),
    ],
    out: Out,
    max_drift: Annotated[
        float | None,
        typer.Option(help="Nats a token that rounding may cost on a base in few bits (docs/adaptation.md)."),
    ] = None,
    fp32: Annotated[
        bool,
        typer.Option(
            "--fp32", help="Store the merged weights in fp32: nothing of the adapter is rounded away."
        ),
    ] = False,
) -> None:
    """Make a base of its own from a base and an adapter."""
    refuse_existing(out)
    base = load_base(ref, adapter, "cpu", "fp32").merged(max_drift=max_drift, fp32=fp32)
    base.save(out)
    say(f"base: {out} ({base.fingerprint[:16]}...)")
    if (drift := base.record.get("merged.drift")) is not None:
        effect = base.record.get("merged.effect")
        say(f"rounding: {drift:.4f} nats a token, where the adapter changes {effect:.4f}")
    if (lost := base.record.get("merged.lost")) is not None:
        say(f"rounding: {lost:.2%} of the adapter's change of weights (--fp32 keeps all)")


@app.command(
    epilog=example(
        "onebase quantize bases/smollm2 --bits 4 --out bases/smollm2-4bit",
        "onebase quantize bases/mine --bits 8 --data held-out.txt --out bases/mine-8bit",
    )
)
def quantize(
    ref: Ref,
    out: Out,
    bits: Annotated[int, typer.Option(help="8 or 4.")],
    group: Annotated[int | None, typer.Option(help="Inputs that share a scale (4 bits; default 32).")] = None,
    head: Annotated[
        int | None,
        typer.Option(help="Bits of the matrix that makes logits: 8 (default), 4, or 0 to leave it as it is."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="A text file that the cost is measured on (default: Python's own reference)."),
    ] = None,
) -> None:
    """Make a smaller base; its record says what that cost in perplexity."""
    refuse_existing(out)
    check_paths(ref, None, [data])
    from onebase.derive.quantising import StorageOptions

    given: StorageOptions = {} if group is None else {"group": group}
    if head is not None:
        given["head"] = head or None
    small = load_base(ref, None, "cpu", "fp32").quantize(bits, data=data, **given)
    small.save(out)
    say(f"base: {out} ({small.fingerprint[:16]}...)")
    say(str(small.record.get("quantised.line")))
