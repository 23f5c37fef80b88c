"""A plan and the run that it is of, each in a process of its own: what they say of memory and time. Files of text, pictures and sounds for them.

python tests/planned.py run|plan RECIPE.json OUT      # the last line is JSON
"""

import itertools
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
KINDS = ("text", "pictures", "sounds", "all")
"""What a recipe learns from: each has sources of its own."""


def files(root: Path, seed: int = 0) -> Path:
    """Texts of 200 to 1,400 characters; pictures of up to 64 x 64 pixels and sounds of up to 2 s, each with a few words."""
    from PIL import Image

    from tests.bad_media import wav

    draw = np.random.default_rng(seed)
    source = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    root.mkdir(parents=True)
    starts = draw.integers(0, len(source) - 1500, 300)
    texts = [
        source[s : s + n]
        for s, n in zip(starts.tolist(), draw.integers(200, 1400, 300).tolist(), strict=True)
    ]
    (root / "text.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    for name in ("pictures", "sounds"):
        (root / name).mkdir()
        rows = []
        for i in range(200):
            file = f"{i}.{'png' if name == 'pictures' else 'wav'}"
            if name == "pictures":
                height, width = draw.integers(24, 65, 2).tolist()
                Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8)).save(root / name / file)
            else:
                wave = draw.normal(0, 0.1, int(draw.integers(8000, 32000))).clip(-1, 1)
                (root / name / file).write_bytes(wav(wave))
            rows.append({"file_name": file, "text": f"number {i} of them"})
        (root / name / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return root


def recipe(
    root: Path, kind: str, *, width: int, depth: int, rows: int = 8, length: int = 256, steps: int = 6
) -> dict[str, Any]:
    """A recipe as plain data, in fp32 so that it is the same on every chip."""
    text = {"name": "text", "kind": "jsonl", "path": str(root / "text.jsonl")}
    pictures = {"name": "pictures", "kind": "imagefolder", "path": str(root / "pictures")}
    sounds = {"name": "sounds", "kind": "audiofolder", "path": str(root / "sounds")}
    image = {"kind": "image_patches", "patch": 4, "limit": 200}
    sound = {"kind": "sound_patches", "limit": 100}
    sources, modalities = {
        "text": ([text], []),
        "pictures": ([text, pictures], [image]),
        "sounds": ([text, sounds], [sound]),
        "all": ([text, pictures, sounds], [image, sound]),
    }[kind]
    return {
        "name": kind,
        "data": {"sources": sources, "holdout": 0.02},
        "modalities": modalities,
        "objective": {"kind": "mixed"} if modalities else {"kind": "next_token"},
        "model": {"width": width, "depth": depth, "context": length, "vocab_size": 4096},
        "train": {
            "steps": steps,
            "batch_size": rows,
            "sequence_length": length,
            "device": "cpu",
            "dtype": "fp32",
            "eval_every": 0,
        },
    }


def base_folder(root: Path, kind: str) -> Path:
    """A base like ViT or like Whisper, of a few million weights, and rows for it."""
    if kind == "whisper":
        import onebase
        from tests.formats.speech import speech_folder

        sizes = {"d_model": 256, "encoder_layers": 4, "decoder_layers": 4}
        wide = {"encoder_ffn_dim": 1024, "decoder_ffn_dim": 1024, "max_source_positions": 200}
        speech_folder(root / "source", **sizes, **wide)
        onebase.import_base(root / "source", root / "base")
        rows = [{"audio": f"in/sounds/{i}.wav", "text": "the quick fox"} for i in range(64)]
    else:
        from onebase.base.config import image_base
        from onebase.base.folder import LoadedBase, save_base
        from onebase.base.model import BaseModel

        model = BaseModel(image_base(64, 8, width=256, depth=6))
        model.reset(0)
        save_base(root / "base", LoadedBase(model.eval(), None))
        rows = [{"image": f"in/pictures/{i}.png", "label": "ab"[i % 2]} for i in range(64)]
    (root / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return root


HOW: dict[str, dict[str, Any]] = {
    "whisper": {"task": "transcribe", "method": "full", "language": "en", "batch_size": 8, "epochs": 1},
    "vit": {"task": "classify", "method": "full", "batch_size": 32, "epochs": 2},
}


def adapted(kind: str, root: Path, *, dry: bool) -> dict[str, Any]:
    """The plan of an adaptation, or how it went: seconds of a step and the peak since before the first."""
    import torch

    import onebase
    from onebase.train.callbacks import NoCallback, StepInfo
    from onebase.train.memory import forget_peak, held, most_held

    base, cpu = onebase.load(root / "base", device="cpu", dtype="fp32"), torch.device("cpu")
    if dry:
        return dict(base.plan_adapt(root / "rows.jsonl", **HOW[kind]).facts)
    before, peaks, times = list[int](), list[int](), list[float]()

    class Watch(NoCallback):
        def start(self, step: int, total: int | None) -> None:
            forget_peak(cpu)
            before.append(held(cpu))

        def step(self, info: StepInfo) -> None:
            peaks.append(most_held(cpu))
            times.append(info.seconds)

    base.adapt(root / "rows.jsonl", callbacks=[Watch()], **HOW[kind])
    seconds = [b - a for a, b in itertools.pairwise(times)]
    return {"step_seconds": statistics.median(seconds), "peak_bytes": max(peaks) - before[0]}


def said(what: str, asked: dict[str, Any], out: Path) -> dict[str, Any]:
    """What a fresh process says of a recipe: `plan`, or `run`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(json.dumps(asked))
    return spoken(what, str(out / "recipe.json"), str(out / what))


def spoken(*words: str) -> dict[str, Any]:
    """The last line of a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, *words], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def ran(asked: dict[str, Any], out: Path) -> dict[str, Any]:
    """Run the recipe: seconds and tokens a second of a step without the first two, and the peak of its steps above what was there before the model."""
    import torch

    from onebase import config as configs
    from onebase.pretraining import run
    from onebase.pretraining.recipe import Recipe
    from onebase.train.callbacks import NoCallback, StepInfo
    from onebase.train.memory import held, most_held

    cpu = torch.device("cpu")
    before, peaks, infos = list[int](), list[int](), list[StepInfo]()

    class Model(run.BaseModel):  # type: ignore[name-defined,misc]
        def __init__(self, *given: Any) -> None:
            before.append(held(cpu))
            super().__init__(*given)

    class Watch(NoCallback):
        def step(self, info: StepInfo) -> None:
            peaks.append(most_held(cpu))
            infos.append(info)

    run.BaseModel = Model  # type: ignore[attr-defined]
    run.run_recipe(configs.from_dict(Recipe, asked, "recipe"), out, callbacks=[Watch()])
    seconds = [b.seconds - a.seconds for a, b in itertools.pairwise(infos)]
    tokens = [b.tokens - a.tokens for a, b in itertools.pairwise(infos)]
    return {
        "step_seconds": statistics.median(seconds[1:]),
        "tokens_per_second": sum(tokens[1:]) / sum(seconds[1:]),
        "tokens_per_step": statistics.mean(tokens),
        "peak_bytes": max(peaks) - before[0],
        "before_bytes": before[0],
    }


def planned(asked: dict[str, Any]) -> dict[str, Any]:
    """The facts of the plan."""
    from onebase import config as configs
    from onebase.pretraining.planning import plan_recipe
    from onebase.pretraining.recipe import Recipe

    plan = plan_recipe(configs.from_dict(Recipe, asked, "recipe"))
    print(plan.text)
    return dict(plan.facts)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    what, about, folder = sys.argv[1:]
    if what in ("adapt", "dry-run"):
        print(json.dumps(adapted(about, Path(folder), dry=what == "dry-run")))
    else:
        given = json.loads(Path(about).read_text())
        print(json.dumps(planned(given) if what == "plan" else ran(given, Path(folder))))
