"""Structures from PDB files, contacts learnt from attention, and their score."""

from pathlib import Path

import numpy as np
import pytest
import torch

from onebase.data.structures import LETTERS, long_range_precision, pairs, read_structure
from onebase.engine.contacts import contact_features, fit_contacts
from onebase.errors import DataError


def pdb(residues: list[str], chain: str = "A") -> str:
    lines = []
    for n, name in enumerate(residues, 1):
        for atom, shift in (("CA", 0.0), *([("CB", 1.5)] if name != "GLY" else [])):
            lines.append(
                f"ATOM  {n:5d}  {atom:<3s} {name} {chain}{n:4d}    {3.8 * n:8.3f}{shift:8.3f}{0.0:8.3f}"
            )
    return "\n".join(lines) + "\nENDMDL\n" + "ATOM      1  CA  TRP A   1       0.000   0.000   0.000\n"


def test_a_chain_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.pdb").write_text(pdb(["MET", "GLY", "LYS"]) + pdb(["TRP"], "B"))
    found = read_structure(tmp_path / "a.pdb")
    assert found.sequence == "MGK" and LETTERS["VAL"] == "V"
    assert found.places_L3[:, 1].tolist() == [1.5, 0.0, 1.5], "C-beta, or C-alpha of glycine"
    assert found.distances[0, 2] == pytest.approx(7.6)


def test_bad_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pdb").write_text("nothing\n")
    with pytest.raises(DataError, match="no residues"):
        read_structure(tmp_path / "a.pdb")
    (tmp_path / "b.pdb").write_text(pdb(["MET"]).replace("3.800", "  x  "))
    with pytest.raises(DataError, match="b.pdb:1"):
        read_structure(tmp_path / "b.pdb")
    (tmp_path / "c.pdb.gz").write_text("not gzip")
    with pytest.raises(DataError, match="cannot be read"):
        read_structure(tmp_path / "c.pdb.gz")


def test_the_regression_finds_the_map_that_says_contact() -> None:
    generator = torch.Generator().manual_seed(0)
    near = torch.rand(4000, generator=generator) < 0.1
    features = torch.randn(4000, 5, generator=generator)
    features[:, 3] += 2.0 * near
    head = fit_contacts(features, near)
    assert head.weight_C.abs().argmax() == 3 and head.weight_C[3] > 1.0
    assert float((features @ head.weight_C + head.bias).sigmoid().mean()) == pytest.approx(0.1, abs=0.02)
    with pytest.raises(DataError):
        fit_contacts(features, torch.zeros(4000, dtype=torch.bool))


def test_the_score_counts_long_pairs_alone() -> None:
    L = 60
    distances = np.full((L, L), 20.0)
    for i in range(12):
        distances[i, i + 30] = distances[i + 30, i] = 5.0
    likely = np.where(distances < 8, 1.0, 0.0)
    assert long_range_precision(likely, distances) == 1.0
    near = np.where(abs(np.subtract.outer(np.arange(L), np.arange(L))) < 24, 2.0, likely)
    assert long_range_precision(near, distances) == 1.0, "nearer pairs are not scored"
    assert long_range_precision(-likely, distances) == 0.0
    assert long_range_precision(likely[:20, :20], distances[:20, :20]) is None
    distances[0] = np.nan
    assert 0 not in pairs(distances, 6)[0]


def test_features_are_symmetric_and_corrected_by_their_averages() -> None:
    maps = torch.rand(3, 7, 7, generator=torch.Generator().manual_seed(0))
    found = contact_features(maps)
    assert torch.equal(found, found.transpose(0, 1)) and found.shape == (7, 7, 3)
    assert float(found.sum((0, 1)).abs().max()) < 1e-4
