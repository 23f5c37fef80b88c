"""Protein structures from PDB and mmCIF files: the residues of one chain, where they are, and which pairs are in contact. L residues, N pairs."""

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onebase.errors import DataError, UserError

NAMES = "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL MSE"
LETTERS = dict(zip(NAMES.split(), "ARNDCQEGHILKMFPSTWYVM", strict=True))
NEAR = 8.0
"""Angstrom below which two residues are in contact."""
CIF = (".cif", ".mmcif")
APART, LONG = 6, 24
"""Residues between the two of a pair: the fewest that are learnt, and those of a long-range pair."""


Distances = NDArray[np.float64]
"""Of the residues in angstrom, [L, L]; NaN where one has no place."""


@dataclass(frozen=True, eq=False)
class Structure:
    """A chain: its residues, and the place of each C-beta atom (C-alpha of glycine), float64 [L, 3] in angstrom; NaN where the file has none."""

    sequence: str
    places_L3: NDArray[np.float64]

    @property
    def distances(self) -> Distances:
        """Distances of the residues, float64 [L, L]."""
        gaps: Distances = np.linalg.norm(self.places_L3[:, None] - self.places_L3[None], axis=-1)
        return gaps


def read_structure(path: str | Path, chain: str | None = None) -> Structure:
    """The first model's chain of a PDB file, or of an mmCIF file (.cif, .mmcif; read by gemmi; author's names of chains), also .gz; without `chain` the first
    one with residues. Residues that the file leaves out are left out here too. Raises DataError for a file that cannot be read or has no such chain,
    UserError for an mmCIF file without gemmi."""
    if Path(str(path).removesuffix(".gz")).suffix in CIF:
        return _read_cif(path, chain)
    try:
        with gzip.open(path) if str(path).endswith(".gz") else open(path, "rb") as f:
            lines = f.read().decode("ascii", "replace").splitlines()
    except (OSError, EOFError) as e:
        raise DataError(f"{path} cannot be read: {e}", "give a PDB file, plain or .gz") from None
    atoms: Atoms = {}
    for number, line in enumerate(lines, 1):
        if line.startswith("ENDMDL"):
            break
        if line[:6] not in ("ATOM  ", "HETATM") or line[17:20] not in LETTERS:
            continue
        chain = line[21] if chain is None else chain
        if line[21] != chain:
            continue
        try:
            place = [float(line[a : a + 8]) for a in (30, 38, 46)]
        except ValueError:
            raise DataError(
                f"{path}:{number}: no coordinates in {line!r}", "give an intact PDB file"
            ) from None
        _, found = atoms.setdefault(line[22:27], (LETTERS[line[17:20]], {}))
        found.setdefault(line[12:16].strip(), place)
    return _structure(atoms, path, chain)


Atoms = dict[str, tuple[str, dict[str, list[float]]]]
"""By residue: its letter, and the places of its atoms by their names."""


def _structure(atoms: Atoms, path: str | Path, chain: str | None) -> Structure:
    if not atoms:
        raise DataError(
            f"{path} has no residues" + (f" in chain {chain!r}" if chain else ""),
            "give a PDB or mmCIF file of a protein",
        )
    missing = [float("nan")] * 3
    places = [found.get("CB", found.get("CA", missing)) for _, found in atoms.values()]
    return Structure("".join(letter for letter, _ in atoms.values()), np.array(places))


def _read_cif(path: str | Path, chain: str | None) -> Structure:
    try:
        import gemmi
    except ImportError:
        raise UserError(
            f"{path} is an mmCIF file, and gemmi is not installed", "pip install 'onebase[structures]'"
        ) from None
    try:
        found = gemmi.read_structure(str(path), format=gemmi.CoorFormat.Mmcif)
    except (OSError, ValueError, RuntimeError) as e:
        raise DataError(f"{path} cannot be read: {e}", "give an mmCIF file, plain or .gz") from None
    atoms: Atoms = {}
    for part in found[0] if len(found) else ():
        for residue in part:
            if residue.name not in LETTERS or (chain or part.name) != part.name:
                continue
            chain = part.name
            _, places = atoms.setdefault(str(residue.seqid), (LETTERS[residue.name], {}))
            for atom in residue:
                places.setdefault(atom.name, list(atom.pos.tolist()))
    return _structure(atoms, path, chain)


def pairs(distances_LL: Distances, apart: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs (i, j), i < j, that are `apart` or more in the chain and whose distance is known; infinite: not in contact, however far."""
    i, j = np.triu_indices(len(distances_LL), apart)
    known = ~np.isnan(distances_LL[i, j])
    return i[known], j[known]


def long_range_precision(
    map_LL: NDArray[np.float64], distances_LL: Distances, share: int = 5
) -> float | None:
    """The share of true contacts among the L / `share` likeliest pairs that are 24 residues or more apart; None for a chain without such pairs."""
    i, j = pairs(distances_LL, LONG)
    if not len(i):
        return None
    first = np.argsort(-map_LL[i, j], kind="stable")[: max(1, len(distances_LL) // share)]
    return float((distances_LL[i[first], j[first]] < NEAR).mean())
