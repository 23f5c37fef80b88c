"""Speed of contrastive pretraining compared with open_clip: whole training steps of the same towers on the same pictures and captions.

Both towers of width 256, depth 6, 4 heads, feed-forward 1024 in CLIP's layout; pictures of 64 x 64 pixels in patches of 8; captions of 6 to 24 tokens of a vocabulary of 8192, context
77; 64 pairs per step, common space of 256 features, softmax loss with a learned temperature, AdamW, gradients clipped to 1. open_clip is trained by the
steps of its own loop (model, ClipLoss, scale clamped), from tensors that are ready in memory, padded to the context as its tokenizer does; its bf16 is autocast. Ours is the
recipe with `model.portable: true`: it decodes the pictures from PNG files in the batch, and captions share rows. `ours_own_layout` has the towers that a recipe gives without `portable` (RMS
norms, squared ReLU, rotary positions, no biases). All sides run in fresh processes, in turns; the median step is reported, in wall time.

    python bench/multimodal/contrastive.py [--quick] [--isa avx2] [--rounds N] [--steps N]
"""

import argparse
import io
import itertools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import arguments, child, chip_dtype, need, report
from training_sides import RATE, Timed, timed_run

VOCAB, WIDTH, DEPTH, HEADS, PAIRS, CONTEXT, SIZE, PATCH = 8192, 256, 6, 4, 64, 77, 64, 8
SIDES = ("ours", "ours_eager", "ours_own_layout", "open_clip", "open_clip_compiled")
SKIPPED = 2
END = VOCAB - 1
"""The last token: open_clip takes the state of the greatest id."""


def captions(steps: int) -> list[Any]:
    """int64 ids of each caption: the same random tokens for every side, END last."""
    import numpy as np

    rng = np.random.default_rng(0)
    lengths = rng.integers(6, 25, steps * PAIRS)
    return [np.append(rng.integers(2, END, n - 1), END) for n in lengths]


def pictures(steps: int) -> Any:
    """uint8 [steps * PAIRS, SIZE, SIZE, 3]: smooth noise, which PNG compresses as it does drawings."""
    import numpy as np

    coarse = np.random.default_rng(1).integers(0, 256, (steps * PAIRS, 8, 8, 3), np.uint8)
    return coarse.repeat(SIZE // 8, 1).repeat(SIZE // 8, 2)


def peer(side: str, steps: int) -> Timed:
    """Seconds per step, losses and number of parameters of open_clip."""
    import torch

    open_clip = imported()
    torch.manual_seed(0)
    tower = {"layers": DEPTH, "width": WIDTH}
    vision = tower | {"head_width": WIDTH // HEADS, "patch_size": PATCH, "image_size": SIZE}
    text = tower | {"context_length": CONTEXT, "vocab_size": VOCAB, "heads": HEADS}
    model = open_clip.model.CLIP(WIDTH, vision, text).train()
    parameters = sum(p.numel() for p in model.parameters())
    run = torch.compile(model) if side.endswith("_compiled") else model
    ids = torch.zeros(len(words := captions(steps + 1)), CONTEXT, dtype=torch.long)
    for i, caption in enumerate(words):
        ids[i, : len(caption)] = torch.from_numpy(caption)
    pixels = torch.from_numpy(pictures(steps + 1)).permute(0, 3, 1, 2) / 127.5 - 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.0)
    loss_of = open_clip.ClipLoss()
    losses, marks = list[float](), list[float]()
    for step in range(steps + 1):
        marks.append(time.perf_counter())
        part = slice(step * PAIRS, (step + 1) * PAIRS)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=chip_dtype() == "bf16"):
            image, words_, scale = run(pixels[part], ids[part])
            loss = loss_of(image, words_, scale)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6052)
        losses.append(float(loss.detach()))
    return [b - a for a, b in itertools.pairwise(marks)], losses, parameters


def imported() -> Any:
    """open_clip. PyPI's torchvision is built for CUDA: beside a torch for CPUs its operators, of which open_clip uses none, do not load, and the names of
    two must be known."""
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        imported.library = torch.library.Library("torchvision", "DEF")  # type: ignore[attr-defined]
        for name in ("nms", "qnms"):
            imported.library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[attr-defined]
    import open_clip

    return open_clip


def ours(side: str, steps: int) -> Timed:
    """The same for onebase's own loop."""
    import numpy as np
    from PIL import Image

    from onebase.base.config import TextShape
    from onebase.base.pair_config import ImageShape, pair_base
    from onebase.data.captions import content
    from onebase.data.sources import MediaFile
    from onebase.modality.text.sample import Media, Tokens
    from onebase.objective.pairs import CaptionPairs

    head = WIDTH // HEADS
    text = TextShape(
        width=WIDTH,
        depth=DEPTH,
        head_dim=head,
        context=CONTEXT,
        vocab_size=VOCAB,
        portable=side != "ours_own_layout",
    )
    image = ImageShape(width=WIDTH, depth=DEPTH, head_dim=head, size=SIZE, patch=PATCH)
    base = pair_base(text, image, width=WIDTH, end=END)
    files, rows = {}, []
    for i, (caption, pixels) in enumerate(zip(captions(steps + 1), pictures(steps + 1), strict=True)):
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "PNG")
        file = MediaFile("image", data.getvalue(), f"{i}.png")
        files[file.digest] = file
        media = (Media("image", 0, content(file.digest, base.image, files.__getitem__), opening=0),)
        rows.append(
            [Tokens(caption.astype(np.int32), np.ones(len(caption), np.bool_), str(i), "bench", media=media)]
        )

    class Order:
        digest = "bench"

        def rows(self, step: int) -> list[list[Tokens]]:
            at = step % (steps + 1) * PAIRS
            return rows[at : at + PAIRS]

    objective = CaptionPairs(CONTEXT, END, base.image, files.__getitem__)
    return timed_run(
        base, objective, Order(), steps, PAIRS, CONTEXT, muon=False, compiled=side != "ours_eager"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round of few steps, as a smoke test")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, help="steps per round (10; quick: 4)")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    args = arguments(parser)
    steps = args.steps or (4 if args.quick else 10)
    if args.worker:
        seconds, losses, parameters = (ours if args.worker.startswith("ours") else peer)(args.worker, steps)
        print(json.dumps({"seconds": seconds, "first_loss": losses[0], "parameters": parameters}))
        return
    need("open_clip")
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in args.sides}
    for i in range(1 if args.quick else args.rounds):
        for side in args.sides:
            runs[side].append(child([sys.executable, __file__, "--worker", side, "--steps", str(steps)]))
            step = statistics.median(runs[side][-1]["seconds"][SKIPPED:])
            print(f"round {i + 1} {side}: {PAIRS / step:.1f} pairs/s", file=sys.stderr)
    results = {}
    for side, found in runs.items():
        step = statistics.median(s for run in found for s in run["seconds"][SKIPPED:])
        results[side] = {
            "pairs_per_second": PAIRS / step,
            "step_seconds": step,
            "rounds": [PAIRS / statistics.median(run["seconds"][SKIPPED:]) for run in found],
            "first_loss": found[0]["first_loss"],
            "parameters": found[0]["parameters"],
        }
    speed = {side: found["pairs_per_second"] for side, found in results.items()}
    ratios = {
        f"{mine}_{side}": speed[mine] / speed[side]
        for mine in SIDES[:3]
        for side in SIDES[3:]
        if mine in speed and side in speed
    }
    report("contrastive", results, ratios, quick=args.quick)


if __name__ == "__main__":
    main()
