"""Task contacts: a tiny protein base learns which residues touch, by the head alone, LoRA and all weights; its scores, commands and bad rows."""

import json
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import onebase
from onebase.api.base import Adapter, Base
from onebase.base.head import HeadConfig
from onebase.base.pairs import CLASSES, PairHead, separation_classes
from onebase.cli import app
from onebase.data.structures import read_structure
from onebase.engine.distances import residue_tokens
from onebase.errors import ConfigError, DataError, UserError
from onebase.objective.base import IGNORE
from onebase.objective.structure import PairDistances, separation_counts
from onebase.tasks.contacts import EDGES, bins_of
from onebase.tasks.table import TASKS
from tests.engine.test_contacts import pdb
from tests.residues import esm


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    pytest.importorskip("transformers")
    return onebase.load(esm(tmp_path_factory.mktemp("esm")))


def proteins(count: int, seed: int) -> list[dict[str, Any]]:
    """Sequences in which tryptophans touch each other and nothing else does, wherever they are."""
    draw, rows = random.Random(seed), []
    for _ in range(count):
        residues = draw.choices("AGLKSE", k=draw.randint(44, 60))
        for i in draw.sample(range(len(residues)), 12):
            residues[i] = "W"
        at = [i for i, r in enumerate(residues) if r == "W"]
        contacts = [[a, b] for a in at for b in at if b - a >= 6]
        rows.append({"sequence": "".join(residues), "contacts": contacts})
    return rows


@pytest.mark.parametrize(("method", "lr"), [("head", 2e-2), ("lora", 1e-2), ("soft", 1e-2), ("full", 3e-3)])
def test_contacts_are_learnt(method: str, lr: float, base: Base, tmp_path: Path) -> None:
    train, test = proteins(12, 0), proteins(6, 1)
    more = {"virtual": 2} if method == "soft" else {}
    adapter = base.adapt(train, task="contacts", method=method, lr=lr, epochs=30, batch_size=4, **more)
    adapter.save(tmp_path / "adapter")
    on = base.with_adapter(Adapter.load(tmp_path / "adapter"))
    found = onebase.evaluate(on, test)
    assert found["long_range_precision"].value > 0.9 and found["long_range_precision"].n == 6
    assert found["long_range_chance"].value < 0.15
    sequence = test[0]["sequence"]
    map_LL = on.contacts(sequence)
    assert map_LL.shape == (len(sequence),) * 2 and torch.equal(map_LL, map_LL.T)
    task = TASKS["contacts"]
    assert task.answer is not None
    (shown,) = task.answer(on, [sequence])
    (i, j, p), *_ = shown.fields["contacts"]
    assert sequence[i] == sequence[j] == "W" and p == pytest.approx(float(map_LL[i, j]), abs=1e-4)
    assert len(shown.fields["contacts"]) == len(sequence)
    assert not torch.allclose(
        base.contacts(sequence), map_LL, atol=1e-2
    )  # the base has a regression of its own
    with pytest.raises(UserError, match="no regression of contacts, and no adapter"):
        Base(replace(base.loaded, contacts=None)).contacts(sequence)


def test_structures_are_learnt_as_distances(base: Base, tmp_path: Path) -> None:
    """Nine edges, ten bins; what the file leaves out is not learnt; the record has hashes and no paths."""
    rows = []
    for n in range(4):
        names = ["MET", "GLY", "LYS", "TRP"] * 8 + ["ALA"] * n
        text = pdb(names).replace(f"{3.8 * 30:8.3f}", f"{3.8 * 3:8.3f}")  # residue 30 lies beside residue 3
        (tmp_path / f"{n}.pdb").write_text(text)
        rows.append({"structure": f"{n}.pdb"})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    adapter = base.adapt(tmp_path / "rows.jsonl", task="contacts", method="head", epochs=2)
    assert adapter.record.get("config.adapter")["head"]["bins"] == list(EDGES)
    assert adapter.record.get("data.contacts") > 0 and adapter.record.get("data.residues") == 134
    on = base.with_adapter(adapter)
    found = onebase.evaluate(on, tmp_path / "rows.jsonl")
    assert 0 <= found["long_range_precision"].value <= 1
    with pytest.raises(UserError, match="gives contacts has no place"):
        on.export(tmp_path / "hf")
    distances = read_structure(tmp_path / "0.pdb").distances
    distances[0] = np.nan
    bins = bins_of(distances, EDGES)
    assert (bins[0] == IGNORE).all() and bins[3, 5] == IGNORE and (bins == bins.T).all()
    assert bins[2, 29] == 0 and bins[10, 31] == len(EDGES)


