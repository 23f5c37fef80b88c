"""The command transcribe: speech to text."""

from pathlib import Path
from typing import Annotated

import typer

from onebase.cli.app import (
    AdapterDir,
    Device,
    DType,
    Ref,
    app,
    check_paths,
    echo,
    example,
    load_base,
    print_json,
)
from onebase.errors import UserError

FORMATS, TIMED = ("text", "json", "srt", "vtt"), ("srt", "vtt")
"""The formats of `engine.transcribing`, repeated here so that the help does not import it."""


@app.command(
    epilog=example(
        "onebase transcribe bases/whisper-base interview.wav",
        "onebase transcribe bases/whisper-base talk.mp3 --language de --task translate --format srt",
    )
)
def transcribe(
    ref: Ref,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="WAV; also FLAC, OGG and MP3 with the extra `audio`."),
    ],
    language: Annotated[
        str | None, typer.Option(help="Language code: en, de, ... (default: detected).")
    ] = None,
    task: Annotated[str | None, typer.Option(help="transcribe, or translate (into English).")] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Print the time of each segment.")] = False,
    format: Annotated[str, typer.Option(help="Output format: text, json, srt or vtt.")] = "text",
    adapter: AdapterDir = None,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Transcribe speech to text."""
    if format not in FORMATS:
        raise UserError(f"format {format!r} is not known", f"formats: {', '.join(FORMATS)}")
    if format in TIMED and len(files) > 1:
        raise UserError(f"{len(files)} files for --format {format}", "give one file, or --format json")
    check_paths(ref, adapter, files)
    from onebase.engine.transcribing import as_tree, write

    base = load_base(ref, adapter, device, dtype)
    trees = []
    for file in files:
        result = base.transcribe(file, language=language, task=task, timestamps=timestamps or format in TIMED)
        if format == "json":
            trees.append({"file": str(file)} | as_tree(result))
            continue
        text = write(result, format, timestamps=timestamps)
        echo(text if len(files) == 1 else f"{file}: {text}")
    if format == "json":
        print_json(trees[0] if len(files) == 1 else trees)
