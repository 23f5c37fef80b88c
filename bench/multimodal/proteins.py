"""What a small protein base is good for, without a pretrained one (none is in a package): peptides by a head, and contacts from its attention.

`--base` is a run of recipes/protein.yaml on sequences; the one on record read the 20,500 of Debian's mmseqs2-examples for 6 minutes.
1. Antimicrobial peptides of modlamp (AMPvsUniProt, duplicates removed, 70% to train, 30% to test): AUROC of `onebase adapt --method head` on the base,
   on its untrained twin, and of logistic regression on amino-acid composition; intervals by bootstrap over the test rows.
2. Contacts of the monomers in MDAnalysisTests (data/dssp): a regression on 20 of them, precision at L/5 of the long-range pairs (24 or more
   apart, C-beta within 8 angstrom) of all others; beside the untrained twin and the separation alone (frequency of contact by separation).
   Beside the regression: task contacts by the head alone, a distogram of the same 20 proteins, on the base and on its twin.

    python bench/multimodal/proteins.py --base runs/protein --data DIR [--isa avx2] [--contacts]

DIR has the unpacked modlamp wheel and MDAnalysisTests sdist, anywhere below it. --contacts: the second part alone.
"""

import argparse
import csv
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import arguments, need, report

TRAINED_ON = 20
"""Proteins of the regression."""
EPOCHS = 20
"""Passes of the distogram's head over them."""


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean and 95% interval by bootstrap."""
    from onebase.evaluation.bootstrap import mean_score

    return asdict(mean_score("precision", values))


def peptides(base: Any, twin: Any, data: Path, most: int | None) -> dict[str, Any]:
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    from onebase.evaluation.probabilities import auroc

    with next(data.rglob("AMPvsUniProt.csv")).open(encoding="utf-8") as f:
        lines = list(csv.reader(f))[1:]
    known = dict.fromkeys((line[0].strip().upper(), int(line[-1])) for line in lines)
    rows = [{"text": text, "label": "amp" if label else "other"} for text, label in known]
    order = np.random.default_rng(0).permutation(len(rows))[:most]
    cut = int(0.7 * len(order))
    train, test = [rows[i] for i in order[:cut]], [rows[i] for i in order[cut:]]
    truth = np.array([row["label"] == "amp" for row in test])

    def composition(some: list[dict[str, str]]) -> Any:
        return np.array(
            [[row["text"].count(c) / len(row["text"]) for c in "ACDEFGHIKLMNPQRSTVWY"] for row in some]
        )

    plain = LogisticRegression(max_iter=2000, C=100.0).fit(
        composition(train), [row["label"] == "amp" for row in train]
    )
    found = {"composition": asdict(auroc(truth.tolist(), plain.predict_proba(composition(test))[:, 1]))}
    for name, one in (("base", base), ("untrained", twin)):
        on = one.with_adapter(one.adapt(train, task="classify", method="head", max_length=256, long="head"))
        said = on.classify([row["text"] for row in test])
        found[name] = asdict(auroc(truth.tolist(), [label.scores["amp"] for label in said]))
        print(name, found[name], file=sys.stderr)
    return found


def contacts(base: Any, twin: Any, data: Path, most: int | None) -> dict[str, Any]:
    import numpy as np

    from onebase.data.structures import APART, NEAR, long_range_precision, pairs, read_structure
    from onebase.engine.contacts import attention_maps, contact_features, learnt_contacts

    files = sorted(p for p in data.rglob("dssp/*.pdb.gz") if not p.name.startswith("wrong"))
    paths = {p.name.split(".")[0]: p for p in files}
    proteins = {name: read_structure(p) for name, p in paths.items()}
    names = [list(proteins)[i] for i in np.random.default_rng(0).permutation(len(proteins))[:most]]
    train, test = [proteins[n] for n in names[:TRAINED_ON]], [proteins[n] for n in names[TRAINED_ON:]]
    near, all_ = np.zeros(2000), np.zeros(2000)
    for protein in train:
        distances = protein.distances
        i, j = pairs(distances, APART)
        np.add.at(near, j - i, distances[i, j] < NEAR)
        np.add.at(all_, j - i, 1)
    smooth = np.convolve(near, np.ones(9), "same") / np.maximum(np.convolve(all_, np.ones(9), "same"), 1)

    def separation(protein: Any) -> Any:
        at = np.arange(len(protein.sequence))
        return smooth[abs(at[:, None] - at[None])]

    def maps(one: Any) -> Callable[[Any], Any]:
        head = learnt_contacts(one.loaded, train)

        def of(protein: Any) -> Any:
            features_LLC = contact_features(attention_maps(one.loaded, protein.sequence))
            return (features_LLC @ head.weight_C).numpy()

        return of

    def distogram(one: Any) -> Callable[[Any], Any]:
        rows = [{"structure": str(paths[n])} for n in names[:TRAINED_ON]]
        longest = one.config.text.context - 2
        rows = [r for r, p in zip(rows, train, strict=True) if len(p.sequence) <= longest]
        adapter = one.adapt(rows, task="contacts", method="head", epochs=EPOCHS, batch_size=4)
        on = one.with_adapter(adapter)
        return lambda protein: on.contacts(protein.sequence).numpy()

    def chance(protein: Any) -> float | None:
        i, j = pairs(protein.distances, 24)
        return float((protein.distances[i, j] < NEAR).mean()) if len(i) else None

    found: dict[str, Any] = {"proteins": names, "trained_on": names[:TRAINED_ON]}
    ways = {"base": maps(base), "untrained": maps(twin), "separation": separation}
    ways |= {"distogram": distogram(base), "distogram_untrained": distogram(twin)}
    for name, way in ways.items():
        scores = [long_range_precision(way(p), p.distances) for p in test]
        found[name] = interval([s for s in scores if s is not None])
        print(name, found[name], file=sys.stderr)
    found["chance"] = interval([s for p in test if (s := chance(p)) is not None])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, required=True, help="the folder of the pretraining run")
    parser.add_argument("--data", type=Path, required=True, help="the folder of the unpacked packages")
    parser.add_argument("--quick", action="store_true", help="300 peptides and 24 proteins, as a smoke test")
    parser.add_argument("--contacts", action="store_true", help="without the peptides")
    args = arguments(parser)
    need("sklearn")
    import onebase
    from onebase.api.base import Base
    from onebase.base.folder import LoadedBase
    from onebase.base.model import BaseModel

    base = onebase.load(args.base)
    model = BaseModel(base.config)
    model.reset(0)
    twin = Base.opened(LoadedBase(model.requires_grad_(False).eval(), base.loaded.codec))
    results = {
        "pretraining": {k: base.record.get(k) for k in ("train.steps", "train.summary")},
        "contacts": contacts(base, twin, args.data, 24 if args.quick else None),
    }
    contact, ratios = results["contacts"], dict[str, float | None]()
    if not args.contacts:
        results["peptides"] = peptide = peptides(base, twin, args.data, 300 if args.quick else None)
        ratios["peptides_over_composition"] = peptide["base"]["value"] / peptide["composition"]["value"]
    ratios |= {
        "distogram_over_separation": contact["distogram"]["value"]
        / max(1e-9, contact["separation"]["value"]),
        "contacts_over_separation": contact["base"]["value"] / max(1e-9, contact["separation"]["value"]),
        "contacts_over_untrained": contact["base"]["value"] / max(1e-9, contact["untrained"]["value"]),
    }
    report("contacts" if args.contacts else "proteins", results, ratios, quick=args.quick)


if __name__ == "__main__":
    main()
