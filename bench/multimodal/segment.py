"""Masks from one click, on objects that were never seen: shapes and clip-art composed on backgrounds.

    apt-get download tuxpaint-stamps-default openclipart-png; for d in *.deb; do dpkg -x $d stamps; done
    python bench/multimodal/segment.py --clipart stamps/usr/share/tuxpaint/stamps stamps/usr/share/openclipart/png --minutes 15 --save runs/sam --isa avx2

A base of images (ViT-shaped) is trained from nothing by the loop on composed pictures of training objects, and scored for each folder on 400 pictures
of the other fifth of its stamps (chosen by the hash of their names) and on 200 of drawn shapes: the mean IoU after one click, at the centre of the
object (as Segment Anything is scored) and at any pixel of it, and from a box around it. Baselines: flood fill from the same click, at the tolerance
that is best on training pictures; the box itself; GrabCut in the box, if opencv is installed (pip install opencv-python-headless).
"""

import argparse
import hashlib
import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import common

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from onebase.base.masks import Prompt
    from onebase.objective.segment import MaskExample

SIDE = 128
"""Pixels of a side of the composed pictures; the base reads them at its own size."""
STAMP = 96
LARGEST, PIXELS = 2_000_000, 4_000_000
"""Bytes and pixels of the largest stamps that are read."""
TEST, SHAPES = 400, 200


class Composer:
    """Composes pictures: a function of a name alone. stamps: pictures with transparency to choose objects from; share: of objects that are
    stamps, the others are drawn shapes. With a share of 1 a stamp is asked for, with 0 a shape."""

    def __init__(self, stamps: "Sequence[Image]", share: float) -> None:
        self.stamps, self.share = stamps, share if stamps else 0.0

    def __call__(self, name: str) -> "MaskExample":
        from onebase.draws import Draws
        from onebase.objective.composing import composed, placed, shape

        draws, things = Draws("composed", name), []
        for _ in range(2 + int(draws.below(3, 1)[0])):
            if draws.uniform(1)[0] < self.share:
                stamp = self.stamps[int(draws.below(len(self.stamps), 1)[0])]
                things.append(placed(stamp, draws, SIDE))
            else:
                things.append(shape(draws, SIDE))
        return composed(things, draws, SIDE)


def read_stamps(folder: Path) -> "tuple[list[Image], list[Image]]":
    """Clip-art with transparency, for training and for the test (a fifth, by the hash of the name without its ending). Equal files are read once."""
    import numpy as np
    from PIL import Image

    train: list[Image.Image] = []
    test: list[Image.Image] = []
    seen = set()
    for path in sorted(folder.rglob("*.png")):
        if path.stat().st_size > LARGEST or (digest := hashlib.sha256(path.read_bytes()).digest()) in seen:
            continue
        seen.add(digest)
        with Image.open(path) as found:
            if found.width * found.height > PIXELS:
                continue
            thing = found.convert("RGBA")
        box = thing.getchannel("A").point(lambda a: 255 * (a > 127)).getbbox()
        if box is None:
            continue
        thing = thing.crop(box)
        thing.thumbnail((STAMP, STAMP))
        share = (np.asarray(thing.getchannel("A")) > 127).mean()
        if min(thing.size) < 12 or not 0.15 < share < 0.97:
            continue
        stem = path.stem.rstrip("0123456789_-")
        held = int(hashlib.sha256(stem.encode()).hexdigest(), 16) % 5 == 0
        (test if held else train).append(thing)
    return train, test


def flood(picture: "np.ndarray", x: int, y: int, tolerance: float) -> "np.ndarray":
    """The pixels joined to (x, y) whose colour is within a tolerance of its own: the baseline."""
    import numpy as np

    near = np.abs(picture.astype(int) - picture[y, x].astype(int)).max(-1) <= tolerance
    grown = np.zeros(near.shape, bool)
    grown[y, x] = True
    while True:
        wide = np.pad(grown, 1)
        more = (wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:] | grown) & near
        if (more == grown).all():
            return grown
        grown = more


