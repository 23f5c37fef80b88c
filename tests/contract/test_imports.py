"""No module imports itself by way of others: between rooms and inside them, lazy imports and those of types counted."""

from graphlib import CycleError, TopologicalSorter

import grimp
import pytest


def graph() -> dict[str, set[str]]:
    found = grimp.build_graph("onebase", cache_dir=None)
    return {m: found.find_modules_directly_imported_by(m) for m in found.modules}


def test_no_module_imports_itself_by_way_of_others() -> None:
    known = graph()
    assert len(known) > 300 and known["onebase.model.trunk"]  # it is our code that was read
    try:
        TopologicalSorter(known).prepare()
    except CycleError as e:
        pytest.fail(" imports ".join(reversed(e.args[1])))


def test_a_lazy_import_counts() -> None:
    """`Base.tune` imports what it needs when it is called: the graph knows."""
    assert "onebase.tasks.tune" in graph()["onebase.api.base"]