def test_the_loss_is_that_of_the_pairs_alone(base: Base) -> None:
    """In a padded batch as alone; a new head predicts what the separation does."""
    train, generator = proteins(3, 2), torch.Generator().manual_seed(0)
    bins = [np.full((len(r["sequence"]),) * 2, IGNORE, np.int8) for r in train]
    for row, known in zip(train, bins, strict=True):
        i, j = np.triu_indices(len(known), 6)
        known[i, j] = known[j, i] = 1
        for a, b in row["contacts"]:
            known[a, b] = known[b, a] = 0
    counts = separation_counts(bins, [separation_classes(len(x)) for x in bins], 2, CLASSES)
    assert counts.sum() == sum((x != IGNORE).sum() for x in bins)
    head = PairHead(32, 2)
    head.reset(generator, counts)
    z_CLL = head.pairs(torch.randn(1, 44, 32))[0]
    seen = counts[separation_classes(44)[0, 20]]
    assert float(z_CLL.detach().softmax(0)[0, 0, 20]) == pytest.approx(float(seen[0] / seen.sum()), abs=0.05)
    torch.nn.init.normal_(head.product_CR, generator=generator)
    model = base.loaded.model
    model.heads["test"] = head
    try:
        texts = [replace(residue_tokens(base.loaded, r["sequence"]), id=str(n)) for n, r in enumerate(train)]
        objective = PairDistances("test", {str(n): x for n, x in enumerate(bins)})
        with torch.no_grad():
            alone = [objective.losses(model, objective.batch([[t]], 0))["distance"] for t in texts]
            both = objective.losses(model, objective.batch([[t] for t in texts], 0))["distance"]
        assert both[1] == sum(n for _, n in alone) > 1000
        torch.testing.assert_close(both[0], torch.stack([s for s, _ in alone]).sum(), rtol=1e-4, atol=1e-3)
        z = head.pairs(torch.randn(2, 9, 32, generator=generator))
        torch.testing.assert_close(z, z.transpose(2, 3))
    finally:
        del model.heads["test"]


def test_bad_rows_are_named(base: Base, tmp_path: Path) -> None:
    good = proteins(1, 0)[0]
    for change, what in (
        ({"contacts": [[0, 99]]}, r"\[0, 99\] is no pair of the"),
        ({"contacts": [[3, 3]]}, "is no pair"),
        ({"contacts": 3}, "'contacts' is int"),
        ({"sequence": "A" * 80}, "80 residues, and contacts are predicted for at most 64"),
        ({"sequence": "MK TA", "contacts": [[0, 4]]}, "one token for each"),
    ):
        with pytest.raises(DataError, match=f"row 2.*{what}"):
            base.adapt([good, good | change], task="contacts", method="head")
    (tmp_path / "a.pdb").write_text("nothing\n")
    with pytest.raises(DataError, match="row 1.*no residues"):
        base.adapt([{"structure": str(tmp_path / "a.pdb")}], task="contacts", method="head")
    with pytest.raises(DataError, match="none.pdb cannot be read"):
        base.adapt([{"structure": "none.pdb"}], task="contacts", method="head")
    with pytest.raises(DataError, match="none of the 1 proteins has a contact"):
        base.adapt([good | {"contacts": [[0, 2]]}], task="contacts", method="head")
    with pytest.raises(UserError, match="pairs of residues"):
        base.adapt([good], task="contacts", method="prompt")
    with pytest.raises(ConfigError, match="rising order"):
        HeadConfig(gives="contacts", bins=(8.0, 4.0))
    with pytest.raises(ConfigError, match="others? heads have none|other heads have none"):
        HeadConfig(labels=("a", "b"), bins=(8.0,))


def test_the_commands(base: Base, tmp_path: Path) -> None:
    base.save(tmp_path / "base")
    rows, run = tmp_path / "rows.jsonl", CliRunner().invoke
    rows.write_text("\n".join(map(json.dumps, proteins(4, 0))))
    words = [str(tmp_path / "base"), "--data", str(rows), "--task", "contacts", "--method", "head"]
    done = run(app, ["adapt", *words, "--dry-run"])
    assert done.exit_code == 0, done.output
    done = run(app, ["adapt", *words, "--out", str(tmp_path / "a")])
    assert done.exit_code == 0, done.output
    on = [str(tmp_path / "base"), "--adapter", str(tmp_path / "a")]
    done = run(app, ["eval", *on, "--data", str(rows)])
    assert done.exit_code == 0 and "long_range_precision" in done.output
    sequence = proteins(4, 0)[0]["sequence"]
    done = run(app, ["contacts", on[0], sequence, *on[1:]])
    assert done.exit_code == 0 and len(done.output.splitlines()) == 10
    done = run(app, ["apply", *on, sequence])
    assert done.exit_code == 0 and sequence[0] in done.output


def test_mmcif_is_read_as_pdb_is(tmp_path: Path) -> None:
    gemmi = pytest.importorskip("gemmi")
    chains = pdb(["MET", "GLY", "LYS"]), pdb(["TRP", "ALA"], "B")
    (tmp_path / "a.pdb").write_text("".join(c.partition("ENDMDL")[0] for c in chains))
    gemmi.read_structure(str(tmp_path / "a.pdb")).make_mmcif_document().write_file(str(tmp_path / "a.cif"))
    for chain in (None, "B"):
        ours, theirs = (read_structure(tmp_path / name, chain) for name in ("a.pdb", "a.cif"))
        assert ours.sequence == theirs.sequence
        np.testing.assert_allclose(ours.places_L3, theirs.places_L3, atol=1e-3)
    (tmp_path / "b.cif").write_text("no structure")
    with pytest.raises(DataError, match="b.cif"):
        read_structure(tmp_path / "b.cif")


def test_mmcif_without_gemmi_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gemmi", None)
    with pytest.raises(UserError, match="gemmi is not installed") as e:
        read_structure(tmp_path / "a.cif")
    assert "onebase[structures]" in e.value.remedy
