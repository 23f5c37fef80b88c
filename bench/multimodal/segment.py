"""Masks from one click, on objects that were never seen: shapes and clip-art composed on backgrounds.

    apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb stamps
    python bench/multimodal/segment.py --clipart stamps/usr/share/tuxpaint/stamps --steps 3000 --save runs/sam --isa avx2

A base of images (ViT-shaped) is trained from nothing by the loop on composed pictures of training objects, and scored on 400 pictures of the
other fifth of the stamps (chosen by the hash of their names) and on 200 of drawn shapes: the mean IoU after one click, at the centre of the
object (as Segment Anything is scored) and at any pixel of it. Baseline from the same click: the colour of the pixel
clicked on (flood fill at the tolerance that is best on training pictures).
"""

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import common

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from onebase.draws import Draws
    from onebase.objective.segment import MaskExample

SIDE = 128
"""Pixels of a side of the composed pictures; the base reads them at its own size."""
STAMP = 96
LARGEST, PIXELS = 2_000_000, 4_000_000
"""Bytes and pixels of the largest stamps that are read."""
TEST, SHAPES = 400, 200


class Composer:
    """Composes pictures: a function of a name alone. stamps: pictures with transparency to choose objects from; share: of objects that are
    stamps, the others are drawn shapes. The object that is asked for is a stamp where there is one."""

    def __init__(self, stamps: "Sequence[Image]", share: float) -> None:
        self.stamps, self.share = stamps, share if stamps else 0.0

    def __call__(self, name: str) -> "MaskExample":
        import numpy as np

        from onebase.draws import Draws
        from onebase.objective.segment import MaskExample

        draws = Draws("composed", name)
        while True:
            canvas = background(draws)
            owner = np.full((SIDE, SIDE), -1)
            areas: list[int] = []
            for i in range(2 + int(draws.below(3, 1)[0])):
                stamp = draws.uniform(1)[0] < self.share
                thing = self.placed(draws) if stamp else shape(draws)
                x, y = (int(draws.below(SIDE - n + 1, 1)[0]) for n in thing.size)
                seen = np.asarray(thing.getchannel("A")) > 127
                canvas.paste(thing, (x, y), thing)
                owner[y : y + thing.height, x : x + thing.width][seen] = i
                areas.append(int(seen.sum()))
            able = [i for i, a in enumerate(areas) if (owner == i).sum() >= max(200, a // 2)]
            if able:
                i = able[int(draws.below(len(able), 1)[0])]
                return MaskExample(canvas, owner == i)

    def placed(self, draws: "Draws") -> "Image":
        """A stamp, turned and sized."""
        thing = self.stamps[int(draws.below(len(self.stamps), 1)[0])]
        size, angle, mirror = draws.uniform(3).tolist()
        if mirror < 0.5:
            thing = thing.transpose(0)
        thing = thing.rotate(60 * angle - 30, resample=2, expand=True)
        longest = 32 + 48 * size
        scale = longest / max(thing.size)
        return thing.resize((max(8, int(thing.width * scale)), max(8, int(thing.height * scale))), 2)


def colours(draws: "Draws", n: int) -> list[tuple[int, ...]]:
    """Random colours."""
    return [tuple(draws.below(256, 3).tolist()) for _ in range(n)]


def texture(draws: "Draws", size: tuple[int, int]) -> "Image":
    """One colour, a gradient, stripes, or soft noise around a colour."""
    import numpy as np
    from PIL import Image

    first, second = (np.array(c, np.float32) for c in colours(draws, 2))
    how = int(draws.below(4, 1)[0])
    w, h = size
    ys, xs = np.mgrid[:h, :w].astype(np.float32)
    turn, pitch = draws.uniform(2).tolist()
    along = np.cos(6.28 * turn) * xs + np.sin(6.28 * turn) * ys
    if how == 0:
        t = np.zeros((h, w), np.float32)
    elif how == 1:
        t = (along - along.min()) / max(float(np.ptp(along)), 1.0)
    elif how == 2:
        t = (np.sin(along * 6.28 / (6 + 14 * pitch)) > 0).astype(np.float32)
    else:
        coarse = draws.uniform(36).reshape(6, 6).astype(np.float32)
        t = np.asarray(Image.fromarray(coarse).resize(size, 3))
    values = first + t[..., None] * (second - first) * (0.5 if how == 3 else 1.0)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def background(draws: "Draws") -> "Image":
    """A texture over the whole picture."""
    return texture(draws, (SIDE, SIDE))


def shape(draws: "Draws") -> "Image":
    """An ellipse, a polygon or a star with a texture."""
    import math

    from PIL import Image, ImageDraw

    w, h = (28 + int(n) for n in draws.below(44, 2))
    cut = Image.new("L", (w, h))
    pen = ImageDraw.Draw(cut)
    corners = int(draws.below(6, 1)[0]) + 2
    turn, inner = draws.uniform(2).tolist()
    if corners == 2:
        pen.ellipse((0, 0, w - 1, h - 1), fill=255)
    else:
        star = inner < 0.4
        n = corners * 2 if star else corners
        points = []
        for k in range(n):
            r = 0.5 if not (star and k % 2) else 0.22
            a = 2 * math.pi * (k / n + turn)
            points.append((w / 2 + r * w * math.cos(a), h / 2 + r * h * math.sin(a)))
        pen.polygon(points, fill=255)
    thing = texture(draws, (w, h)).convert("RGBA")
    thing.putalpha(cut)
    return thing


def read_stamps(folders: Sequence[Path]) -> "tuple[list[Image], list[Image]]":
    """Clip-art with transparency, for training and for the test (a fifth, by the hash of the name without its ending). Equal files are read once."""
    import numpy as np
    from PIL import Image

    train: list[Image.Image] = []
    test: list[Image.Image] = []
    seen = set()
    for path in sorted(p for folder in folders for p in folder.rglob("*.png")):
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


def main() -> None:
    """Train, score, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clipart", type=Path, help="folder of PNG clip-art with transparency")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--minutes", type=float, help="instead of steps")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--depth", type=int, default=6)
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
    from onebase.base.masks import MaskHead
    from onebase.base.model import BaseModel
    from onebase.data.order import ExampleOrder, one_by_one
    from onebase.engine.segmenting import masks_of
    from onebase.evaluation.bootstrap import mean_score
    from onebase.methods.bound import Bound
    from onebase.modality.text.sample import Tokens
    from onebase.objective.segment import Segmentation, central_click, drawn_prompt
    from onebase.train.callbacks import NoCallback, StepInfo
    from onebase.train.config import TrainConfig
    from onebase.train.loop import Job, run

    train_stamps, test_stamps = read_stamps(args.clipart)
    print(f"{len(train_stamps)} stamps for training, {len(test_stamps)} for the test", file=sys.stderr)
    tests = {
        "clipart": (Composer(test_stamps, 1.0), TEST if test_stamps else 0),
        "shapes": (Composer([], 0.0), SHAPES),
    }
    results: dict[str, Any] = {"stamps": {"train": len(train_stamps), "test": len(test_stamps)}}
    if args.base:
        loaded = load_base(args.base)
    else:
        cfg = image_base(args.size, args.patch, width=args.width, depth=args.depth)
        model = BaseModel(cfg)
        model.reset(0)
        length = model.cfg.image.patches
        head = MaskHead(args.width, args.patch**2)
        model.heads["segment"] = head
        steps = 3 if args.quick else args.steps
        count = 200_000 if args.minutes else steps * args.batch
        nothing = np.zeros(length, np.int32), np.zeros(length, np.bool_)
        rows = [Tokens(*nothing, str(i), "composed") for i in range(count)]
        budget = {"minutes": args.minutes} if args.minutes else {"steps": steps}
        objective = Segmentation("segment", Composer(train_stamps, 0.8), cfg.image)
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
                TrainConfig(**budget, batch_size=args.batch, sequence_length=length, micro_batch=args.batch),
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
        own = OwnHead("segment", HeadConfig(reads="image", gives="masks", patch=args.patch), tensors)
        loaded = LoadedBase(model.eval(), None, head=own)
        if args.save:
            save_base(args.save, loaded, overwrite=True)
    bound = Bound.opened(loaded)
    torch.set_grad_enabled(False)
    results["parameters"] = base_parameters(loaded.model.cfg)

    def clicked(example: "MaskExample", how: str, name: str) -> Any:
        from onebase.draws import Draws

        if how == "centre":
            return central_click(example.mask)
        key = next(
            i
            for i in range(1000)
            if (len(drawn_prompt(example.mask, Draws(how, name, i))) == 1) == (how == "any")
        )
        return drawn_prompt(example.mask, Draws(how, name, key))

    def iou(found: "np.ndarray", true: "np.ndarray") -> float:
        return float((found & true).sum() / max(1, (found | true).sum()))

    tuned = [Composer(train_stamps, 1.0)(f"tune {i}") for i in range(60)]

    def filled(example: "MaskExample", tolerance: float) -> float:
        ((x, y, _),) = central_click(example.mask)
        return iou(flood(np.asarray(example.picture), int(x * SIDE), int(y * SIDE), tolerance), example.mask)

    best = max((10, 20, 30, 45, 60, 80), key=lambda t: np.mean([filled(e, t) for e in tuned]))
    ratios: dict[str, float | None] = {}
    for kind, (compose, n) in tests.items():
        n = min(n, 8) if args.quick else n
        if not n:
            continue
        examples = [compose(f"test {kind} {i}") for i in range(n)]
        for how in ("centre", "any"):
            found = [
                iou(masks_of(bound, e.picture, [clicked(e, how, str(i))]).masks[0], e.mask)
                for i, e in enumerate(examples)
            ]
            results[f"{kind}, one click, {how}"] = vars(mean_score("iou", found))
            ratios[f"iou_{kind}_{how}"] = float(np.mean(found))
        flooded = mean_score("iou", [filled(e, best) for e in examples])
        results[f"{kind}, flood fill at {best}, centre"] = vars(flooded)
        print(
            kind,
            {
                k: (round(v["value"], 3), round(v["low"], 3), round(v["high"], 3))
                for k, v in results.items()
                if k.startswith(kind)
            },
            file=sys.stderr,
        )
    common.report("multimodal_segment", results, ratios, quick=args.quick)


if __name__ == "__main__":
    main()
