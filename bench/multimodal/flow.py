"""Speed of a flow step compared with a DiT of diffusers trained by its usual loop: whole training steps.

Pictures of 32 x 32 pixels in patches of 4 (64 of 48 numbers), width 256, depth 6, 4 heads, feed-forward 1024, 32 pictures a step, AdamW, gradients
clipped. diffusers: DiTTransformer2DModel of 1,000 classes, DDPM noise, mean squared error of the noise, as its training examples do. Ours, two bases:

- `ours`: the decoder of recipes/flow.yaml, a caption of 8 tokens before each picture, clean patches predicted from noised ones, all by our loop (rows of
  80 tokens: 25% more than the DiT reads). Its norms are not adaptive, so it has fewer parameters at the same width and depth.
- `ours_dit`: the very DiT opened as a base, with equal parameters, loss and loop, so that the trunk alone differs.

All sides run in fresh processes, in turns; the median step is reported, in wall time. `_eager`: without torch.compile.

    python bench/multimodal/flow.py [--quick] [--isa avx2] [--rounds N] [--steps N] [--profile]
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import arguments, child, chip_dtype, need, report
from training_sides import RATE, Timed, our_steps

WIDTH, DEPTH, HEADS, SIDE, PATCH, BATCH = 256, 6, 4, 32, 4, 32
VOCAB, CAPTION, OPENING = 512, 8, 6
CLASSES, TIMES = 1000, 1000
SIDES = ("ours", "ours_eager", "ours_dit", "ours_dit_eager", "diffusers", "diffusers_eager")
SKIPPED = 2
FIRST = 10
"""The first id of an ordinary token."""


def pictures(steps: int) -> Any:
    """fp32 [steps * BATCH, 3, SIDE, SIDE]: the same for every side."""
    import numpy as np

    shape = (steps * BATCH, 3, SIDE, SIDE)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def ours(side: str, steps: int) -> Timed:
    """Seconds per step, losses and number of parameters of our loop and the mixed objective."""
    import numpy as np
    import torch

    from onebase.base.config import TextShape, native_base
    from onebase.modality.patches.config import ImagePatchesConfig
    from onebase.modality.patches.pictures import grid, to_patches
    from onebase.modality.text import Tokens
    from onebase.modality.text.sample import Media, MediaContent
    from onebase.objective.flow_config import FlowConfig
    from onebase.objective.mixed import Mixed

    across = SIDE // PATCH
    count, length = across**2, CAPTION + OPENING + across**2 + 2
    shape = TextShape(width=WIDTH, depth=DEPTH, head_dim=WIDTH // HEADS, context=length, vocab_size=VOCAB)
    base = native_base(shape, ImagePatchesConfig(kind="image_patches", patch=PATCH, group="text"))
    at_NK, values = grid(across, across).numpy(), pictures(steps + 1)
    begin, captions = (
        CAPTION + OPENING,
        np.random.default_rng(1).integers(FIRST, VOCAB, (len(values), CAPTION)),
    )

    def row(i: int) -> Tokens:
        """A caption and the opening, the patches, and what ends them; learnt are the opening and the patches."""
        ids = np.concatenate((captions[i], np.arange(OPENING), np.full(count, OPENING), [8, 9]))
        loss = np.zeros(length, np.bool_)
        loss[CAPTION:begin] = True
        content = MediaContent(
            "", count, lambda: (to_patches(torch.from_numpy(values[i]), PATCH).numpy(), at_NK)
        )
        media = (Media("image_patches", begin, content, True, OPENING),)
        return Tokens(ids.astype(np.int32), loss, str(i), "bench", media=media)

    flow = FlowConfig(generate=0.0, drop=0.0)  # the rows are made to be drawn already
    return our_steps(
        base,
        lambda np: Mixed.of(base, length, flow),
        [row(i) for i in range(len(values))],
        steps,
        BATCH,
        muon=False,
        compiled=not side.endswith("_eager"),
    )


def usual_loop(predict: Callable[..., Any], model: Any, steps: int, *, autocast: bool) -> Timed:
    """The loop of diffusers' training examples: noise, a time for each picture, the error of the noise, clipping, AdamW. autocast: to the format of
    the chip, where the model does not compute in it by itself."""
    import torch
    import torch.nn.functional as F
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(num_train_timesteps=TIMES)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE)
    values, marks, losses = torch.from_numpy(pictures(steps + 1)), [], []
    for step in range(steps + 1):
        marks.append(time.perf_counter())
        z_BCSS = values[step * BATCH : (step + 1) * BATCH]
        noise = torch.randn_like(z_BCSS)
        t_B = torch.randint(0, TIMES, (BATCH,))
        class_B = torch.randint(0, CLASSES, (BATCH,))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            got = predict(scheduler.add_noise(z_BCSS, noise, t_B), t_B, class_B)
        loss = F.mse_loss(got.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    marks.append(time.perf_counter())
    seconds = [b - a for a, b in itertools.pairwise(marks)]
    return seconds, losses, sum(p.numel() for p in model.parameters() if p.requires_grad)


def their_model() -> Any:
    """A DiT of diffusers with drawn weights."""
    import torch
    from diffusers import DiTTransformer2DModel

    torch.manual_seed(0)
    return DiTTransformer2DModel(
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH // HEADS,
        in_channels=3,
        num_layers=DEPTH,
        sample_size=SIDE,
        patch_size=PATCH,
        num_embeds_ada_norm=CLASSES,
    )


def diffusers_steps(side: str, steps: int) -> Timed:
    """The same for diffusers."""
    import torch

    model = their_model().train()
    run = model if side.endswith("_eager") else torch.compile(model)
    bf16 = chip_dtype() == "bf16"
    return usual_loop(lambda z, t, c: run(z, timestep=t, class_labels=c).sample, model, steps, autocast=bf16)


def dit_steps(side: str, steps: int) -> Timed:
    """The same for the DiT as a base of ours, in the loop of diffusers."""
    import torch

    from onebase.base.latents import predicted_noise
    from onebase.base.model import BaseModel
    from onebase.formats.families.dit import FAMILY
    from onebase.formats.reader import ConfigReader
    from onebase.train.parallel import compile_blocks

    theirs = their_model()
    cfg = FAMILY.read(ConfigReader(dict(theirs.config), "the bench", frozenset(theirs.state_dict())))
    model = BaseModel(cfg)
    tensors = theirs.state_dict()
    for rule in FAMILY.rules(cfg):
        if hasattr(rule, "there"):
            found = zip(rule.ours, rule.there([tensors[n] for n in rule.theirs]), strict=True)
            model.load_state_dict(dict(found), strict=False)
    if chip_dtype() == "bf16":
        model.compute_dtype = torch.bfloat16
    if not side.endswith("_eager"):
        compile_blocks(model)
    return usual_loop(lambda z, t, c: predicted_noise(model, z, t, c), model.train(), steps, autocast=False)


def worker(side: str, steps: int) -> Timed:
    kinds = {"ours": ours, "ours_dit": dit_steps, "diffusers": diffusers_steps}
    return kinds[side.removesuffix("_eager")](side, steps)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round of few steps, as a smoke test")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, help="steps per round (10; quick: 4)")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--profile", choices=SIDES, help="print where this side spends its time, and end")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    args = arguments(parser)
    steps = args.steps or (4 if args.quick else 10)
    if args.profile:
        profiled(args.profile, steps)
        return
    if args.worker:
        seconds, losses, parameters = worker(args.worker, steps)
        print(json.dumps({"seconds": seconds, "first_loss": losses[0], "parameters": parameters}))
        return
    need("diffusers")
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in args.sides}
    for i in range(1 if args.quick else args.rounds):
        for side in args.sides:
            runs[side].append(child([sys.executable, __file__, "--worker", side, "--steps", str(steps)]))
            step = statistics.median(runs[side][-1]["seconds"][SKIPPED:])
            print(f"round {i + 1} {side}: {BATCH / step:.1f} pictures/s", file=sys.stderr)
    results = {}
    for side, found in runs.items():
        step = statistics.median(s for run in found for s in run["seconds"][SKIPPED:])
        results[side] = {
            "pictures_per_second": BATCH / step,
            "step_seconds": step,
            "rounds": [BATCH / statistics.median(run["seconds"][SKIPPED:]) for run in found],
            "first_loss": found[0]["first_loss"],
            "parameters": found[0]["parameters"],
        }
    speed = {side: found["pictures_per_second"] for side, found in results.items()}
    ratios = {
        f"{mine}_{side}": speed[mine] / speed[side]
        for mine in SIDES[:4]
        for side in SIDES[4:]
        if mine in speed and side in speed and mine.endswith("_eager") == side.endswith("_eager")
    }
    report("flow", results, ratios, quick=args.quick)


def profiled(side: str, steps: int) -> None:
    """The operations of a side that take longest, by torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        worker(side, steps)
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=50))


if __name__ == "__main__":
    main()
