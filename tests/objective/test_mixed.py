"""Text and media learnt in one row: what a batch holds, what each loss counts, and eight pairs learnt by heart both ways."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from onebase.base.config import base_parameters
from onebase.base.model import BaseModel
from onebase.data.order import ExampleOrder
from onebase.data.tokens import TokenSet
from onebase.engine.drawing import Drawing, drawn
from onebase.errors import ConfigError, DataError, UserError
from onebase.modality.patches.pictures import grid
from onebase.model.mask import mixed
from onebase.objective.mixed import BESIDE, FlowConfig, Mixed, generated, unprompted
from onebase.train.config import TrainConfig
from onebase.train.loop import Job, run
from tests.objective.media_rows import (
    BOS,
    CLOSE,
    END,
    OPEN,
    PATCH,
    PLAIN,
    caption,
    drawn_row,
    model,
    native,
    patches,
    picture,
    read_row,
    sound_row,
    text_row,
)


def test_a_batch_holds_each_kind_in_its_place() -> None:
    base = model()
    found = Mixed.of(base, 20, PLAIN).batch([[read_row(0), text_row()], [drawn_row(1)]], 0)
    read = found.inputs["text"]
    assert read.mask == mixed() and read.cols.noisy is not None and read.cols.kind is not None
    assert read.cols.pos[0].tolist()[:16] == [0, 1, 2, 2, 2, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5]
    assert read.cols.doc[0].tolist() == [0] * 10 + [1] * 6 + [-1] * 4
    assert read.cols.kind[0].tolist()[:10] == [0, 0, 1, 1, 1, 1, 0, 0, 0, 0]
    assert not read.cols.noisy[0].any() and read.cols.noisy[1].nonzero()[:, 0].tolist() == [4, 5, 6, 7]
    media = read.media["image_patches"]
    assert media.place_N.tolist() == [2, 3, 4, 5, 24, 25, 26, 27]
    assert media.t_N[:4].tolist() == [1.0] * 4 and 0 < float(media.t_N[4]) < 1
    assert torch.equal(media.patch_NP[:4], patches(0))
    assert found.counts == {"next_token": 8, "flow.image_patches": 4, "flow.sound_patches": 0}
    assert found.tokens == 25


def test_text_beside_media_may_be_a_loss_of_its_own() -> None:
    base = model()
    rows = [[read_row(0), text_row()], [drawn_row(1), text_row()]]
    together = Mixed.of(base, 20, PLAIN)
    apart = replace(together, beside=2.0)
    one, two = together.batch(rows, 0), apart.batch(rows, 0)
    mixed_in, plain = two.counts[BESIDE], two.counts["next_token"]
    assert plain == 2 * (len(text_row()) - 1) and mixed_in + plain == one.counts["next_token"]
    whole = together.losses(base, one)["next_token"][0]
    parts = apart.losses(base, two)
    torch.testing.assert_close(parts["next_token"][0] + parts[BESIDE][0] / 2, whole)
    alone = apart.batch([[text_row()]], 0)
    total, count = apart.losses(base, alone)[BESIDE]
    assert count == 0 and float(total.detach()) == 0.0


def test_rows_are_noised_alike_in_any_micro_batch() -> None:
    objective = Mixed.of(model(), 12)
    rows = [[drawn_row(i)] for i in range(6)] + [[read_row(i)] for i in range(6)]
    whole = objective.batch(rows, 100).inputs["text"]
    parts = [objective.batch(rows[i : i + 3], 100 + i).inputs["text"] for i in range(0, 12, 3)]
    assert torch.equal(whole.ids_BT, torch.cat([p.ids_BT for p in parts]))
    for name in ("patch_NP", "t_N"):
        found = torch.cat([getattr(p.media["image_patches"], name) for p in parts])
        assert torch.equal(found, getattr(whole.media["image_patches"], name))
    again = objective.batch(rows, 200).inputs["text"].media["image_patches"]
    assert not torch.equal(again.t_N, whole.media["image_patches"].t_N)


def test_a_pair_is_trained_both_ways() -> None:
    base, piece = model(), read_row(1)
    turned = generated(piece)
    assert turned.ids.tolist() == [BOS, *caption(1), OPEN, *[PATCH] * 4, CLOSE, END]
    assert turned.media[0].start == 4 and turned.media[0].noise
    assert turned.loss.tolist() == [False, True, True, True, *[False] * 5, True]
    other = drawn_row(1)
    assert generated(other) is other, "to be generated already"
    alone = generated(replace(piece, ids=piece.ids[:7], loss=piece.loss[:7]))
    assert alone.media[0].noise and alone.ids.tolist() == piece.ids[:7].tolist()
    assert alone.loss.tolist() == [False, True, *[False] * 5], "its opening is predicted"
    batch = Mixed.of(base, 12, replace(PLAIN, generate=0.3)).batch([[piece]] * 100, 0)
    assert batch.inputs["text"].cols.noisy is not None
    assert 18 <= int(batch.inputs["text"].cols.noisy.any(1).sum()) <= 42
    row = int(batch.inputs["text"].cols.noisy.any(1).nonzero()[0])
    assert batch.inputs["text"].ids_BT[row, :10].tolist() == turned.ids.tolist()


def test_other_pictures_are_another_order_and_no_token_set() -> None:
    rows = [(read_row(i),) for i in range(3)]
    media = replace(rows[0][0].media[0], content=replace(picture(7, False, 2).content, digest="other"))
    changed = [(replace(rows[0][0], media=(media,)),), *rows[1:]]
    assert ExampleOrder(rows, 2).digest != ExampleOrder(changed, 2).digest
    with pytest.raises(DataError, match="room for ids alone"):
        TokenSet.from_tokens([row[0] for row in rows])


def test_without_a_prompt_the_opening_stays() -> None:
    piece = drawn_row(2)
    found = unprompted(piece, piece.media[0])
    assert found.ids.tolist() == [BOS, OPEN, *[PATCH] * 4, CLOSE] and found.media[0].start == 2
    assert unprompted(found, found.media[0]) is found
    always = Mixed.of(model(), 12, FlowConfig(generate=0.0, drop=1.0)).batch([[piece]], 0)
    assert always.inputs["text"].ids_BT[0, :3].tolist() == [BOS, OPEN, PATCH]


@pytest.mark.parametrize("rows", ["text", "read", "drawn", "sound"])
def test_what_is_absent_has_a_gradient_of_zero(rows: str) -> None:
    base = model(zero_out=False)
    torch.nn.init.normal_(
        base.patches["image_patches"].head.weight
    )  # from zero nothing before it would learn at once
    given = {"text": text_row(), "read": read_row(0), "drawn": drawn_row(0), "sound": sound_row()}[rows]
    objective = Mixed.of(base, 12, PLAIN)
    batch = objective.batch([[given]], 0)
    sum(total for total, _ in objective.losses(base, batch).values()).backward()
    present = {
        "text": {"vision": False, "image": False, "flow": False, "audio": False, "sound": False},
        "read": {"vision": True, "image": True, "flow": False, "audio": False, "sound": False},
        "drawn": {"vision": True, "image": True, "flow": True, "audio": False, "sound": False},
        "sound": {"vision": False, "image": False, "flow": False, "audio": True, "sound": True},
    }[rows]
    for name, where in {
        "vision": "trunks.text.blocks.0.group_ff.vision.up.weight",
        "audio": "trunks.text.blocks.0.group_ff.audio.up.weight",
        "image": "codecs.image_patches.narrow",
        "sound": "codecs.sound_patches.narrow",
        "flow": "codecs.image_patches.head.weight",
    }.items():
        grad = base.get_parameter(where).grad
        assert grad is not None, where
        assert bool(grad.any()) == present[name], name


def test_each_loss_is_a_mean_over_its_own_tokens() -> None:
    base, rows = model(), [[read_row(0), text_row()], [drawn_row(1)], [drawn_row(2)]]
    torch.nn.init.normal_(base.patches["image_patches"].head.weight, std=0.1)
    objective = Mixed.of(base, 20, PLAIN)
    whole = objective.losses(base, objective.batch(rows, 0))
    parts = [objective.losses(base, objective.batch([row], i)) for i, row in enumerate(rows)]
    for name, (total, count) in whole.items():
        torch.testing.assert_close(
            total, torch.stack([p[name][0] for p in parts]).sum(), atol=1e-3, rtol=1e-4
        )
        assert count == sum(p[name][1] for p in parts)
    half = replace(objective, flow=replace(PLAIN, weight=1.5)).losses(base, objective.batch(rows, 0))
    torch.testing.assert_close(2 * half["flow.image_patches"][0], whole["flow.image_patches"][0])


def test_a_clean_patch_reads_alike_where_it_was_made() -> None:
    """At t = 1 the block of a finished picture is that of a picture that is read."""
    base = model().eval()
    seen = Mixed.of(base, 12, PLAIN).batch([[read_row(0)]], 0).inputs["text"]
    made = replace(drawn_row(0), ids=read_row(0).ids, loss=read_row(0).loss, media=(picture(0, True, 2),))
    batch = Mixed.of(base, 12, PLAIN).batch([[made]], 0).inputs["text"]
    media = batch.media["image_patches"]
    done = replace(media, patch_NP=seen.media["image_patches"].patch_NP, t_N=torch.ones(4))
    with torch.no_grad():
        a = base.hidden(seen.ids_BT, seen.cols, mixed(), media=seen.media).hidden[0, 2:6]
        b = base.hidden(batch.ids_BT, batch.cols, mixed(), media={"image_patches": done}).hidden[0, 2:6]
    assert torch.equal(a, b)


def test_configs_and_counts() -> None:
    cfg = native()
    assert base_parameters(cfg) == sum(p.numel() for p in BaseModel(cfg).parameters())
    with pytest.raises(ConfigError, match=r"'vision'\n.*its trunk has: text, audio"):
        replace(cfg, trunks={"text": replace(cfg.trunks["text"], groups=("text", "audio"))})
    with pytest.raises(ConfigError, match="flow.drop is 2"):
        FlowConfig(drop=2)
    with pytest.raises(UserError, match="steps is 0"):
        Drawing(steps=0)


@pytest.fixture(scope="module")
def learnt() -> BaseModel:
    """Eight pairs, both ways, by the loop that learns everything."""
    base = model()
    rows = [(row(i),) for i in range(8) for row in (read_row, drawn_row)]
    train = TrainConfig(steps=400, batch_size=16, sequence_length=12, dtype="fp32", compile=False)
    objective = Mixed.of(base, 12, FlowConfig(damage=0.0, generate=0.0))
    result = run(Job(base, objective, ExampleOrder(rows, 16), train))
    assert np.mean(result.losses[-20:]) < 0.2 * np.mean(result.losses[:5])
    return base.eval()


def test_eight_pairs_are_read(learnt: BaseModel) -> None:
    objective = Mixed.of(learnt, 12, PLAIN)
    read = objective.batch([[read_row(i)] for i in range(8)], 0).inputs["text"]
    with torch.no_grad():
        h_BTD = learnt.hidden(read.ids_BT, read.cols, read.mask, media=read.media).hidden
        guess = learnt.text.logits(h_BTD[:, 6:9]).argmax(-1)
    assert guess.tolist() == [[*caption(i), END] for i in range(8)]


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_eight_pairs_are_drawn(learnt: BaseModel, solver: str) -> None:
    all_8NP = torch.stack([patches(i) for i in range(8)])
    how = Drawing(steps=12, guidance=1.5, solver=solver)  # type: ignore[arg-type]
    hits = 0
    for i in range(8):
        prompt = [BOS, *caption(i), OPEN]
        made_BNP = drawn(learnt, "image_patches", prompt, grid(2, 2), 2, how, unprompted=[BOS, OPEN])
        far_B8 = (made_BNP[:, None] - all_8NP).square().mean((2, 3))
        hits += int((far_B8.argmin(1) == i).sum())
        assert far_B8[:, i].max() < 0.1
        again = drawn(learnt, "image_patches", prompt, grid(2, 2), 1, how, unprompted=[BOS, OPEN])
        torch.testing.assert_close(again[0], made_BNP[0], atol=1e-4, rtol=1e-4)
    assert hits == 16


def test_a_seed_repeats_bitwise_and_known_patches_stay(learnt: BaseModel) -> None:
    prompt, how = [BOS, *caption(3), OPEN], Drawing(steps=6, seed=5)
    first, second = (
        drawn(learnt, "image_patches", prompt, grid(2, 2), 1, how, unprompted=[BOS, OPEN]) for _ in range(2)
    )
    assert torch.equal(first, second)
    other = drawn(learnt, "image_patches", prompt, grid(2, 2), 1, replace(how, seed=6))
    assert not torch.equal(first, other)
    whole_NP = patches(3)
    given = torch.tensor([True, False, True, False])
    filled = drawn(
        learnt, "image_patches", prompt, grid(2, 2), 1, how, known=(whole_NP, given), unprompted=[BOS, OPEN]
    )
    assert torch.equal(filled[0, given], whole_NP[given])
    far_8 = torch.stack([(filled[0, ~given] - patches(i)[~given]).square().mean() for i in range(8)])
    assert int(far_8.argmin()) == 3
    with pytest.raises(UserError, match="the context is 64"):
        drawn(learnt, "image_patches", prompt, grid(8, 8), 1, how)
