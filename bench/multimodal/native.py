"""What one base that learnt text, pictures, sound and proteins in one trunk is good for: each number beside its rivals.

    python bench/multimodal/native_data.py DATA --packages DIR
    onebase pretrain native.yaml --out runs/native              # the recipe on record is in the result, under `recipe`
    python bench/multimodal/native.py --base runs/native/base --data DATA [--text RUN] [--shared RUN] [--isa avx2]

1. Named symbols: 500 pairs of symbol and cut that pretraining has not seen: captions written greedily, exact and by name alone (recall@1 of the names).
   Handwritten digits, whose names pretraining never saw beside them: a head and LoRA with all 4,000 labels, a head with 10 a class, beside the same on an untrained
   base, and k-NN, logistic regression and a small CNN on pixels. Spoken digits by voices that were never heard; recorded ones (Asterisk), where DATA has them.
   Peptides (antimicrobial or not): AUROC beside composition + logistic regression.
2. 200 symbols drawn from names, of unseen pairs with their cut: what a classifier of real pictures recognises, and its ceiling on real ones. 100 spoken
   digits from text: what a classifier of real log-mel frames recognises, and its ceiling on new voices.
3. --text, --shared: runs of text alone with equal text tokens, and with one feed-forward for all: their bits per byte beside the base's.
7. The transfer table: k labels a class, each modality, the base, its untrained twin, a small special model.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import arguments, need, report

if TYPE_CHECKING:
    import numpy as np

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
Row = dict[str, Any]


def rate(hits: Sequence[bool]) -> dict[str, Any]:
    """A share with its 95% interval by bootstrap."""
    import numpy as np

    from onebase.evaluation.bootstrap import mean_score

    return asdict(mean_score("share", np.asarray(hits, float)))


def captions(folder: Path) -> list[tuple[Path, str]]:
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    return [(folder / r["file_name"], r["text"]) for r in rows]


def name_of(caption: str) -> str:
    """A caption without its cut."""
    return caption.rsplit(", ", 1)[0]


def symbols(base: Any, data: Path) -> Row:
    known = captions(data / "symbols-test")
    written = base.caption([file for file, _ in known], max_tokens=40)
    pairs = list(zip(written, (text for _, text in known), strict=True))
    return {
        "exact": rate([a == b for a, b in pairs]),
        "recall_at_1": rate([name_of(a) == name_of(b) for a, b in pairs]),
        "names": len(json.loads((data / "symbols.json").read_text())),
        "examples": pairs[:8],
    }


def pixels(files: Sequence[Path]) -> np.ndarray:
    import numpy as np
    from PIL import Image

    return np.stack([np.asarray(Image.open(f).convert("L"), np.float32).ravel() / 255 for f in files])


def few(rows: Sequence[Row], each: int, seed: int = 0) -> list[Row]:
    """So many rows of each label."""
    import numpy as np

    order, out, counts = np.random.default_rng(seed).permutation(len(rows)), [], dict[str, int]()
    for i in order:
        label = rows[i]["label"]
        if counts.get(label, 0) < each:
            counts[label] = counts.get(label, 0) + 1
            out.append(rows[i])
    return out


def hits(base: Any, train: Sequence[Row], test: Sequence[Row], column: str, **how: Any) -> list[bool]:
    on = base.with_adapter(base.adapt(list(train), task="classify", **how))
    found = on.classify([r[column] for r in test])
    return [f.label == r["label"] for f, r in zip(found, test, strict=True)]


def digit_rows(data: Path, name: str) -> list[Row]:
    labels = json.loads((data / f"{name}.json").read_text())
    files = [file for file, _ in captions(data / name)]
    return [{"image": f, "label": DIGITS[n]} for f, n in zip(files, labels, strict=True)]


def small_cnn(x_NP: np.ndarray, labels: Sequence[str], epochs: int) -> Callable[[np.ndarray], list[str]]:
    """A small convolutional network on pixels, trained: the special model."""

    import torch
    from torch import nn

    torch.manual_seed(0)
    names = sorted(set(labels))
    x = torch.from_numpy(x_NP).reshape(-1, 1, 28, 28)
    y = torch.tensor([names.index(label) for label in labels])
    net = nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(32 * 49, len(names)),
    )  # fmt: skip
    adam = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(epochs):
        for part in torch.randperm(len(x)).split(32):
            loss = nn.functional.cross_entropy(net(x[part]), y[part])
            adam.zero_grad()
            loss.backward()
            adam.step()
    net.eval()

    def predict(some_NP: np.ndarray) -> list[str]:
        with torch.no_grad():
            found = net(torch.from_numpy(some_NP).reshape(-1, 1, 28, 28)).argmax(1).tolist()
        return [names[n] for n in found]

    return predict


def cnn(train: Sequence[Row], test: Sequence[Row], epochs: int) -> list[bool]:
    predict = small_cnn(pixels([r["image"] for r in train]), [r["label"] for r in train], epochs)
    return [a == r["label"] for a, r in zip(predict(pixels([r["image"] for r in test])), test, strict=True)]


def classical(train: Sequence[Row], test: Sequence[Row], of: Callable[[Sequence[Row]], np.ndarray]) -> Row:
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    y, truth = [r["label"] for r in train], [r["label"] for r in test]
    x, t = of(train), of(test)
    models = {
        "k-NN": KNeighborsClassifier(min(3, len(x))),
        "logistic regression": LogisticRegression(max_iter=1000),
    }
    return {k: rate((m.fit(x, y).predict(t) == np.array(truth)).tolist()) for k, m in models.items()}


def table(
    base: Any,
    twin: Any,
    train: Sequence[Row],
    test: Sequence[Row],
    column: str,
    of: Callable[..., np.ndarray],
    ks: Sequence[int],
) -> Row:
    """The transfer table of one modality: k labels a class (0: all)."""
    out: Row = {}
    for k in ks:
        some = few(train, k) if k else list(train)
        row: Row = {
            "base": rate(hits(base, some, test, column, method="head")),
            "untrained": rate(hits(twin, some, test, column, method="head")),
        } | classical(some, test, of)
        if column == "image":
            row["CNN"] = rate(cnn(some, test, 40 if k else 8))
        out[str(k or "all")] = row
        print(column, k, {name: round(v["value"], 3) for name, v in row.items()}, file=sys.stderr)
    return out


def spoken_rows(data: Path, name: str) -> list[Row]:
    return [{"audio": f, "label": text} for f, text in captions(data / name) if text in DIGITS]


def mel(files: Sequence[Path], cfg: Any) -> np.ndarray:
    """Log-mel frames of sounds, brought to 12 patches by interpolation."""
    import numpy as np

    from onebase.modality.patches.contents import file_patches

    out = []
    for f in files:
        patch_NP = file_patches(f, cfg, str(f)).numpy()
        at = np.linspace(0, len(patch_NP) - 1, 12)
        low = np.floor(at).astype(int)
        high, share = np.minimum(low + 1, len(patch_NP) - 1), (at - low)[:, None]
        out.append((patch_NP[low] * (1 - share) + patch_NP[high] * share).ravel())
    return np.stack(out)


def peptides(base: Any, twin: Any, data: Path) -> Row:
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    from onebase.evaluation.probabilities import auroc

    known = json.loads((data / "peptides.json").read_text())
    rows = [{"text": " ".join(s), "label": "amp" if y else "other"} for s, y in known]
    order = np.random.default_rng(0).permutation(len(rows))
    cut = int(0.7 * len(order))
    train, test = [rows[i] for i in order[:cut]], [rows[i] for i in order[cut:]]
    truth = [r["label"] == "amp" for r in test]

    def composition(some: Sequence[Row]) -> np.ndarray:
        return np.array([[r["text"].count(c) / len(r["text"]) for c in "ACDEFGHIKLMNPQRSTVWY"] for r in some])

    plain = LogisticRegression(max_iter=2000, C=100.0).fit(composition(train), [r["label"] for r in train])
    column = list(plain.classes_).index("amp")
    found = {"composition": asdict(auroc(truth, plain.predict_proba(composition(test))[:, column]))}
    for name, one in (("base", base), ("untrained", twin)):
        on = one.with_adapter(one.adapt(train, task="classify", method="head", long="head"))
        found[name] = asdict(auroc(truth, [f.scores["amp"] for f in on.classify([r["text"] for r in test])]))
        print("peptides", name, found[name]["value"], file=sys.stderr)
    return found


def drawn(base: Any, data: Path, count: int, guidance: float) -> tuple[Row, list[Any]]:
    """Symbols by name and cut, of pairs that pretraining has not seen."""
    import numpy as np

    known, real = captions(data / "symbols"), captions(data / "symbols-test")
    judge = small_cnn(pixels([f for f, _ in known]), [name_of(t) for _, t in known], 40)
    said = judge(pixels([f for f, _ in real]))
    pictures, right = [], []
    for i, (_, text) in enumerate(real[:count]):
        (picture,) = base.draw(text, 1, steps=25, guidance=guidance, seed=i, size=(28, 28))
        flat = np.asarray(picture.convert("L"), np.float32).reshape(1, -1) / 255
        right.append(judge(flat)[0] == name_of(text))
        pictures.append((text, picture))
    ceiling = rate([a == name_of(t) for a, (_, t) in zip(said, real, strict=True)])
    return {"recognised": rate(right), "real": ceiling, "guidance": guidance, "of": count}, pictures


def spoken(base: Any, data: Path, each: int, cfg: Any, out: Path) -> Row:
    """Digits from text."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    from onebase.engine.media_answers import to_wav

    train, test = spoken_rows(data, "words"), spoken_rows(data, "words-test")
    judge = LogisticRegression(max_iter=1000).fit(
        mel([r["audio"] for r in train], cfg), [r["label"] for r in train]
    )
    ceiling = judge.predict(mel([r["audio"] for r in test], cfg)) == np.array([r["label"] for r in test])
    files, truth = [], []
    out.mkdir(parents=True, exist_ok=True)
    for word in DIGITS:
        for seed in range(each):
            samples, hertz = base.speak(word, seed=seed)
            (out / f"{word}-{seed}.wav").write_bytes(to_wav(samples, hertz))
            files.append(out / f"{word}-{seed}.wav")
            truth.append(word)
    right = judge.predict(mel(files, cfg)) == np.array(truth)
    return {"recognised": rate(right.tolist()), "real": rate(ceiling.tolist()), "of": len(files)}


