"""Masks from prompts: the losses against sums by hand, and prompts that are drawn from a mask."""

import numpy as np
import pytest
import torch

from onebase.base.masks import BESIDE, FIRST, LAST, OBJECT
from onebase.draws import Draws
from onebase.objective.segment import central_click, drawn_prompt, mask_losses, overlap, resized


def test_losses_are_the_sums_by_hand() -> None:
    z = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[[0.0, 1, 1], [0, 1, 0.5], [0, 0, 0]], [[0.0] * 3] * 3])
    for b, loss in enumerate(mask_losses(z, mask).tolist()):
        entropy = both = sizes = 0.0
        for y in range(3):
            for x in range(3):
                p, m = 1 / (1 + np.exp(-float(z[b, y, x]))), float(mask[b, y, x])
                entropy -= (m * np.log(p) + (1 - m) * np.log(1 - p)) / 9
                both, sizes = both + p * m, sizes + p + m
        assert loss == pytest.approx(entropy + 1 - (2 * both + 1) / (sizes + 1), abs=1e-5)


def test_overlap() -> None:
    a = torch.tensor([[[1, 1], [0, 0]], [[0, 0], [0, 0]]], dtype=torch.bool)
    b = torch.tensor([[[1, 0], [1, 0]], [[0, 0], [0, 0]]], dtype=torch.bool)
    assert overlap(a, b).tolist() == pytest.approx([1 / 3, 1.0])


def test_drawn_prompts_are_on_the_object_beside_it_and_around_it() -> None:
    mask = np.zeros((20, 30), bool)
    mask[5:12, 8:25] = True
    seen = set()
    for i in range(200):
        prompt = drawn_prompt(mask, Draws(0, i))
        assert prompt == drawn_prompt(mask, Draws(0, i))
        kinds = [k for *_, k in prompt]
        seen.add(tuple(sorted(set(kinds))))
        for x, y, kind in prompt:
            on = mask[min(19, int(y * 20)), min(29, int(x * 30))]
            assert on if kind == OBJECT else kind != BESIDE or not on
        if FIRST in kinds:
            (x0, y0, _), (x1, y1, _) = prompt
            assert abs(x0 - 8 / 30) <= 0.1 * 17 / 30 + 1e-9 and abs(y1 - 12 / 20) <= 0.1 * 7 / 20 + 1e-9
            assert x0 < x1 and y0 < y1
    assert seen == {(OBJECT,), (OBJECT, BESIDE), (FIRST, LAST)}


def test_the_central_click_is_furthest_from_the_edge() -> None:
    mask = np.zeros((21, 40), bool)
    mask[5:8, 2:38] = True  # a thin bar
    mask[3:18, 20:35] = True  # a square of 15 on it
    ((x, y, kind),) = central_click(mask)
    assert (int(x * 40), int(y * 21), kind) == (27, 10, OBJECT)
    one = np.zeros((3, 3), bool)
    one[0, 2] = True
    assert central_click(one) == [(2.5 / 3, 0.5 / 3, OBJECT)]


def test_a_mask_covers_a_share_of_each_pixel() -> None:
    mask = np.zeros((4, 8), bool)
    mask[:2, :5] = True
    wanted = [[1, 1, 0.5, 0], [1, 1, 0.5, 0], [0] * 4, [0] * 4]
    assert np.allclose(np.asarray(resized(mask, 4)), wanted, atol=0.01)
