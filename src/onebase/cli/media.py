"""The commands of media: caption, draw, speak."""

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

Steps = Annotated[int, typer.Option(help="Steps of the flow, from noise to the picture or sound.")]
Guidance = Annotated[float, typer.Option(help="How strictly the prompt is followed; 1: as the base is.")]
Seed = Annotated[int, typer.Option(help="The same seed makes the same.")]


@app.command(
    epilog=example(
        "onebase caption runs/native/base photo.png", "onebase caption runs/native/base *.png --json"
    )
)
def caption(
    ref: Ref,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Image files.")],
    prompt: Annotated[str, typer.Option(help="How the text begins.")] = "",
    max_tokens: Annotated[int, typer.Option(help="Most tokens of a text.")] = 128,
    json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
    adapter: AdapterDir = None,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Say what images show."""
    check_paths(ref, adapter, files)
    base = load_base(ref, adapter, device, dtype)
    for file, text in zip(files, base.caption(files, prompt=prompt, max_tokens=max_tokens), strict=True):
        if json:
            print_json({"file": str(file), "text": text})
        else:
            echo(f"{file}: {text}" if len(files) > 1 else text)


@app.command(
    epilog=example(
        'onebase draw runs/native/base "red heart" --n 4 --out pictures',
        'onebase draw runs/native/base "blue heart" --init heart.png --mask half.png',
    )
)
def draw(
    ref: Ref,
    prompt: Annotated[str, typer.Argument(help="What the picture shows.")],
    n: Annotated[int, typer.Option(help="Number of pictures.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for the PNG files.")] = Path("pictures"),
    steps: Steps = 25,
    guidance: Guidance = 2.0,
    seed: Seed = 0,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Size in pixels (default: the base chooses).")
    ] = None,
    init: Annotated[Path | None, typer.Option(help="Picture to start from.")] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Picture of the same size, white where --init is drawn anew.")
    ] = None,
    strength: Annotated[
        float, typer.Option(help="Share of --init that is drawn anew, without --mask.")
    ] = 0.7,
    solver: Annotated[str, typer.Option(help="euler, or heun (reads twice a step).")] = "euler",
    adapter: AdapterDir = None,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Draw pictures of a text, as PNG files."""
    check_paths(ref, adapter, [p for p in (init, mask) if p is not None])
    wanted = _size(size)
    base = load_base(ref, adapter, device, dtype)
    pictures = base.draw(
        prompt,
        n,
        steps=steps,
        guidance=guidance,
        seed=seed,
        size=wanted,
        init=init,
        mask=mask,
        strength=strength,
        solver=solver,  # type: ignore[arg-type]  # checked there
    )
    out.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(pictures):
        path = out / f"{seed + i:04d}.png"
        picture.save(path)
        echo(str(path))


@app.command(epilog=example('onebase speak runs/native/base "seven" --out seven.wav'))
def speak(
    ref: Ref,
    text: Annotated[str, typer.Argument(help="What is said.")],
    out: Annotated[Path, typer.Option(help="WAV file.")] = Path("speech.wav"),
    seconds: Annotated[float | None, typer.Option(help="Length (default: the base chooses).")] = None,
    steps: Steps = 25,
    guidance: Guidance = 2.0,
    seed: Seed = 0,
    adapter: AdapterDir = None,
    device: Device = "auto",
    dtype: DType = "fp32",
) -> None:
    """Speak a text, as a WAV file."""
    check_paths(ref, adapter, [])
    from onebase.engine.media_answers import to_wav

    base = load_base(ref, adapter, device, dtype)
    sound, rate = base.speak(text, seconds=seconds, steps=steps, guidance=guidance, seed=seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(to_wav(sound, rate))
    echo(f"{out}: {len(sound) / rate:.2f} seconds")


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(s.isascii() and s.isdigit() and 0 < int(s) < 100_000 for s in sides):
        raise UserError(f"size is {text!r}", "give width and height in pixels, such as 32x32")
    return int(sides[0]), int(sides[1])
