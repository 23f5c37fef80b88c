"""Every recipe in recipes/ is read as it stands, and trained for one step at small sizes, end to end."""

import importlib.util
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import onebase
from onebase import config
from onebase.base.config import base_parameters, text_base
from onebase.pretraining.recipe import Recipe
from onebase.train.callbacks import read_log
from tests.captioned import shapes

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
NAMES = [p.stem for p in RECIPES]


def test_all_recipes_are_here() -> None:
    assert {
        *("tiny", "infill", "portable", "small-cpu", "124m", "bert", "protein", "flow", "clip", "native"),
        *("native-1b", "sam", "vit-mae"),
    } <= set(NAMES)


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipe_says_what_it_is_for(path: Path) -> None:
    recipe = config.load(Recipe, path)
    assert recipe.name == path.stem
    comments = re.findall(r"^# (.+)", path.read_text(encoding="utf-8"), re.M)
    assert len(comments) >= 3
    assert any(f"onebase pretrain recipes/{path.name}" in c for c in comments)


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipe_that_reads_the_clone_finds_its_files(path: Path) -> None:
    """Sources in docs, recipes, src and tests must be there in a fresh clone; data/ and runs/ are the user's."""
    for source in config.load(Recipe, path).data.sources:
        if source.path in ("docs", "recipes", "src", "tests"):
            found = list((ROOT / source.path).glob(source.glob))
            assert found
            assert all(p.stat().st_size for p in found), "an empty file is an error"


@pytest.mark.parametrize(
    ("name", "low", "high"), [("tiny", 0.5e6, 2e6), ("small-cpu", 15e6, 25e6), ("124m", 120e6, 140e6)]
)
def test_sizes_are_what_the_names_promise(name: str, low: float, high: float) -> None:
    recipe = config.load(Recipe, ROOT / "recipes" / f"{name}.yaml")
    assert low < base_parameters(text_base(recipe.model)) < high


def pictures(folder: Path) -> Path:
    """Forty pictures of 16 x 12 pixels."""
    folder.mkdir()
    for i in range(40):
        Image.new("RGB", (16, 12), (5 * i, 200 - i, 90)).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_one_step_end_to_end(path: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for i in range(40):
        (tmp_path / "texts" / f"{i}.txt").write_text(f"Text {i} says: {i * 7919} and no more.\n" * 3)
    recipe = config.load(Recipe, path)
    listed = ("code", "tests", "docs")  # names that infill asks for
    sources = [{"name": n, "kind": "folder", "path": str(tmp_path / "texts")} for n in listed]
    if pairs := recipe.image is not None:
        shapes(tmp_path / "pictures", 40)
        sources = [{"name": "pictures", "kind": "imagefolder", "path": str(tmp_path / "pictures")}]
    if recipe.modalities:
        sources = [{"name": "photos", "kind": "imagefolder", "path": str(pictures(tmp_path / "pictures"))}]
    base = onebase.pretrain(
        path,
        out=tmp_path / "run",
        data__dataset=None,
        data__sources=sources,
        data__holdout=0.1,
        data__repeat={},
        model__width=32,
        model__depth=2,
        model__head_dim=16,
        model__kv_heads=None,
        model__context=64,
        model__vocab_size=300,
        train__minutes=None,
        train__tokens=None,
        train__steps=1,
        train__batch_size=2,
        train__sequence_length=64,
        train__micro_batch=0,
        train__device="cpu",
        train__compile=False,
    )
    assert base.record.get("train.steps") == 1
    assert base.name == path.stem
    assert len(read_log(tmp_path / "run" / "log.jsonl")) == 1
    assert onebase.load(tmp_path / "run").fingerprint == base.fingerprint
    if pairs:
        assert len(base.embed(["Text"])[0]) == base.config.links[0].pair.width
    elif recipe.modalities:
        picture = tmp_path / "pictures" / "0.png"
        if "image" in base.config.codecs:
            assert base.segment(picture, points=[(3, 3)]).masks.shape == (1, 12, 16)
        else:
            assert base.embed_images([picture]).shape == (1, 32)
    elif base.config.trunks["text"].direction == "causal":
        assert base.generate("Text", max_tokens=2) is not None
    else:
        assert len(base.embed(["Text"])[0]) == 32


def test_the_pictures_of_the_flow_recipe_are_those_of_its_example() -> None:
    """recipes/shapes.parquet is what examples/draw_shapes.py makes, but for a palette of 32 colours."""
    spec = importlib.util.spec_from_file_location("draw_shapes", ROOT / "examples" / "draw_shapes.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    rows = pq.read_table(ROOT / "recipes" / "shapes.parquet").to_pylist()
    made = example.pictures(len(rows), 0)
    assert [row["text"] for row in rows] == [text for text, _ in made]
    assert " ".join(example.UNSEEN) not in {text for text, _ in made}
    for row, (_, image) in list(zip(rows, made, strict=True))[::40]:
        kept = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"), np.int16)
        assert np.abs(kept - np.asarray(image, np.int16)).max() <= 8


@pytest.mark.slow
def test_two_processes_train_a_recipe_end_to_end(tmp_path: Path) -> None:
    """torchrun with scores and checkpoints on the way gives the curve of one process, and one base."""
    (tmp_path / "texts").mkdir()
    for i in range(40):
        (tmp_path / "texts" / f"{i}.txt").write_text(f"Text {i} says: {i * 7919} and no more.\n" * 3)
    overrides = [
        f"data.sources=[{{name: a, kind: folder, path: {tmp_path / 'texts'}}}]",
        "data.holdout=0.3",
        "model={width: 32, depth: 2, head_dim: 16, context: 64, vocab_size: 300}",
        "train={steps: 4, batch_size: 4, sequence_length: 64, device: cpu, dtype: fp32, eval_every: 2, checkpoint: {every: 2}}",
    ]
    logs = []
    for ranks in (1, 2):
        out = tmp_path / f"ranks-{ranks}"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"),
                *(
                    "-m",
                    "onebase.cli",
                    "pretrain",
                    str(ROOT / "recipes" / "tiny.yaml"),
                    *overrides,
                    "--out",
                    str(out),
                ),
            ],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("base: ") == 1, "one process speaks for all"
        logs.append(read_log(out / "log.jsonl"))
    one, two = logs
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], abs=2e-3)
    name = "heldout_bits_per_byte/a"
    assert [line[name] for line in two if name in line] == pytest.approx(
        [line[name] for line in one if name in line], abs=5e-3
    )
    assert sum(name in line for line in one) == 2
