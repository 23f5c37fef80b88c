from pathlib import Path

import pytest

from onebase.errors import ArtifactError
from onebase.govern.lineage import dependents, lineage, tree_lines
from tests.govern.conftest import Family, make_base, make_other


def test_tree_to_the_roots(family: Family) -> None:
    run = lineage(family.store, family.root / "run")
    adapter = run.parents[0]
    base = adapter.parents[0]
    assert [run.kind, adapter.name, base.name] == ["run", "my-adapter", "my-base"]
    assert [(p.fingerprint, p.path is None) for p in base.parents] == [
        ("ob1-data", False),
        ("ob1-lost", True),
    ]
    assert tree_lines(run) == [
        "run run unknown fingerprint",
        "  adapter my-adapter ob1-adapter",
        f"    base my-base {family.base}",
        "      dataset my-data ob1-data",
        "      dataset lost ob1-lost  (not in the store)",
    ]
    assert run.to_dict()["parents"][0]["parents"][0]["fingerprint"] == family.base


def test_a_changed_base_is_another_parent(family: Family) -> None:
    make_base(family.root / "base", value=9.0, overwrite=True)
    adapter = lineage(family.store, family.root / "adapter")
    assert adapter.parents[0].path is None  # the adapter's base is gone, whatever bears its name


def test_dependents(family: Family, tmp_path: Path) -> None:
    make_other(tmp_path / "second", "adapter", "ob1-2", ("base", family.base, ""))
    family.store.add(tmp_path / "second", "second")
    assert [e.name for e in dependents(family.store, family.base)] == ["my-adapter", "second"]
    assert [e.name for e in dependents(family.store, family.data, through=True)] == [
        "my-adapter",
        "my-base",
        "my-run",
        "second",
    ]
    assert dependents(family.store, "ob1-none") == ()


def test_a_circle_ends(family: Family, tmp_path: Path) -> None:
    make_other(tmp_path / "x", "base", "ob1-x", ("base", "ob1-y", "y"))
    make_other(tmp_path / "y", "base", "ob1-y", ("base", "ob1-x", "x"))
    for name in ("x", "y"):
        family.store.add(tmp_path / name, name)
    assert len(tree_lines(lineage(family.store, tmp_path / "x"))) == 3
    assert [e.name for e in dependents(family.store, "ob1-x", through=True)] == ["x", "y"]


def test_not_an_artifact(family: Family, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no manifest\.json"):
        lineage(family.store, tmp_path)
