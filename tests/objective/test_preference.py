"""The losses of preferences: their papers' formulas, one answer at a time; a shared prompt changes nothing, nor does how a step is cut."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from onebase.base.folder import LoadedBase
from onebase.config import from_dict
from onebase.errors import ConfigError
from onebase.methods.soft import inject as inject_soft
from onebase.modality.text.rows import TokenRows
from onebase.modality.text.sample import Tokens
from onebase.model.proj import AdapterRouting
from onebase.objective.preference import PreferConfig, Preference, laid_out, row_tokens, shared
from tests.helpers import add_lora, tiny_base

PROMPTS = (
    "Is it so",
    "def add",
    "The quick brown fox jumps",
    "And this",
    "A question",
    "No",
    "Is it a dog",
    "return",
)
CHOSEN = (" Yes, it is.", "(a, b)", " over the lazy dog", "? No.", "!", " brown", " so", " a + b so it is a")
REJECTED = (" No.", " fox fox fox", " so", "? Yes, it is a dog.", " Yes, and this", " a", "?", " brown fox")


def text(base: LoadedBase, prompt: str, answer: str, name: str) -> Tokens:
    tok = base.codec.tokenizer
    before, after = tok.encode(prompt, bos=True), [*tok.encode(answer), tok.eos]
    ids = np.asarray([*before, *after], np.int32)
    return Tokens(ids, np.arange(len(ids)) >= len(before), name, "pairs")


def rows(base: LoadedBase, others: bool = False, n: int = 8) -> list[list[Tokens]]:
    out = []
    for i in range(n):
        answers = [CHOSEN[i], REJECTED[i]] + ([CHOSEN[i - 1], REJECTED[i - 1]] if others else [])
        out.append([text(base, PROMPTS[i], a, f"{i} {k}") for k, a in enumerate(answers)])
    return out


def exact_base(**shape: Any) -> LoadedBase:
    base = tiny_base(**shape)
    base.model.double()
    base.model.compute_dtype = torch.float64
    return base


def made(base: LoadedBase, cfg: PreferConfig, given: list[list[Tokens]], **more: Any) -> Preference:
    """The objective with a reference that is near to what the base says, and not the same."""
    found = Preference(cfg, **more)
    if not cfg.referred:
        return found
    noise = np.random.default_rng(0)
    with torch.no_grad():
        texts = {t.id: float(alone(base, t, more.get("routing"))) for row in given for t in row}
    return replace(found, reference={k: v + noise.normal(0, 3) for k, v in texts.items()})


def alone(base: LoadedBase, t: Tokens, routing: AdapterRouting | None = None) -> Tensor:
    """log p of an answer from the logits of that text alone."""
    ids = torch.tensor(t.ids.astype("int64"))
    ends, h_TD = base.model.text, base.model.hidden(ids[None], routing=routing).hidden[0]
    weight_VD = ends.head_weight_VD  # not `logits`, which are fp32
    for name in (n for n, _ in routing.groups if n in ends.deltas) if routing else ():
        rows = ends.deltas[name]
        assert isinstance(rows, TokenRows)
        weight_VD = weight_VD.index_add(0, rows.ids_K, rows.head_KD.to(weight_VD.dtype))
    z_TV = h_TD @ weight_VD.T
    logp = (ends.cfg.softcap * torch.tanh(z_TV / ends.cfg.softcap)).log_softmax(-1)
    return logp[:-1].gather(-1, ids[1:, None])[:, 0][torch.from_numpy(t.loss[1:])].sum()


def formula(
    base: LoadedBase,
    row: list[Tokens],
    cfg: PreferConfig,
    ref: Any,
    z0: float,
    routing: AdapterRouting | None,
) -> Tensor:
    """One pair's loss as the papers write it."""
    w, lose = (alone(base, t, routing) for t in row[:2])
    size_w, size_l = (int(t.loss.sum()) for t in row[:2])
    if cfg.loss == "orpo":  # equations 4 to 7, P(y|x) being the geometric mean over the tokens
        p_w, p_l = (w / size_w).exp(), (lose / size_l).exp()
        ratio = (p_w / (1 - p_w)) / (p_l / (1 - p_l))
        return -p_w.log() - cfg.beta * torch.sigmoid(ratio.log()).log()
    r_w, r_l = w - ref[row[0].id], lose - ref[row[1].id]
    if cfg.loss == "dpo":  # equation 7; with smoothing both orders, each at its share
        p = torch.sigmoid(cfg.beta * r_w - cfg.beta * r_l)
        return -(1 - cfg.smoothing) * p.log() - cfg.smoothing * (1 - p).log()
    if cfg.loss == "ipo":  # equation 17, with means in the place of sums
        return (r_w / size_w - r_l / size_l - 1 / (2 * cfg.beta)) ** 2
    v_w, v_l = torch.sigmoid(cfg.beta * (r_w - z0)), torch.sigmoid(cfg.beta * (z0 - r_l))  # equation 8
    return ((1 - v_w) + (1 - v_l)) / 2


