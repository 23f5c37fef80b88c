"""A real Whisper (tiny.en) learns by LoRA, and transcribes with the LoRA on: what it learns, and what that costs.

learn: digit strings spoken by espeak-ng, written as words; scored (wer, cer, nats per token) on a voice that is not in training and on recorded digits of
Asterisk, before and after. time: CPU seconds per recording (greedy, with timestamps, one thread), with the LoRA on over without. Limit: 1.2. The order
of the two sides alternates from file to file.

Needs the packages of the real model, espeakng-loader and the recordings (tests/spoken.py).

    OMP_NUM_THREADS=1 python bench/multimodal/whisper_lora.py [--quick] [--isa avx2]
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
from common import arguments, need, report

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TRAIN_VOICES, TEST_VOICE = ("en-us", "en-gb-scotland", "en-gb-x-gbclan"), "en-gb-x-rp"
LIMIT = 1.2


def strings(count: int, seed: int) -> list[str]:
    """So many strings of two to four digits, as words."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(2, 4))) for _ in range(count)]


def spoken(folder: Path, each: int, held: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Rows to learn from and to score, in different voices."""
    from tests.spoken import Espeak

    espeak, train = Espeak(), []
    for v, voice in enumerate(TRAIN_VOICES):
        for i, text in enumerate(strings(each, v)):
            train.append({"audio": str(espeak.say(text, voice, folder / f"a{v}-{i}.wav")), "text": text})
    test = [
        {"audio": str(espeak.say(text, TEST_VOICE, folder / f"b-{i}.wav")), "text": text}
        for i, text in enumerate(strings(held, 99))
    ]
    return train, test


def recorded() -> list[dict[str, str]]:
    """The ten digits as a person says them, 8 kHz."""
    from tests.spoken import recordings

    root = next(p for p in recordings(1)[0].parents if p.name == "sounds")
    found = {int(p.stem): p for p in root.rglob("digits/[0-9].wav")}
    return [{"audio": str(found[i]), "text": WORDS[i]} for i in sorted(found)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer files")
    args = arguments(parser)
    need("espeakng_loader", "jiwer")
    import torch

    import onebase
    from tests.spoken import recordings, tiny_en

    torch.set_num_threads(1)
    base = onebase.load(tiny_en())
    with tempfile.TemporaryDirectory() as made:
        train, test = spoken(Path(made), 4 if args.quick else 16, 4 if args.quick else 24)
        began = time.process_time()
        adapter = base.adapt(
            train, task="transcribe", method="lora", sites=["text.*"], epochs=3, batch_size=8
        )
        seconds = time.process_time() - began
        on = base.with_adapter(adapter)
        scores: dict[str, Any] = {}
        for name, rows in (("held-out voice", test), ("recorded digits", recorded())):
            for side, b in (("before", base), ("after", on)):
                found = onebase.evaluate(b, rows, task="transcribe")
                scores[f"{name}, {side}"] = {
                    k: [round(x, 3) for x in (s.value, s.low, s.high)] for k, s in found.items()
                }
    # A LoRA at every site of both trunks, which costs most.
    whole = base.with_adapter(drawn(base))
    files = recordings(30)[:: 10 if args.quick else 3]
    times: dict[str, list[float]] = {"plain": [], "lora": []}
    sides = {"plain": base, "lora": whole}
    for b in sides.values():
        b.transcribe(files[0], timestamps=True, temperatures=(0.0,))
    tokens: dict[str, int] = {"plain": 0, "lora": 0}
    for i, file in enumerate(files):
        for side in list(sides)[:: -1 if i % 2 else 1]:
            began = time.process_time()
            said = sides[side].transcribe(file, timestamps=True, temperatures=(0.0,))
            times[side].append(time.process_time() - began)
            tokens[side] += len(base.tokenizer.encode(said.text))
    means = {side: round(statistics.mean(t), 3) for side, t in times.items()}
    results = {
        "learn": {"rows": len(train), "cpu_seconds": round(seconds, 1), **scores},
        "time": {"seconds_a_clip": means, "text_tokens": tokens, "limit": LIMIT},
    }
    ratio = sum(times["lora"]) / sum(times["plain"])
    report("whisper_lora", results, {"tiny.en: LoRA on over plain": ratio}, quick=args.quick)
    if ratio > LIMIT:
        sys.exit(f"a LoRA makes it {ratio:.2f} times as slow, the limit is {LIMIT}")


def drawn(base: Any) -> Any:
    """A LoRA of rank 8 at every site that changes next to nothing, so that both sides write the same."""
    import torch

    from onebase.api.base import Adapter
    from onebase.artifact.record import Record
    from onebase.methods import lora
    from onebase.methods.config import AdapterConfig
    from onebase.methods.folder import AdapterParts, bound_to

    model, cfg = base.loaded.model, lora.LoraConfig(rank=8)
    generator = torch.Generator().manual_seed(0)
    for p in lora.inject(model, "__bench", cfg):
        with torch.no_grad():
            p.copy_(torch.randn(p.shape, generator=generator) * 1e-4)
    tensors = {k: t.clone() for k, t in lora.tensors(model, "__bench").items()}
    lora.remove(model, "__bench")
    adapter = AdapterConfig(method="lora", task="transcribe", base=bound_to(base.loaded), lora=cfg)
    return Adapter(AdapterParts(adapter, tensors, Record("adapter")))


if __name__ == "__main__":
    main()
