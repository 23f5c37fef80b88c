"""Masked language modelling: what is hidden, a recipe from FASTA to a head, and a run that was stopped."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import onebase
from onebase.draws import Draws
from onebase.errors import ConfigError
from onebase.modality.text.residues import ALPHABET, residue_tokenizer
from onebase.modality.text.sample import Tokens
from onebase.modality.text.tokenizer import Tokenizer
from onebase.objective.base import IGNORE
from onebase.objective.masked import Masked, mask_id, ordinary
from onebase.pretraining.objectives import MaskedConfig
from onebase.train.callbacks import NoCallback, StepInfo

TOKENIZER = residue_tokenizer()


def protein(length: int, seed: int = 0) -> str:
    return "".join(random.Random(seed).choices("LAGVSERTIDPKQNFYMHWC", k=length))


def piece(length: int, seed: int = 0) -> Tokens:
    ids = np.asarray(TOKENIZER.encode(protein(length, seed), bos=True, eos=True), np.int32)
    return Tokens(ids, np.arange(len(ids)) > 0)


def objective(**changes: Any) -> Masked:
    return replace(Masked(4096, mask_id(TOKENIZER), ordinary(TOKENIZER)), **changes)


def test_residues_have_the_ids_of_esm() -> None:
    assert len(ALPHABET) == TOKENIZER.vocab_size == 33
    assert TOKENIZER.encode("LAGMX-", bos=True, eos=True) == [0, 4, 5, 6, 20, 24, 30, 2]
    assert mask_id(TOKENIZER) == 32
    assert set(TOKENIZER.encode("l<mask>")) == {3}, "no text becomes a special token"


def test_shares_are_those_of_bert() -> None:
    whole = piece(4000)
    ids, learnt = objective().hide(whole, Draws(0))
    n = learnt.sum()
    assert n / 4000 == pytest.approx(0.15, abs=0.02)
    assert not learnt[[0, -1]].any(), "special tokens are never hidden"
    assert (ids[learnt] == 32).sum() / n == pytest.approx(0.8, abs=0.06)
    kept = (ids[learnt] == whole.ids[learnt]).sum() / n
    assert kept == pytest.approx(0.1, abs=0.05), "the rest is replaced by a random residue"
    assert (ids[~learnt] == whole.ids[~learnt]).all() and set(ids[ids != 32]) <= set(whole.ids) | set(
        ordinary(TOKENIZER)
    )


@pytest.mark.parametrize(("span", "low", "high"), [(1.0, 1.0, 1.4), (3.0, 2.2, 4.2)])
def test_spans_have_their_mean_length_and_share(span: float, low: float, high: float) -> None:
    _, learnt = objective(span=span).hide(piece(4000), Draws(1))
    assert learnt.sum() / 4000 == pytest.approx(0.15, abs=0.02)
    stretches = (np.diff(learnt.astype(int)) == 1).sum()
    assert low <= learnt.sum() / stretches <= high


def test_a_batch_depends_on_the_row_alone() -> None:
    rows = [[piece(30, 1), piece(20, 2)], [piece(40, 3)]]
    both = objective(length=64, span=2.0).batch(rows, 6)
    last = objective(length=64, span=2.0).batch(rows[1:], 7)
    assert torch.equal(both.inputs["text"].ids_BT[1:], last.inputs["text"].ids_BT)
    assert torch.equal(both.targets["masked"][1:], last.targets["masked"])
    assert both.counts["masked"] == int((both.targets["masked"] != IGNORE).sum()) > 0


def test_a_tokenizer_without_a_mask_is_refused() -> None:
    with pytest.raises(ConfigError, match="no mask token"):
        mask_id(Tokenizer.train(["some text"] * 9, 300))


@pytest.mark.parametrize("bad", [{"rate": 0.0}, {"masked": 0.9, "random": 0.2}, {"span": 0.5}])
def test_bad_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        MaskedConfig(**bad)


def recipe(folder: Path) -> dict[str, Any]:
    lines = []
    for i in range(40):
        unit = "AILVAILK" if i % 2 else "GDENGDSR"
        lines.append(f">p{i}\n{(unit * 6)[i % 5 : 24 + i % 5]}{protein(8, i)}\n")
    (folder / "p.fasta").write_text("".join(lines))
    text = f"""
name: proteins
data: {{sources: [{{name: p, kind: fasta, path: {folder / "p.fasta"}, licence: CC0}}], holdout: 0.1}}
tokenizer: {{kind: residues}}
objective: {{kind: masked, span: 2}}
model: {{width: 32, depth: 2, head_dim: 16, context: 64, vocab_size: 33}}
train: {{steps: 30, batch_size: 8, sequence_length: 64, device: cpu, dtype: fp32, eval_every: 10, checkpoint: {{every: 10}}, schedule: {{warmup: 2}}}}
"""
    (folder / "r.yaml").write_text(text)
    return {"recipe": folder / "r.yaml"}


def test_from_fasta_to_a_head(tmp_path: Path) -> None:
    class Ends(NoCallback):
        def step(self, info: StepInfo) -> None:
            if info.step == 14:
                raise KeyboardInterrupt

    path, said = recipe(tmp_path)["recipe"], list[str]()
    base = onebase.pretrain(path, out=tmp_path / "whole", log=said.append)
    with pytest.raises(KeyboardInterrupt):
        onebase.pretrain(path, out=tmp_path / "parts", callbacks=[Ends()])
    assert onebase.pretrain(path, out=tmp_path / "parts").fingerprint == base.fingerprint
    assert base.config.trunks["text"].direction == "both" and base.config.text.vocab_size == 33
    score = base.record.get("scores.heldout_nats_per_masked_token.p")
    assert float(score["value"] if isinstance(score, dict) else score) < np.log(20)
    assert any("«" in line for line in said)
    rows = [
        {"text": ("AILVAILK" if i % 2 else "GDENGDSR") * 3, "label": "a" if i % 2 else "g"} for i in range(16)
    ]
    made = base.adapt(rows, task="classify", method="head")
    made.save(tmp_path / "head")
    on = onebase.load(tmp_path / "whole").with_adapter(tmp_path / "head")
    assert [found.label for found in on.classify(["AILVAILKAIL", "GDENGDSRGDE"])] == ["a", "g"]


def test_a_tokenizer_has_a_path_or_a_kind(tmp_path: Path) -> None:
    path = recipe(tmp_path)["recipe"]
    with pytest.raises(ConfigError, match="path and kind residues"):
        onebase.pretrain(path, out=tmp_path / "x", tokenizer__path="some.json")