CONFIGS = [
    PreferConfig(),
    PreferConfig(beta=0.5, smoothing=0.2),
    PreferConfig(loss="ipo", beta=0.3),
    PreferConfig(loss="kto", beta=0.2),
    PreferConfig(loss="orpo", beta=0.7),
]


def gradients(base: LoadedBase, loss: Tensor) -> dict[str, Tensor]:
    base.model.zero_grad()
    loss.backward()
    return {k: p.grad.clone() for k, p in base.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("cfg", CONFIGS, ids=str)
def test_loss_and_gradient_are_the_formula(cfg: PreferConfig, routing: bool) -> None:
    """8 pairs, all weights learning, and those of an adapter with rows of tokens: within 5e-6 of the largest number; in fp64, but for the
    norms, which are fp32 and round anew."""
    base = exact_base()
    on = AdapterRouting.all_rows("a") if routing else None
    if routing:
        add_lora(base, "a")
        base.model.double()
    base.model.requires_grad_(True)
    given = rows(base, cfg.loss == "kto")
    objective = made(base, cfg, given, routing=on)
    z0 = 0.0
    if cfg.loss == "kto":
        with torch.no_grad():
            away = [float(alone(base, t, on)) - objective.reference[t.id] for row in given for t in row[2:]]
        z0 = max(0.0, sum(away) / len(away))
        assert z0 > 0, "the case says nothing of the reference point"
    want = sum(
        (formula(base, row, cfg, objective.reference, z0, on) for row in given),
        torch.zeros((), dtype=torch.float64),
    )
    total, count = objective.losses(base.model, objective.batch(given, 0))[cfg.loss]
    assert count == 8
    torch.testing.assert_close(total, want, atol=0, rtol=1e-6)
    wanted, found = gradients(base, want / 8), gradients(base, total / 8)
    assert found.keys() == wanted.keys()
    largest = max(float(g.abs().max()) for g in wanted.values())
    assert largest > 1e-3
    for k, g in wanted.items():
        torch.testing.assert_close(found[k], g, atol=5e-6 * largest, rtol=0)


@torch.no_grad()
def test_the_reference_point_of_kto_is_at_least_0() -> None:
    """Where answers of other prompts have become less likely, the loss is that of a reference point of 0."""
    base, cfg = exact_base(), PreferConfig(loss="kto")
    given = rows(base, others=True)
    near = made(base, cfg, given)
    away = {
        k: v + 30 * (k[-1] in "23") for k, v in near.reference.items()
    }  # the third and fourth text of a row
    objective = replace(near, reference=away)
    want = sum(float(formula(base, row, cfg, away, 0.0, None)) for row in given)
    total, _ = objective.losses(base.model, objective.batch(given, 0))["kto"]
    assert float(total) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("cfg", CONFIGS, ids=str)
def test_gradient_does_not_depend_on_how_a_step_is_cut(cfg: PreferConfig) -> None:
    """1 x 8, 2 x 4 and 8 x 1 pairs: the same within 1e-6. KTO takes the step whole, for its reference point is a mean over it, and reads it
    in chunks."""
    base = exact_base()
    base.model.requires_grad_(True)
    given = rows(base, cfg.loss == "kto")
    objective = made(base, cfg, given, tokens=10**6)
    batch = objective.batch(given, 0)
    whole, _ = objective.losses(base.model, batch)[cfg.loss]
    wanted = gradients(base, whole / 8)
    for n in (4, 1):
        if objective.whole_step:
            parts = replace(objective, tokens=n * max(row_tokens(r[:2]) for r in given))
            cut = parts.batch(given, 0)
            assert sum(k.startswith("own") for k in cut.inputs) == 8 // n
            total, _ = parts.losses(base.model, cut)[cfg.loss]
        else:
            sums = [
                objective.losses(base.model, objective.batch(given[i : i + n], i))[cfg.loss]
                for i in range(0, 8, n)
            ]
            assert [c for _, c in sums] == [n] * (8 // n)
            total = torch.stack([s for s, _ in sums]).sum()
        found = gradients(base, total / 8)
        assert found.keys() == wanted.keys()
        for k, g in wanted.items():
            torch.testing.assert_close(found[k], g, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [{}, {"window": 4, "window_every": 2}, {"tied": True}], ids=str)
@pytest.mark.parametrize("packs", [True, False])
@torch.no_grad()
def test_one_prompt_for_two_answers_changes_nothing(packs: bool, shape: dict[str, Any]) -> None:
    base = exact_base(**shape)
    given = rows(base)
    objective = Preference(PreferConfig(), packs=packs)
    batch = objective.batch(given, 0)
    read = batch.inputs["own 0"]
    assert int((read.cols.doc >= 0).sum()) < sum(len(t) for r in given for t in r), "nothing is shared"
    assert (len(read.ids_BT) < 8) == packs
    want = torch.stack([torch.stack([alone(base, t) for t in r]) for r in given])
    torch.testing.assert_close(objective.logps(base.model, batch, "own"), want, atol=1e-5, rtol=0)


@torch.no_grad()
def test_what_leads_stands_before_both_answers() -> None:
    """A soft prompt before the shared beginning is seen by both, as before each text alone."""
    base = exact_base()
    inject_soft(base.model, "s", torch.tensor([9, 40, 41]))
    base.model.double()
    on, given = AdapterRouting.all_rows("s"), rows(base)
    objective = Preference(PreferConfig(), routing=on, packs=False)
    want = torch.stack([torch.stack([alone(base, t, on) for t in r]) for r in given])
    got = objective.logps(base.model, objective.batch(given, 0), "own")
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    assert not torch.allclose(
        got, replace(objective, routing=None).logps(base.model, objective.batch(given, 0), "own")
    )


def test_what_is_shared() -> None:
    """All of the prompt but its last token, which predicts another answer in each; less where the texts differ before."""
    base = tiny_base()
    row = rows(base)[0]
    prompt = int(row[0].loss.argmax())
    assert shared(row) == prompt - 1 and row_tokens(row) == len(row[0]) + len(row[1]) - prompt + 1
    ids = row[1].ids.copy()
    ids[2] += 1
    assert shared([row[0], replace(row[1], ids=ids)]) == 2
    short = Tokens(np.array([5, 6], np.int32), np.array([False, True]))
    assert shared([short, short]) == 0
    ((read, targets, owner),) = laid_out([row], True)
    for k, t in enumerate(row):
        mine = (targets != -100) & (owner == k)
        assert targets[mine].tolist() == t.ids[t.loss].tolist()
    assert read.ids_BT.shape == (1, row_tokens(row))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"beta": 0}, "prefer.beta is 0"),
        ({"beta": math.nan}, "prefer.beta is nan"),
        ({"smoothing": 0.5}, "from 0 to below 0.5"),
        ({"smoothing": -0.1}, "from 0 to below 0.5"),
        ({"loss": "ipo", "smoothing": 0.1}, "only dpo has smoothing"),
        ({"loss": "ppo"}, "ppo"),
        ({"bet": 0.1}, "beta"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        from_dict(PreferConfig, wrong, "prefer")
