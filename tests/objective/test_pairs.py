"""Contrastive pretraining of pictures and captions: its batch, its gradient in chunks and on two processes, its pictures."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from onebase.base.config import TextShape
from onebase.base.model import BaseModel
from onebase.base.pair_config import ImageShape, pair_base
from onebase.data.captions import content
from onebase.data.order import Row
from onebase.data.sources import MediaFile
from onebase.draws import Draws
from onebase.modality.image.augment import Augment, augmented
from onebase.modality.text.sample import Media, Tokens
from onebase.objective.image_text import pair_loss
from onebase.objective.pairs import CaptionPairs, ended, pair_vectors, the_link

END, LENGTH = 1, 12
ROOT = Path(__file__).parents[2]


def files(count: int) -> dict[str, MediaFile]:
    """Pictures of coloured noise by their hash."""
    found = {}
    for i in range(count):
        noise = np.random.default_rng(i).integers(0, 256, (4, 5, 3), np.uint8)
        data = BytesIO()
        Image.fromarray(noise).resize((20, 16), 3).save(data, "PNG")
        file = MediaFile("image", data.getvalue(), f"{i}.png")
        found[file.digest] = file
    return found


def small(loss: Literal["softmax", "sigmoid"] = "softmax") -> BaseModel:
    """Two tiny towers whose blocks are not the identity."""
    text = TextShape(width=16, depth=1, head_dim=8, context=LENGTH, vocab_size=40, zero_out=False)
    image = ImageShape(width=16, depth=1, head_dim=8, size=8, patch=4)
    model = BaseModel(pair_base(text, image, width=8, shift=loss == "sigmoid", end=END))
    model.reset(0)
    return model


def given(model: BaseModel, count: int = 8, **changes: Any) -> tuple[CaptionPairs, list[Row]]:
    """An objective, and pairs; the last has the caption of the first, and the picture of the second."""
    known = files(count)
    objective = CaptionPairs(LENGTH, END, model.cfg.image, known.__getitem__, Augment())
    rng, rows = np.random.default_rng(0), list[Row]()
    names = [*list(known)[:-1], list(known)[1]]
    for i, digest in enumerate(names):
        ids = np.array([0, *rng.integers(2, 40, 1 + i % 5), END], np.int32)
        media = Media("image", 0, content(digest, model.cfg.image, known.__getitem__), opening=0)
        rows.append((Tokens(ids, np.ones(len(ids), bool), str(i), "s", media=(media,)),))
    rows[-1] = (replace(rows[-1][0], ids=rows[0][0].ids),)
    return replace(objective, **changes), rows


def gradients(
    model: BaseModel, objective: CaptionPairs, rows: list[Row]
) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    nats, n = objective.losses(model, objective.batch(rows, 0))["contrastive"]
    (nats / n).backward()
    return float(nats.detach()), {
        k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_chunks_change_nothing(loss: Any) -> None:
    model = small(loss).double()
    model.compute_dtype = torch.float64
    objective, rows = given(model)
    wanted, grads = gradients(model, objective, rows)
    assert {k for k, _ in model.named_parameters()} == grads.keys(), "everything learns"
    assert ("links.image_text.shift" in grads) == (loss == "sigmoid")
    for chunk in (3, 1):
        again, found = gradients(model, replace(objective, chunk=chunk), rows)
        assert again == pytest.approx(wanted, abs=1e-5)
        for name, g in grads.items():
            torch.testing.assert_close(found[name], g, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_loss_is_that_of_each_pair_alone() -> None:
    """Packed captions have the vectors of captions read one by one; same captions and same pictures are no negatives."""
    model = small()
    objective, rows = given(model, augment=None)
    batch = objective.batch(rows, 0)
    assert len(batch.inputs["text 0"].ids_BT) < len(rows), "captions share rows"
    alone = []
    for row in rows:
        one = objective.batch([row], 0)
        alone.append(
            pair_vectors(model, one.inputs["image 0"].ids_BT, one.inputs["text 0"], one.targets["last 0"])
        )
    image, text = (torch.cat(side) for side in zip(*alone, strict=True))
    z = the_link(model).scores(image, text)
    twin = torch.zeros(8, 8, dtype=torch.bool)
    twin[7, [0, 1]] = twin[[0, 1], 7] = True
    wanted = pair_loss(z, z, twin, 0, False)
    torch.testing.assert_close(objective.losses(model, batch)["contrastive"][0], wanted, atol=1e-4, rtol=0)
    assert float(pair_loss(z, z, twin | True, 0, False)) == 0.0


def test_a_batch_depends_on_the_number_of_its_rows_alone() -> None:
    model = small()
    objective, rows = given(model)
    both, last = objective.batch(rows, 16), objective.batch(rows[4:], 20)
    assert torch.equal(both.inputs["image 0"].ids_BT[4:], last.inputs["image 0"].ids_BT)
    other = objective.batch(rows, 17).inputs["image 0"].ids_BT
    assert not torch.equal(both.inputs["image 0"].ids_BT, other), (
        "each time a picture is read it is another crop"
    )


def test_captions_end() -> None:
    long = np.arange(20, dtype=np.int32)
    assert ended(long[:12], 12, END).tolist() == [*range(11), END]
    assert ended(np.array([0, 5, END]), 12, END).tolist() == [0, 5, END]


def test_pictures_change_little() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    assert augmented(picture, Augment(crop=1.0, colour=0.0), Draws(0)) is picture
    for i in range(20):
        found = augmented(picture, Augment(crop=0.5, colour=0.0), Draws(i))
        assert 0.45 <= found.size[0] * found.size[1] / 2400 <= 1
        assert found.size[0] / found.size[1] == pytest.approx(1.5, abs=0.06)
    changed = augmented(picture, Augment(crop=1.0, colour=0.1), Draws(3))
    difference = np.abs(np.asarray(changed, int) - np.asarray(picture, int)).mean()
    assert 0 < difference < 25


@pytest.mark.slow
@pytest.mark.parametrize("chunk", ["0", "3"])
def test_two_processes_give_the_gradient_of_one(chunk: str, tmp_path: Path) -> None:
    """Negatives of both: each has half of the pairs, the loss is that of the whole batch at every step, and the base is the same."""
    program = [str(ROOT / "tests/objective/pairs_program.py")]
    found = {}
    for ranks in (1, 2):
        out = tmp_path / str(ranks)
        start = (
            ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
        )
        done = subprocess.run(
            [sys.executable, *start, *program, str(out), chunk],
            env=os.environ
            | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found[ranks] = {
            "losses": json.loads((out / "losses.json").read_text()),
            "state": load_file(out / "end.safetensors"),
        }
    assert found[1]["losses"] == pytest.approx(found[2]["losses"], abs=1e-4)
    assert found[1]["losses"][-1] < found[1]["losses"][0]
    for name, tensor in found[1]["state"].items():
        torch.testing.assert_close(found[2]["state"][name].reshape(tensor.shape), tensor, atol=2e-4, rtol=0)