def bits(base: Any, data: Path) -> dict[str, float]:
    """Bits per byte of all held-out documents of each source of text, the same for each base."""
    from onebase.data.sources import Document
    from onebase.evaluation.likelihood import by_source, document_ids, nats_of

    documents = []
    for name in ("dialogue", "code", "prose"):
        rows = [json.loads(line) for line in (data / f"{name}.jsonl").read_text().splitlines()]
        documents += [Document(r["text"], name, id=r["id"]) for r in rows if r["split"] == "holdout"]
    found = by_source(nats_of(base.loaded, document_ids(base.loaded, documents), length=256))
    return {name: score.value for name, score in found.items()}


def without_paths(recipe: Row) -> Row:
    """The recipe, with the sources' names for where they were."""
    sources = [{k: v for k, v in source.items() if k != "path"} for source in recipe["data"]["sources"]]
    return {**recipe, "data": {**recipe["data"], "sources": sources}, "tokenizer": None}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--text", type=Path, help="a base of text alone")
    parser.add_argument("--shared", type=Path, help="a base with one feed-forward")
    parser.add_argument(
        "--made", type=Path, default=Path("runs/native-made"), help="where pictures and sounds go"
    )
    parser.add_argument("--only", nargs="*", help="parts to run")
    parser.add_argument("--quick", action="store_true", help="20 drawings and 10 sounds, as a smoke test")
    args = arguments(parser)
    need("sklearn", "PIL")
    import onebase
    from onebase.api.base import Base
    from onebase.base.folder import LoadedBase
    from onebase.base.model import BaseModel

    base = onebase.load(args.base)
    model = BaseModel(base.config)
    model.reset(0)
    twin = Base.opened(LoadedBase(model.requires_grad_(False).eval(), base.loaded.codec))
    sounds = next(p.cfg for name, p in base.loaded.model.patches.items() if name == "sound_patches")
    digits, digits_test = digit_rows(args.data, "digits"), digit_rows(args.data, "digits-test")
    words, words_test = spoken_rows(args.data, "words"), spoken_rows(args.data, "words-test")

    def digits_by_lora() -> Row:
        how = {"method": "lora", "epochs": 3, "batch_size": 32}
        return {"lora_all": rate(hits(base, digits, digits_test, "image", **how))}

    def draw() -> Row:
        found, pictures = drawn(base, args.data, 20 if args.quick else 200, 2.0)
        sheet(pictures[:80], args.made / "symbols.png")
        return found

    parts: dict[str, Callable[[], Any]] = {
        "symbols": lambda: symbols(base, args.data),
        "words": lambda: table(base, twin, words, words_test, "audio", lambda rows: mel([r["audio"] for r in rows], sounds), (1, 5, 10, 0)),
        "draw": draw,
        "speak": lambda: spoken(base, args.data, 1 if args.quick else 10, sounds, args.made / "words"),
        "peptides": lambda: peptides(base, twin, args.data),
        "digits": lambda: table(base, twin, digits, digits_test, "image", lambda rows: pixels([r["image"] for r in rows]), (1, 5, 10, 0)),
        "digits_lora": digits_by_lora,
        "text": lambda: {
            k: bits(onebase.load(p), args.data) for k, p in (("joint", args.base), ("text", args.text), ("shared", args.shared)) if p is not None
        },
    }  # fmt: skip
    results: Row = {
        "recipe": without_paths(base.record.get("config.recipe")),
        "parameters": sum(p.numel() for p in base.loaded.model.parameters()),
        "train": {k: base.record.get(k) for k in ("train.steps", "train.summary", "tokens.read")},
    }
    for name, part in parts.items():
        if args.only and name not in args.only:
            continue
        start = time.time()
        results[name] = part()
        results[name]["seconds"] = round(time.time() - start, 1)
        print(name, json.dumps(results[name])[:400], file=sys.stderr)
    report("native", results, {}, quick=args.quick)


def sheet(pictures: Sequence[tuple[str, Any]], path: Path) -> None:
    """The pictures in rows of ten, four times as large."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    whole = Image.new("L", (10 * 60, -(-len(pictures) // 10) * 60), 255)
    for i, (_, picture) in enumerate(pictures):
        whole.paste(
            picture.convert("L").resize((56, 56), Image.Resampling.NEAREST), (i % 10 * 60, i // 10 * 60)
        )
    whole.save(path)


if __name__ == "__main__":
    main()
