"""The command that asks an adapter about texts: a class, labels, a number, or spans of each."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onebase.cli.app import Device, DType, Ref, app, example, load_base, say
from onebase.errors import UserError

if TYPE_CHECKING:
    from onebase import Base


@app.command(
    epilog=example(
        'onebase apply runs/demo/pretrain --adapter runs/opinions "What a fine day."',
        "onebase apply runs/demo/pretrain --adapter runs/opinions --data examples/opinions/test.jsonl --json",
    )
)
def apply(
    ref: Ref,
    adapter: Annotated[
        str, typer.Option(metavar="REF", help="The adapter to ask: a folder or a store name.")
    ],
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT...", help="Texts; - reads one a line.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows with a column `text`, in their place.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Say what an adapter makes of texts: the class or labels (classify), a number (regress), or spans (tag)."""
    from json import dumps

    from onebase.data import read_rows

    if bool(texts) == (data is not None):
        raise UserError("no texts, or texts from two places", "give TEXT..., or --data FILE")
    given = [str(r["text"]) for r in read_rows(data, ("text",))] if data else list(texts or [])
    if given == ["-"]:
        given = [line for line in sys.stdin.read().splitlines() if line.strip()]
    base = load_base(ref, adapter, device, dtype)
    for text, said, fields in zip(given, *_asked(base, given), strict=True):
        say(dumps({"text": text, **fields}, ensure_ascii=False) if json else said)


def _asked(base: "Base", texts: list[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """What is said of each text, as a line and as fields."""
    on = base.attached
    assert on is not None
    if on.task == "regress":
        numbers = base.predict(texts)
        return [f"{x:.6g}" for x in numbers], [{"value": x} for x in numbers]
    if on.task == "tag":
        found = base.tag(texts)
        lines = [
            "; ".join(f"{s.start}-{s.end} {s.label}: {t[s.start : s.end]}" for s in spans) or "-"
            for t, spans in zip(texts, found, strict=True)
        ]
        return lines, [{"spans": [vars(s) for s in spans]} for spans in found]
    if on.task == "classify":
        labels = base.classify(texts)
        many = on.config.head is not None and on.config.head.gives == "many"
        return (
            ["; ".join(f"{x} ({f.scores[x]:.3f})" for x in f.labels) or "-" for f in labels],
            [
                {"labels" if many else "label": f.labels if many else f.label, "scores": f.scores}
                for f in labels
            ],
        )
    raise UserError(
        f"this adapter is for task {on.task}", "apply asks adapters of classify, regress and tag about texts"
    )
