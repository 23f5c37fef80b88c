"""Bad images and sounds in rows to adapt and to evaluate, and behind the commands: one error names each file and its row, odd ones are read."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import onebase
from onebase.api.base import Base
from onebase.data import BadRows
from onebase.errors import UserError
from onebase.evaluation.scores import Score
from tests import bad_media
from tests.formats.speech import speech_folder
from tests.native import native
from tests.native import saved as saved_native
from tests.pictures import cutting, sighted
from tests.pretrained import onebase as command

PICTURES = [n for n in bad_media.IMAGES if n != "line.png"]
"""An encoder of squares reads a line, too."""


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of all kinds, a mask, and rows for each task: row i of the bad ones is file i."""
    root = tmp_path_factory.mktemp("bad")
    bad_media.made(root, *bad_media.ALL)
    Image.new("L", (32, 24), 255).save(root / "mask.png")
    return root


@pytest.fixture(scope="module")
def whisper(room: Path) -> Base:
    speech_folder(room / "source", max_source_positions=50)
    onebase.import_base(room / "source", room / "whisper")
    return onebase.load(room / "whisper")


def rows_of(room: Path, names: list[str], column: str, **more: Any) -> Path:
    """Rows of these files in a file of their own."""
    path = room / f"rows-{len(list(room.glob('rows-*')))}.jsonl"
    path.write_text("".join(json.dumps({column: n} | more) + "\n" for n in names))
    return path


def check_named(error: BadRows, rows: Path, names: list[str]) -> None:
    assert f"{len(names)} of {error.total} rows cannot be used" in error.cause
    lines = error.cause.splitlines()[1:]
    for number, (name, line) in enumerate(zip(names, lines, strict=True), 1):
        assert f"{rows.name}:{number}" in line and name in line, line


HOW: dict[str, dict[str, Any]] = {
    "classify": {"method": "head"},
    "segment": {"method": "full", "epochs": 1},
    "caption": {"method": "full", "epochs": 1},
}


@pytest.mark.parametrize(
    ("task", "more"),
    [
        ("classify", {"label": "a"}),
        ("segment", {"mask": "mask.png", "points": [[3, 3]]}),
        ("caption", {"text": "a"}),
    ],
)
def test_rows_of_pictures(task: str, more: dict[str, Any], room: Path, tmp_path: Path) -> None:
    base = native() if task == "caption" else onebase.load(sighted(tmp_path / "base"))
    bad = list(bad_media.IMAGES) if task == "caption" else PICTURES
    wide = [n for n in bad_media.ODD_IMAGES if task != "segment" or n in ("jpeg.png", "cmyk.jpg", "deep.png")]
    rows = rows_of(room, [*bad, *wide], "image", **more)
    if task == "classify":
        rows.write_text(rows.read_text().replace('"a"', '"b"', 2))
    with pytest.raises(BadRows) as e:
        base.adapt(rows, task=task, **HOW[task])
    check_named(e.value, rows, bad)
    good = rows_of(room, wide, "image", **more)
    if task == "classify":  # two labels
        good.write_text(good.read_text().replace('"a"', '"b"', 2))
    adapter = base.adapt(good, task=task, **HOW[task])
    on = base.with_adapter(adapter)
    scored = onebase.evaluate(on, good, task=task, **({"max_tokens": 2} if task == "caption" else {}))
    assert all(isinstance(s, Score) for s in scored.values())
    with pytest.raises(BadRows) as e:
        onebase.evaluate(on, rows, task=task)
    check_named(e.value, rows, bad)


def test_rows_of_sounds(room: Path, whisper: Base) -> None:
    bad = list(bad_media.SOUNDS)
    rows = rows_of(room, [*bad, *bad_media.ODD_SOUNDS], "audio", text="the fox")
    how: dict[str, Any] = {"task": "transcribe", "method": "lora", "language": "en", "epochs": 1}
    with pytest.raises(BadRows) as e:
        whisper.adapt(rows, **how)
    check_named(e.value, rows, bad)
    good = rows_of(room, list(bad_media.ODD_SOUNDS), "audio", text="the fox", language="en")
    assert whisper.adapt(good, **how).record.get("tokens.read")
    rows.write_text(rows.read_text().replace("}", ', "language": "en"}'))
    with pytest.raises(BadRows) as e:
        onebase.evaluate(whisper, rows, task="transcribe")
    check_named(e.value, rows, bad)


def test_a_file_that_goes_bad_while_it_is_learnt(room: Path, tmp_path: Path) -> None:
    """It was sound when the rows were read: the error names it, and the base is as it was."""
    base = onebase.load(sighted(tmp_path / "base"))
    for i in range(4):
        bad_media.noise(size=(20 + i, 20)).save(tmp_path / f"{i}.png")
    rows = [{"image": str(tmp_path / f"{i}.png"), "label": "ab"[i % 2]} for i in range(4)]
    before = base.fingerprint

    class Damages:
        def start(self, step: int, total: int | None) -> None: ...
        def close(self) -> None: ...
        def step(self, info: Any) -> None:
            for i in range(4):
                (tmp_path / f"{i}.png").write_bytes(b"")

    with pytest.raises(UserError, match=r"\d.png cannot be read as an image: it is empty"):
        base.adapt(rows, task="classify", method="lora", epochs=4, batch_size=2, callbacks=[Damages()])
    assert base.fingerprint == before and onebase.load(tmp_path / "base").fingerprint == before


@pytest.mark.parametrize("name", [*bad_media.IMAGES, *bad_media.ODD_IMAGES])
def test_commands_that_read_pictures(name: str, room: Path, tmp_path: Path) -> None:
    folder, cuts = saved_native(tmp_path / "native"), cutting(tmp_path / "cuts")
    file, bad = room / name, name in bad_media.IMAGES
    caption = command("caption", folder, file, "--max-tokens", "2")
    draw = command("draw", folder, "red", "--init", file, "--steps", "1", "--out", tmp_path / "made")
    said = [caption, draw]
    if name in PICTURES or not bad:
        said.append(command("segment", cuts, file, "--point", "3,3", "--out", tmp_path / "mask.png"))
    for one in said:
        assert (one.status != 0) == bad, one.err
        assert not bad or (name in one.err and "Traceback" not in one.err), one.err
    assert (tmp_path / "made").exists() != bad and (tmp_path / "mask.png").exists() != bad


@pytest.mark.parametrize("name", [*bad_media.SOUNDS, *bad_media.ODD_SOUNDS])
def test_the_command_that_reads_sounds(name: str, room: Path, whisper: Base, tmp_path: Path) -> None:
    said = command("transcribe", saved_native(tmp_path / "native"), room / name)
    assert (said.status != 0) == (name in bad_media.SOUNDS), said.err
    assert not said.status or (name in said.err and "Traceback" not in said.err), said.err
    if name not in ("long.flac", "none.wav"):  # read in windows, as long as it is; and nothing said
        said = command("transcribe", room / "whisper", room / name, "--language", "en")
        assert (said.status != 0) == (name in bad_media.SOUNDS), said.err
        assert not said.status or name in said.err, said.err
