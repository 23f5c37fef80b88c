import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from onebase.artifact.files import home
from onebase.errors import ArtifactError, UserError
from onebase.govern.store import Store, read_entry
from tests.govern.conftest import Family, make_base, make_other


def test_list_and_resolve(family: Family) -> None:
    store = family.store
    assert [e.name for e in store.list()] == ["my-adapter", "my-base", "my-data", "my-run"]
    (base,) = store.list("base")
    assert (base.kind, base.fingerprint, base.path) == ("base", family.base, family.root / "base")
    assert [p["fingerprint"] for p in base.parents] == ["ob1-data", "ob1-lost"]
    assert base.created.endswith("+00:00")
    assert store.resolve("my-base") == family.root / "base"
    assert store.resolve(str(family.root / "run")) == family.root / "run"


def test_a_path_comes_before_a_name(family: Family, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "my-base").mkdir()
    monkeypatch.chdir(tmp_path)
    assert family.store.resolve("my-base") == Path("my-base")


def test_unknown_names(family: Family, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean my-base") as e:
        family.store.resolve("my-bose")
    assert "neither a path nor a name" in e.value.cause
    with pytest.raises(UserError, match="names in the store: my-adapter, my-base"):
        family.store.resolve("zzz")
    with pytest.raises(UserError, match="none yet"):
        Store(tmp_path / "empty").resolve("zzz")
    assert not (tmp_path / "empty").exists()


def test_the_default_place() -> None:
    assert Store().root == home() / "store"


def test_references_and_copies(family: Family, tmp_path: Path) -> None:
    store = family.store
    copy = store.add(family.root / "base", "own", copy=True)
    shutil.rmtree(family.root / "base")
    assert store.resolve("own") == copy.path == tmp_path / "store/bases/own"
    with pytest.raises(UserError, match="which does not exist"):
        store.resolve("my-base")
    assert "my-base" not in [e.name for e in store.list()]
    assert [p.split(":")[0] for p in store.reindex()] == ["my-base"]
    store.remove("my-base")
    store.remove("own")
    assert not copy.path.exists() and store.reindex() == ()


def test_remove_leaves_what_was_registered(family: Family) -> None:
    family.store.remove("my-base")
    assert read_entry(family.root / "base").fingerprint == family.base
    assert [e.name for e in family.store.list()] == ["my-adapter", "my-data", "my-run"]
    with pytest.raises(UserError, match="neither a path"):
        family.store.remove("my-base")
    with pytest.raises(UserError, match="is a path, not a name"):
        family.store.remove(str(family.root / "base"))
    assert (family.root / "base").exists()


def test_names(family: Family, tmp_path: Path) -> None:
    for name in ("", "../x", "a/b", ".x", "a b", "x" * 101, "-x"):
        with pytest.raises(UserError, match="cannot be a store name"):
            family.store.add(family.root / "base", name)
    make_base(tmp_path / "second", value=1.0)
    for path in (tmp_path / "second", family.root / "adapter"):
        with pytest.raises(UserError, match="the store already has 'my-base'"):
            family.store.add(path, "my-base")
    assert family.store.add(family.root / "base", "my-base").fingerprint == family.base  # again is no harm


def test_what_is_not_an_artifact(family: Family, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no manifest\.json"):
        family.store.add(tmp_path, "x")
    make_other(tmp_path / "odd", "sandwich", "")
    with pytest.raises(ArtifactError, match="kind 'sandwich'"):
        family.store.add(tmp_path / "odd", "x")


def test_the_index_follows_the_folders(family: Family) -> None:
    store = family.store
    mark = make_base(family.root / "base", value=2.0, overwrite=True)
    (base,) = store.list("base")
    assert base.fingerprint == mark != family.base


@pytest.mark.parametrize("damage", ["delete", "rubbish", "wrong", "old"])
def test_the_index_is_rebuilt_from_the_folders(family: Family, damage: str) -> None:
    store, before = family.store, family.store.list()
    if damage == "delete":
        store.index.unlink()
    elif damage == "rubbish":
        store.index.write_bytes(b"rubbish" * 1000)
    elif damage == "old":
        store.index.unlink()
        with sqlite3.connect(store.index) as db:
            db.execute("CREATE TABLE artifact (name TEXT)")
    else:
        with sqlite3.connect(store.index) as db:
            db.execute("UPDATE artifact SET fingerprint = 'forged'")
            db.execute("INSERT INTO artifact VALUES ('ghost', 'base', '/', '', '', '[]', '')")
        assert store.reindex() == ()
    assert store.list() == before


def test_many_at_once(family: Family) -> None:
    def add(i: int) -> None:
        Store(family.store.root).add(family.root / "base", f"b{i}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(24)))
    assert len(family.store.list("base")) == 25


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    make_base(tmp_path / "base")
    (tmp_path / "file").touch()
    store = Store(tmp_path / "file" / "store")
    with pytest.raises(ArtifactError, match="is a file, not a folder"):
        store.add(tmp_path / "base", "x")
    assert store.list() == ()
