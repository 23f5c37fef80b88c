"""Any file that onebase wrote, with bytes changed or cut: whatever reads it back says which file, and no traceback comes out."""

import contextlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onebase.artifact.files import MANIFEST, read_manifest, sha256_file
from onebase.artifact.manifest import manifest_bytes
from onebase.artifact.record import Record
from onebase.base.folder import load_base
from onebase.config import from_dict
from onebase.data import Dataset, TokenSet
from onebase.errors import UserError
from onebase.govern.store import Store
from onebase.govern.verify import verify_tree
from onebase.methods.folder import load_adapter
from onebase.modality.text import Tokenizer
from onebase.pretraining.claim import claim
from onebase.pretraining.recipe import Recipe
from onebase.train.callbacks import read_log
from onebase.train.checkpoint import list_checkpoints, load_checkpoint
from onebase.train.parallel import Parallel
from tests.pretrained import onebase, tiny_run

RECIPE = "recipe.json"
SEEDS = [0, 1, 2]


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, an adapter and a store that knows them."""
    folder = tmp_path_factory.mktemp("intact")
    shutil.copytree(tiny_run(), folder / "run")
    rows = [{"text": f"{'good' if i % 2 else 'bad'} {i}", "label": "ab"[i % 2]} for i in range(20)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    said = onebase("adapt", folder / "run", "--data", folder / "rows.jsonl", "--task", "classify", "--method", "head", "--out", folder / "adapter")  # fmt: skip
    assert said.status == 0, said
    return folder


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def damage(data: bytes, draw: random.Random) -> bytes:
    """A byte changed, a stretch of bytes changed, or the file cut."""
    how, at = draw.randrange(4), draw.randrange(max(1, len(data)))
    if how == 0 or not data:
        return data[:at]
    if how == 1:
        return data[:at] + bytes(draw.randrange(256) for _ in range(8)) + data[at + 8 :]
    if how == 2:
        return data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]
    return data[:at] + draw.choice([b"[" * 100_000, b'"', b"1e999", b"9" * 5000, b"\xff", b"\0"]) + data[at:]


@contextlib.contextmanager
def damaged(path: Path, seed: int, *, listed: bool = False) -> Iterator[None]:
    """While inside, the file is damaged. listed: with a manifest that lists it as it now is, as another program might leave it."""
    kept = path.read_bytes()
    manifest = (
        next((p / MANIFEST for p in path.parents if (p / MANIFEST).is_file()), None) if listed else None
    )
    before = manifest.read_bytes() if manifest else b""
    path.write_bytes(damage(kept, random.Random(f"{path.name}:{seed}")))
    try:
        if manifest and manifest != path:
            tree = json.loads(before)
            name = path.relative_to(manifest.parent).as_posix()
            tree["files"][name] = {"sha256": sha256_file(path), "bytes": path.stat().st_size}
            manifest.write_bytes(manifest_bytes(tree))
        yield
    finally:
        path.write_bytes(kept)
        if manifest:
            manifest.write_bytes(before)


def error_of(work: Callable[[], object]) -> UserError | None:
    try:
        work()
    except UserError as e:
        return e
    return None


def refused(work: Callable[[], object]) -> bool:
    said = error_of(work)
    assert said is None or (said.cause and said.remedy), said
    return said is not None


def readers(folder: Path) -> list[Callable[[], object]]:
    run = folder / "run"
    tokens = next(p for p in (run / "tokens").iterdir() if p.is_dir())
    data = run / "data"
    return [
        lambda: load_base(run / "base").model.cfg,
        lambda: load_adapter(folder / "adapter"),
        lambda: list(Dataset.open(data).documents("train")),
        lambda: list(TokenSet.open(tokens)),
        lambda: [load_checkpoint(p) for p in list_checkpoints(run / "checkpoints")],
        lambda: Record.load(data),
        lambda: verify_tree(run),
        lambda: read_log(run / "log.jsonl"),
        lambda: Tokenizer.from_file(run / "tokenizer.json"),
    ]


@pytest.mark.parametrize("listed", [False, True])
def test_every_file_of_a_run_and_an_adapter(intact: Path, listed: bool) -> None:
    """Directly by the rooms that read: each is right or says what is wrong."""
    whole = [p for f in ("run", "adapter") for p in files(intact / f)]
    assert {p.name for p in whole} >= {RECIPE, "log.jsonl", "base.json", "adapter.json", "state.json", "dataset.json", "tokens.json", "record.json"}  # fmt: skip
    for path in whole:
        for seed in SEEDS:
            with damaged(path, seed, listed=listed):
                found = [refused(work) for work in readers(intact)]
                if path.name == MANIFEST or (not listed and path.parent.name == "base"):
                    assert any(found), path


COMMANDS = [
    ("show", "run"),
    ("show", "adapter", "--json"),
    ("verify", "run"),
    ("apply", "run", "--adapter", "adapter", "Hello."),
]


def test_commands_say_it_in_two_lines(intact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(intact)
    for path in [p for f in ("run", "adapter") for p in files(intact / f)]:
        if path.suffix not in (".json", ".jsonl", ".jinja"):
            continue
        with damaged(path, 5):
            for words in COMMANDS:
                said = onebase(*words)
                assert said.status in (0, 1) and "Traceback" not in said.err, (path, words, said)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_the_recipe_of_a_run_folder(intact: Path, seed: int) -> None:
    path = intact / "run" / RECIPE
    recipe = from_dict(Recipe, json.loads(path.read_text()), "")
    with damaged(path, seed):
        said = error_of(lambda: claim(path.parent, recipe, Parallel(0, 1, torch.device("cpu"))))
        assert said is None or (str(path.parent) in said.cause and "--out" in said.remedy)


def test_a_changed_byte_in_the_recipe_by_the_command(intact: Path, tmp_path: Path) -> None:
    import yaml

    run = tmp_path / "run"
    shutil.copytree(intact / "run", run)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(json.loads((run / RECIPE).read_text())))
    (run / RECIPE).write_bytes((run / RECIPE).read_bytes().replace(b":", b";", 1))
    said = onebase("pretrain", recipe, "--out", run)
    assert said.status == 1, said
    assert (
        f"{run / RECIPE} was changed after it was written: not valid JSON" in said.err
        and "remove recipe.json" in said.err
    )


def test_a_line_of_the_log_that_is_damaged_is_that_line_alone(tmp_path: Path) -> None:
    lines = [json.dumps({"step": i, "loss": 1.0}) for i in range(6)]
    lines[2] = lines[2].replace("{", "(")
    lines[4] = "[" * 100_000
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + '\n{"step": 6, "lo')
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [0, 1, 3, 5]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_an_index_of_the_store(intact: Path, tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    store.add(intact / "run" / "base", "one")
    store.add(intact / "adapter", "two")
    right = store.list()
    for path in files(store.root):
        if path.is_file() and path.name.startswith("index"):
            path.write_bytes(damage(path.read_bytes(), random.Random(seed)))
    with contextlib.suppress(UserError):
        assert store.list() == right
    assert store.list() == right


def test_a_hash_cache_that_is_damaged_refuses_nothing(intact: Path) -> None:
    import sqlite3
    import time

    from onebase.artifact.files import cache_dir, check_fast

    time.sleep(0.2)
    check_fast(intact / "adapter")
    with contextlib.closing(sqlite3.connect(cache_dir() / "hashes.sqlite")) as db, db:
        db.execute("UPDATE hash SET sha256 = 'no'")
    check_fast(intact / "adapter")
    assert read_manifest(intact / "adapter")["kind"] == "adapter"
