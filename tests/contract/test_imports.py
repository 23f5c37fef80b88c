"""No module imports itself by way of others: between rooms and inside them, lazy imports and those of types counted."""

from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

import onebase.api
from onebase.api.base import Base
from onebase.methods.bound import Bound


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


def test_the_face_is_thin_and_on_top() -> None:
    """What a user calls is under 750 lines (its media half included), and nothing below it knows it; a bound base answers nothing by itself."""
    known = graph()
    below = {m for m in known if not m.startswith(("onebase.api", "onebase.cli", "onebase.demo"))} - {
        "onebase"
    }
    assert not {m for m in below if any(x.startswith("onebase.api") for x in known[m])}
    face = Path(onebase.api.__file__).parent
    assert 300 < sum(len(p.read_text("utf-8").splitlines()) for p in face.rglob("*.py")) < 750
    verbs = {"classify", "predict", "tag", "reward", "embed", "generate", "chat", "adapt", "tune", "apply"}
    assert verbs <= set(dir(Base)) and not verbs & set(dir(Bound))


def test_a_lazy_import_counts() -> None:
    """`Base.tune` imports what it needs when it is called: the graph knows."""
    assert "onebase.tasks.tune" in graph()["onebase.api.base"]
