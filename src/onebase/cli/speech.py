"""The command that writes down what it hears."""

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
    example,
    load_base,
    print_json,
    say,
)
from onebase.errors import UserError

FORMATS, TIMED = ("text", "json", "srt", "vtt"), ("srt", "vtt")
"""Those of `engine.transcribing`, known without importing it."""


@app.command(
    epilog=example(
        "onebase transcribe bases/whisper-base interview.wav",
        "onebase transcribe bases/whisper-base talk.mp3 --language de --task translate --format srt",
    )
)
def transcribe(
    ref: Ref,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="WAV; FLAC, OGG, MP3 with the extra audio.")
    ],
    language: Annotated[
        str | None, typer.Option(help="A code (en, de, ...); without it the language is detected.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="transcribe, or translate into English.")] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Say when each piece was said.")] = False,
    format: Annotated[str, typer.Option(help="text, json, srt or vtt.")] = "text",
    adapter: AdapterDir = None,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Write down speech."""
    if format not in FORMATS:
        raise UserError(f"format {format!r} is not known", f"formats: {', '.join(FORMATS)}")
    if format in TIMED and len(files) > 1:
        raise UserError(f"{len(files)} files in one {format}", "give one file, or --format json")
    check_paths(ref, adapter, files)
    from onebase.engine.transcribing import as_tree, write

    base = load_base(ref, adapter, device, dtype)
    found = []
    for file in files:
        said = base.transcribe(file, language=language, task=task, timestamps=timestamps or format in TIMED)
        if format == "json":
            found.append({"file": str(file)} | as_tree(said))
            continue
        text = write(said, format, timestamps=timestamps)
        say(text if len(files) == 1 else f"{file}: {text}")
    if format == "json":
        print_json(found[0] if len(files) == 1 else found)