def boxed(mask: "np.ndarray") -> tuple[int, int, int, int]:
    """The box around a mask: left, top, and behind its last column and row."""
    ys, xs = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


def grab_cut(picture: "np.ndarray", box: tuple[int, int, int, int]) -> "np.ndarray":
    """OpenCV's GrabCut in a box, five rounds (Rother et al., 2004)."""
    import cv2
    import numpy as np

    cv2.setRNGSeed(0)
    x0, y0, x1, y1 = box
    found = np.zeros(picture.shape[:2], np.uint8)
    ground, thing = np.zeros((1, 65)), np.zeros((1, 65))
    where = (x0, y0, min(x1 - x0, SIDE - 1), min(y1 - y0, SIDE - 1))  # it needs some background
    cv2.grabCut(picture.copy(), found, where, ground, thing, 5, cv2.GC_INIT_WITH_RECT)
    return (found == cv2.GC_FGD) | (found == cv2.GC_PR_FGD)


def main() -> None:
    """Train, score, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--clipart", type=Path, nargs="*", default=[], help="folders of PNG clip-art with transparency"
    )
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--minutes", type=float, help="instead of steps")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--ema", type=float, default=0.998, help="decay of the average of the weights")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--detail", type=int, default=16, help="channels of the convolutions; 0: none")
    parser.add_argument("--share", type=float, default=0.85, help="of the training objects that are clip-art")
    parser.add_argument("--size", type=int, default=64, help="pixels of a side that the base reads")
    parser.add_argument("--patch", type=int, default=8)
    parser.add_argument("--save", type=Path, help="folder for the base")
    parser.add_argument("--base", type=Path, help="score this saved base; no training")
    parser.add_argument("--quick", action="store_true", help="a few steps and pictures; no result file")
    args = common.arguments(parser)
    common.need("PIL")
    import numpy as np
    import torch

    from onebase.base.config import base_flops, base_parameters, image_base
    from onebase.base.folder import LoadedBase, load_base, save_base
    from onebase.base.head import HeadConfig, OwnHead
    from onebase.base.masks import FIRST, LAST, MaskHead
    from onebase.base.model import BaseModel
    from onebase.data.order import ExampleOrder, one_by_one
    from onebase.engine.segmenting import masks_of
    from onebase.evaluation.bootstrap import mean_score
    from onebase.methods.bound import Bound
    from onebase.modality.text.sample import Tokens
    from onebase.objective.segment import Segmentation, central_click, pixel
    from onebase.train.callbacks import NoCallback, StepInfo
    from onebase.train.config import TrainConfig
    from onebase.train.loop import Job, run

    found = {folder.name: read_stamps(folder) for folder in args.clipart}
    train_stamps = [thing for train, _ in found.values() for thing in train]
    counts = {name: {"train": len(train), "test": len(test)} for name, (train, test) in found.items()}
    print(counts, file=sys.stderr)
    tests = {name: (Composer(test, 1.0), TEST) for name, (_, test) in found.items()}
    tests["shapes"] = (Composer([], 0.0), SHAPES)
    results: dict[str, Any] = {"stamps": counts}
    if args.base:
        loaded = load_base(args.base)
    else:
        cfg = image_base(args.size, args.patch, width=args.width, depth=args.depth)
        model = BaseModel(cfg)
        model.reset(0)
        length = model.cfg.image.patches
        how = HeadConfig(reads="image", gives="masks", patch=args.patch, detail=args.detail)
        head = MaskHead.new(how, args.width, model.cfg.image.channels)
        model.heads["segment"] = head
        steps = 3 if args.quick else args.steps
        count = 200_000 if args.minutes else steps * args.batch
        nothing = np.zeros(length, np.int32), np.zeros(length, np.bool_)
        rows = [Tokens(*nothing, str(i), "composed") for i in range(count)]
        budget = {"minutes": args.minutes} if args.minutes else {"steps": steps}
        objective = Segmentation("segment", Composer(train_stamps, args.share), cfg.image)
        began = time.perf_counter()

        class Told(NoCallback):
            def step(self, info: StepInfo) -> None:
                if info.step % 50 == 0:
                    parts = {k: round(v, 3) for k, v in info.losses.items()}
                    print(info.step, info.total, parts, f"{info.seconds:.0f} s", file=sys.stderr, flush=True)

        done = run(
            Job(
                model,
                objective,
                ExampleOrder(one_by_one(rows), args.batch),
                TrainConfig(
                    **budget,
                    ema=args.ema,
                    batch_size=args.batch,
                    sequence_length=length,
                    micro_batch=args.batch,
                ),
                callbacks=[Told()],
            )
        )
        results["train"] = {
            "steps": done.state.step,
            "pictures": done.state.step * args.batch,
            "vectors": done.state.tokens,
            "flops": base_flops(cfg, length) * done.state.tokens,
            "seconds": round(time.perf_counter() - began, 1),
            "loss": round(float(np.mean(done.losses[-50:])), 4),
        }
        tensors = {k: t.cpu().clone() for k, t in head.tensors.items()}
        del model.heads["segment"]
        own = OwnHead("segment", how, tensors)
        loaded = LoadedBase(model.eval(), None, head=own)
        if args.save:
            save_base(args.save, loaded, overwrite=True)
    bound = Bound.opened(loaded)
    torch.set_grad_enabled(False)
    results["parameters"] = base_parameters(loaded.model.cfg)

    def prompt(example: "MaskExample", how: str, name: str) -> "Prompt":
        from onebase.draws import Draws

        if how == "box":
            x0, y0, x1, y1 = boxed(example.mask)
            return [(x0 / SIDE, y0 / SIDE, FIRST), (x1 / SIDE, y1 / SIDE, LAST)]
        return central_click(example.mask) if how == "centre" else [pixel(example.mask, Draws(how, name))]

    def iou(found: "np.ndarray", true: "np.ndarray") -> float:
        return float((found & true).sum() / max(1, (found | true).sum()))

    def filled(example: "MaskExample", tolerance: float) -> float:
        ((x, y, _),) = central_click(example.mask)
        return iou(flood(np.asarray(example.picture), int(x * SIDE), int(y * SIDE), tolerance), example.mask)

    def box_itself(example: "MaskExample") -> float:
        x0, y0, x1, y1 = boxed(example.mask)
        whole = np.zeros_like(example.mask)
        whole[y0:y1, x0:x1] = True
        return iou(whole, example.mask)

    tuned = [Composer(train_stamps, 1.0)(f"tune {i}") for i in range(60)]
    best = max((10, 20, 30, 45, 60, 80), key=lambda t: np.mean([filled(e, t) for e in tuned]))
    baselines: dict[str, Callable[[MaskExample], float]] = {
        f"flood fill at {best}, centre": lambda e: filled(e, best),
        "the box itself": box_itself,
    }
    if importlib.util.find_spec("cv2"):
        baselines["GrabCut, box"] = lambda e: iou(grab_cut(np.asarray(e.picture), boxed(e.mask)), e.mask)
    ratios: dict[str, float | None] = {}
    for kind, (compose, n) in tests.items():
        examples = [compose(f"test {kind} {i}") for i in range(min(n, 8) if args.quick else n)]
        scored = {}
        for how in ("centre", "any", "box"):
            prompts = [prompt(e, how, str(i)) for i, e in enumerate(examples)]
            got = [masks_of(bound, e.picture, [p]).masks[0] for e, p in zip(examples, prompts, strict=True)]
            scored[how] = [iou(m, e.mask) for m, e in zip(got, examples, strict=True)]
            ratios[f"iou_{kind}_{how}"] = float(np.mean(scored[how]))
        for name, measure in baselines.items():
            scored[name] = [measure(e) for e in examples]
        for name, values in scored.items():
            mean = mean_score("iou", values)
            results[f"{kind}, {name}"] = vars(mean)
            print(f"{kind}, {name}: {mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f})", file=sys.stderr)
    common.report("multimodal_segment", results, ratios, quick=args.quick)


if __name__ == "__main__":
    main()
