"""Whisper compared with faster-whisper: CPU seconds per clip (greedy, with timestamps, one thread), and the number of equal texts.
fp32 on both sides, and ours also in bf16 if the chip multiplies it.

Needs faster-whisper, the packages of real Whisper models, and recordings (listed in tests/spoken.py).

    OMP_NUM_THREADS=1 python bench/speech.py [--quick] [--isa avx2]
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import arguments, chip_dtype, need, report

sys.path.insert(0, str(Path(__file__).parents[1]))
# With one thread, CPU time on a shared machine equals wall-clock time on a quiet one.
RUN = Callable[[Path], str]


def sides(folder: Path) -> dict[str, RUN]:
    """Functions that transcribe a file, by name."""
    from faster_whisper import WhisperModel

    import onebase

    model: Any = WhisperModel(str(folder), device="cpu", compute_type="float32", cpu_threads=1)

    def peer(file: Path) -> str:
        segments, _ = model.transcribe(str(file), language="en", beam_size=1, temperature=0.0)
        return "".join(s.text for s in segments).strip()

    def ours(dtype: str) -> RUN:
        base = onebase.load(folder, dtype=dtype)
        return lambda file: base.transcribe(file, language="en", timestamps=True, temperatures=(0.0,)).text

    formats = dict.fromkeys(("fp32", chip_dtype()))
    return {**{f"onebase {f}": ours(f) for f in formats}, "faster-whisper fp32": peer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer files")
    args = arguments(parser)
    need("faster_whisper")
    import torch

    from tests.spoken import base_multilingual, recordings, tiny_en

    torch.set_num_threads(1)
    files = recordings(30)[:: 10 if args.quick else 3]
    found: dict[str, Any] = {}
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as made:
        for name, folder in (("tiny.en", tiny_en()), ("base", base_multilingual(Path(made) / "base"))):
            times: dict[str, list[float]] = {}
            texts: dict[str, list[str]] = {}
            for side, run in sides(folder).items():
                run(files[0])
                for file in files:
                    began = time.process_time()
                    texts.setdefault(side, []).append(run(file))
                    times.setdefault(side, []).append(time.process_time() - began)
            want = texts["faster-whisper fp32"]
            for side, each in times.items():
                equal = sum(a == b for a, b in zip(texts[side], want, strict=True))
                found[f"{name}, {side}"] = {
                    "seconds_a_clip": round(statistics.mean(each), 3),
                    "texts_equal": f"{equal} of {len(files)}",
                }
            theirs = statistics.mean(times["faster-whisper fp32"])
            for side in (s for s in times if s.startswith("onebase")):
                ratios[f"{name}: {side} over faster-whisper"] = statistics.mean(times[side]) / theirs
    report("speech", found, ratios, quick=args.quick)


if __name__ == "__main__":
    main()
