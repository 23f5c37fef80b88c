"""Zero-shot retrieval of a base that recipes/clip.yaml trains on drawn pictures with names, beside chance and rivals made by hand.

Pictures and names: `named_pictures.py`. For each picture of a held-out name all held-out names are ranked by their cosine to the picture; recall@10 is the share of
pictures whose own name is among the first ten. The rivals see the same training data: they describe a picture by those of the k training pictures
that are nearest in colour (histograms of 64 colours), or nearest in colour and layout (8 x 8 pixels beside the histogram), and rank the names by the cosine
of their words (TF-IDF) with the words of those pictures' captions; of several k the one that is best on the held-out pictures is taken, which favours the rival.
Intervals by bootstrap over the pictures.

    python bench/multimodal/retrieval.py --data DIR --room ROOM [--steps N] [--isa avx2]

DIR has the unpacked packages openmoji, openclipart-png, openclipart-svg, tuxpaint-stamps-default anywhere below it; needs resvg-py and scikit-learn. ROOM keeps the small
pictures and the run: a run that was stopped, or is finished, goes on from there.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from common import ROOT, arguments, need, report

NEAREST = (1, 5, 20, 50, 100)
LICENCE = "CC-BY-SA-4.0, public domain, GPL"


def base_of(room: Path, steps: int) -> Any:
    """The trained base."""
    from named_pictures import CAPTIONS

    import onebase

    source = {"name": "pictures", "kind": "jsonl", "path": str(room / CAPTIONS), "licence": LICENCE}
    return onebase.pretrain(
        ROOT / "recipes" / "clip.yaml",
        out=room / "run",
        log=lambda line: print(line, file=sys.stderr),
        data__sources=[source],
        data__holdout=0.01,
        train__minutes=None,
        train__steps=steps,
        train__checkpoint__every=60,
    )


def hits(scores_PN: Any, own: list[int]) -> dict[int, Any]:
    """Whether each picture's own name is among the first k, float [P], for k of 1 and 10."""
    import numpy as np

    from onebase.evaluation.retrieval import recall_each, relevant_ranks

    ranks = relevant_ranks(np.asarray(scores_PN, np.float64), [[i] for i in own])
    return {k: recall_each(ranks, k) for k in (1, 10)}


def by_colour(paths: list[Path], layout: bool) -> Any:
    """Features of pictures, unit vectors fp32 [P, F]: the roots of a histogram of 64 colours; layout: beside 8 x 8 pixels."""
    import numpy as np
    from PIL import Image

    found = []
    for path in paths:
        with Image.open(path) as picture:
            rgb = np.asarray(picture, np.int64).reshape(-1, 3) // 64
            counts = np.bincount(rgb @ np.array([16, 4, 1]), minlength=64)
            parts = [np.sqrt(counts / counts.sum())]
            if layout:
                tiny = (
                    np.asarray(picture.resize((8, 8), Image.Resampling.BOX), np.float64).ravel() / 255 - 0.8
                )
                parts.append(tiny / max(1e-9, np.linalg.norm(tiny)))
        found.append(np.concatenate(parts))
    x = np.array(found, np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def rivals(
    train: list[dict[str, str]], test: list[dict[str, str]], room: Path, texts: list[str], own: list[int]
) -> dict[str, Any]:
    """The hits of each rival with its best k."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    known = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True)
    words_T = known.fit_transform([r["caption"] for r in train])
    names_N = known.transform(texts)
    found: dict[str, Any] = {}
    for layout in (False, True):
        near_PT = (
            by_colour([room / r["file_name"] for r in test], layout)
            @ by_colour([room / r["file_name"] for r in train], layout).T
        )
        order_PT = np.argsort(-near_PT, axis=1)[:, : max(NEAREST)]
        for k in NEAREST:
            said_P = np.stack([np.asarray(words_T[order_P[:k]].mean(0)).ravel() for order_P in order_PT])
            # A grain of noise parts equal scores: names without a known word would all be last.
            grain = 1e-9 * np.random.default_rng(0).random((len(test), len(texts)))
            each = hits((names_N @ said_P.T).T + grain, own)
            name = "colour_layout_knn" if layout else "colour_knn"
            if name not in found or each[10].mean() > found[name]["hits"][10].mean():
                found[name] = {"k": k, "hits": each}
    return found


def scored(each: dict[int, Any]) -> dict[str, Any]:
    """recall@1 and @10 with intervals."""
    from onebase.evaluation.bootstrap import mean_score

    return {f"recall@{k}": asdict(mean_score(f"recall@{k}", x)) for k, x in each.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder of the unpacked packages")
    parser.add_argument(
        "--room", type=Path, required=True, help="a folder for the small pictures and the run"
    )
    parser.add_argument(
        "--steps", type=int, default=1000, help="training steps of 128 pairs (1000: 15 minutes of one core)"
    )
    parser.add_argument("--quick", action="store_true", help="400 pictures and 4 steps, as a smoke test")
    args = arguments(parser)
    need("sklearn", "resvg_py")
    import numpy as np
    from named_pictures import write

    from onebase.evaluation.bootstrap import mean_score

    if not (args.room / "test.jsonl").is_file():
        print(write(args.data, args.room, 400 if args.quick else None), file=sys.stderr)
    train, test = (
        [json.loads(line) for line in (args.room / f"{side}.jsonl").read_text(encoding="utf-8").splitlines()]
        for side in ("train", "test")
    )
    base = base_of(args.room, 4 if args.quick else args.steps)
    names = list(dict.fromkeys(r["name"] for r in test))
    own = [names.index(r["name"]) for r in test]
    captions = [next(r["caption"] for r in test if r["name"] == name) for name in names]
    images_PE = np.asarray(base.embed_images([args.room / r["file_name"] for r in test]))
    results: dict[str, Any] = {
        "pictures": {"train": len(train), "test": len(test), "held_out_names": len(names)},
        "sources": {s: sum(r["source"] == s for r in test) for s in sorted({r["source"] for r in test})},
        "base": {
            k: base.record.get(k)
            for k in (
                "config.parameters",
                "train.steps",
                "train.epochs",
                "seconds.training",
                "flops.counted",
                "train.summary",
            )
        },
        "chance": {"recall@1": 1 / len(names), "recall@10": 10 / len(names)},
    }
    ratios = {}
    for what, texts in (("names", names), ("captions", captions)):
        ours = hits(images_PE @ np.asarray(base.embed(texts)).T, own)
        results[what] = {"ours": scored(ours)}
        for rival, found in rivals(train, test, args.room, texts, own).items():
            over = mean_score("recall@10 over the rival", ours[10] - found["hits"][10])
            results[what][rival] = scored(found["hits"]) | {"k": found["k"], "ours_over_it": asdict(over)}
            ratios[f"{what}_over_{rival}"] = ours[10].mean() / max(1e-9, found["hits"][10].mean())
        ratios[f"{what}_over_chance"] = ours[10].mean() / results["chance"]["recall@10"]
        print(what, {k: v["recall@10"] for k, v in results[what].items()}, file=sys.stderr)
    report("retrieval", results, ratios, quick=args.quick)


if __name__ == "__main__":
    main()
