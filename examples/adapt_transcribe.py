"""Teach a base that transcribes speech new words, by LoRA. Run: python examples/adapt_transcribe.py REF

REF is a Whisper (docs/speech.md), or a base of your own with sound in its trunk (docs/native.md). The sounds are made here: a high tone and a low one, which the
base learns to call by their names. With sounds and texts of your own nothing else changes.
"""

import json
import math
import struct
import sys
import tempfile
import wave
from pathlib import Path

import onebase

NAMES = {"low": 300, "high": 1500}


def tone(path: Path, hertz: float) -> Path:
    """0.4 seconds, 16 bits, 16,000 samples per second."""
    samples = (int(8000 * math.sin(2 * math.pi * hertz * i / 16000)) for i in range(6400))
    with wave.open(str(path), "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(16000)
        f.writeframes(b"".join(struct.pack("<h", s) for s in samples))
    return path


def rows(folder: Path, name: str, steps: range) -> Path:
    """Tones near the two, and a file of rows that names them."""
    lines = []
    for i in steps:
        for word, hertz in NAMES.items():
            file = tone(folder / f"{word}-{i}.wav", hertz + 7 * i)
            lines.append(json.dumps({"audio": file.name, "text": word}) + "\n")
    (folder / name).write_text("".join(lines))
    return folder / name


def main(ref: str) -> None:
    base = onebase.load(ref)
    known = base.loaded.speech is not None and base.loaded.speech.languages
    language = {"language": "en"} if known else {}
    with tempfile.TemporaryDirectory() as room:
        train, test = rows(Path(room), "train.jsonl", range(6)), rows(Path(room), "test.jsonl", range(6, 9))
        adapter = base.adapt(
            train, task="transcribe", method="lora", epochs=20, batch_size=4, lr=5e-3, **language
        )
        heard = base.with_adapter(adapter)
        scores = onebase.evaluate(heard, test)
        print("with the adapter:", ", ".join(str(s) for s in scores.values()))
        print("a high tone is heard as", heard.transcribe(Path(room, "high-7.wav"), **language).text.strip())


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1])
