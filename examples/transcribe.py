"""Transcribe audio: text, language, and the times of each segment.

    python examples/transcribe.py REF [FILE.wav]

REF is a speech base, for example a Whisper (docs/speech.md). Without a file it transcribes two seconds of a tone, which is not speech.
"""

import math
import struct
import sys
import tempfile
import wave
from pathlib import Path

import onebase


def tone(path: Path) -> Path:
    """Two seconds of 440 Hz, 16 bits, 16,000 samples per second."""
    samples = (int(8000 * math.sin(2 * math.pi * 440 * i / 16000)) for i in range(32000))
    with wave.open(str(path), "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(16000)
        f.writeframes(b"".join(struct.pack("<h", s) for s in samples))
    return path


def main(ref: str, file: Path) -> None:
    base = onebase.load(ref)
    result = base.transcribe(file, timestamps=True)
    print(
        f"{result.duration:.1f} seconds of audio, language {result.language} ({result.language_probability:.2f})"
    )
    for s in result.segments:
        print(f"{s.start:7.2f} to {s.end:7.2f}  {s.text.strip()}  (log-probability {s.avg_logprob:.2f})")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else tone(Path(folder) / "tone.wav"))
