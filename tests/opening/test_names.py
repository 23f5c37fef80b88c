"""Datasets by their name on the Hub: the real client against a server on this machine."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onebase import data
from onebase.errors import ArtifactError, DataError, UserError
from onebase.formats.hub.datasets import splits_of
from onebase.opening.names import resolved
from tests.formats.hub_server import Hub, hub_server

client = pytest.importorskip("huggingface_hub.utils")
COMMIT = "1" * 40


def read_rows(given: Any) -> Any:
    """As what takes rows does: names are resolved, then the rows read."""
    return data.read_rows(resolved(given))


def row(n: int) -> dict[str, str]:
    return {"text": f"text {n}", "label": "ab"[n % 2]}


def jsonl(*numbers: int) -> str:
    return "".join(json.dumps(row(n)) + "\n" for n in numbers)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The server with a repo org/rows, and an environment in which the client finds it and nothing else."""
    root = tmp_path / "rows"
    (root / "data").mkdir(parents=True)
    for part in range(2):
        pq.write_table(
            pa.Table.from_pylist([row(2 * part), row(2 * part + 1)]),
            root / f"data/train-0000{part}-of-00002.parquet",
        )
    pq.write_table(pa.Table.from_pylist([row(9)]), root / "data/test-00000-of-00001.parquet")
    (root / "train.jsonl").write_text(jsonl(7))  # the same split in another form: Parquet comes first
    (root / "rows.py").write_text("raise SystemExit('a program of the repo was run')")
    (root / "README.md").write_text("---\nlicense: mit\n---\n# Rows\n")
    with hub_server(Hub({"org/rows": root})) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        client.close_session() if hasattr(client, "close_session") else None
        yield served


def made(hub: Hub, tmp_path: Path, **files: str) -> str:
    """A further repo with these files; its name."""
    root = tmp_path / "made"
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_csv", ".csv").replace("_jsonl", ".jsonl").replace(
            "_md", ".md"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    hub.repos["org/made"] = root
    return "hf:org/made"


def test_a_split_is_its_files_in_order_and_nothing_else_is_fetched(hub: Hub) -> None:
    rows = read_rows("hf:org/rows:train")
    assert rows == [row(n) for n in range(4)]
    assert rows.places[2].endswith("train-00001-of-00002.parquet: row 1")
    assert hub.fetched() == {
        "README.md",
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
    }
    assert rows.source["repo"] == "org/rows" and rows.source["revision"] == COMMIT
    assert read_rows("hf:org/rows@main:test") == read_rows(Path("hf:org/rows:test")) == [row(9)]


def test_a_split_has_to_be_named_where_there_are_several(hub: Hub) -> None:
    with pytest.raises(DataError) as e:
        read_rows("hf:org/rows")
    assert "splits test, train" in e.value.cause and "hf:org/rows:t" in e.value.remedy
    with pytest.raises(DataError, match="no split 'dev'") as e:
        read_rows("hf:org/rows:dev")
    assert "test, train" in e.value.remedy


def test_one_split_needs_no_name(hub: Hub, tmp_path: Path) -> None:
    assert read_rows(made(hub, tmp_path, some_csv="text,label\na,b\n")) == [{"text": "a", "label": "b"}]


FRONT = """---
configs:
  - config_name: easy
    data_files:
      - {{split: train, path: easy/*.jsonl}}
      - {{split: check, path: [easy/more/b.jsonl, easy/none.jsonl]}}
  - config_name: hard
    {default}data_files: hard/**/*.jsonl
---
"""


def test_the_front_matter_of_the_readme_is_honoured(hub: Hub, tmp_path: Path) -> None:
    files = {
        "easy__a_jsonl": jsonl(1),
        "easy__more__b_jsonl": jsonl(2),
        "hard__x__y__c_jsonl": jsonl(3),
        "hard__d_jsonl": jsonl(4),
    }
    ref = made(hub, tmp_path, README_md=FRONT.format(default=""), **files)
    with pytest.raises(DataError, match="configs easy, hard") as e:
        read_rows(ref)
    assert "hf:org/made:easy/train" in e.value.remedy
    assert read_rows(f"{ref}:easy/train") == [row(1)]
    assert read_rows(f"{ref}:easy/check") == [row(2)]
    assert read_rows(f"{ref}:hard/train") == [row(4), row(3)]
    with pytest.raises(DataError, match="no config 'odd'"):
        read_rows(f"{ref}:odd/train")
    hub.revisions["main"] = "2" * 40
    made(hub, tmp_path, README_md=FRONT.format(default="default: true\n    "))
    assert read_rows(ref) == [row(4), row(3)]


@pytest.mark.parametrize(
    "front",
    [
        "---\nconfigs: [\n---\n",
        "---\nconfigs: 3\n---\n",
        "---\n- a\n---\n",
        "---\nconfigs: [{data_files: 3}]\n---\n",
        "",
    ],
)
def test_front_matter_that_says_nothing_of_use_is_passed_over(front: str, hub: Hub, tmp_path: Path) -> None:
    assert read_rows(made(hub, tmp_path, README_md=front, train_jsonl=jsonl(1)) + ":train") == [row(1)]


def test_what_is_no_rows_is_refused_and_no_program_is_run(hub: Hub, tmp_path: Path) -> None:
    made(hub, tmp_path, text_txt="a")
    (hub.repos["org/made"] / "made.py").write_text("raise SystemExit('run')")
    with pytest.raises(DataError, match=r"no files with rows, only a script \(made.py\), which is not run"):
        read_rows("hf:org/made")
    hub.revisions["main"] = "3" * 40
    made(hub, tmp_path, README_md="---\nconfigs: [{data_files: made.py}]\n---\n")
    with pytest.raises(DataError, match="the split train is in made.py"):
        read_rows("hf:org/made")
    assert hub.fetched() == {"README.md"}
    for ref in ("hf:org/made:", "hf:org/made:/train", "hf:org/a.gguf/b.gguf:train"):
        with pytest.raises(DataError, match="not a dataset name"):
            read_rows(ref)
    with pytest.raises(UserError, match="no dataset 'org/none'"):
        read_rows("hf:org/none")


def test_a_part_that_is_missing_is_said(hub: Hub) -> None:
    os.remove(hub.repos["org/rows"] / "data/train-00001-of-00002.parquet")
    with pytest.raises(ArtifactError, match="1 of 2 parts are there"):
        read_rows("hf:org/rows:train")


def test_without_the_hub_what_is_whole_in_the_cache_serves(
    hub: Hub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert len(read_rows("hf:org/rows:train")) == 4
    hub.status = 503
    with caplog.at_level("WARNING"):
        assert len(read_rows("hf:org/rows:train")) == 4
    assert f"using commit {COMMIT} from the cache" in caplog.text
    for ref in ("hf:org/rows:test", "hf:org/none"):
        with pytest.raises(UserError, match="is not complete in the cache"):
            read_rows(ref)
    (cached,) = Path(os.environ["HF_HUB_CACHE"]).glob("**/snapshots/*/data/train-00001*")
    cached.unlink()
    with pytest.raises(UserError, match="is not complete in the cache"):
        read_rows("hf:org/rows:train")


def test_a_list_with_a_name_that_leaves_the_folder_is_refused(hub: Hub) -> None:
    hub.listed.append("../../train.jsonl")
    with pytest.raises(ArtifactError, match=r"lists the file '../../train.jsonl'"):
        read_rows("hf:org/rows:train")
    assert not hub.fetched()


def test_bad_rows_of_a_dataset_are_listed_with_their_file(hub: Hub, tmp_path: Path) -> None:
    ref = made(hub, tmp_path, train__a_jsonl=jsonl(1) + "{\n", train__b_jsonl='{"text": ""}\n')
    with pytest.raises(DataError) as e:
        read_rows(ref)
    assert "2 of 3 rows" in e.value.cause and "a.jsonl:2: not valid JSON" in e.value.cause
    assert "b.jsonl:1: no column 'label'" in e.value.cause


def test_splits_by_the_names_of_files() -> None:
    names = [
        "data/train-00000-of-00001.parquet",
        "validation.csv",
        "dev.tsv",
        "en/test/a.jsonl",
        "train/dataset_info.json",
        "x.txt",
    ]
    assert splits_of(names) == {
        "train": ["data/train-00000-of-00001.parquet"],
        "test": ["en/test/a.jsonl"],
        "validation": ["validation.csv"],
    }
    assert splits_of(["b.csv", "a.csv", "a.json"]) == {"train": ["a.json"]}
    assert splits_of(["constraint.csv"]) == {"train": ["constraint.csv"]}
    assert splits_of(["train_test.csv"]) in ({"train": ["train_test.csv"]}, {"test": ["train_test.csv"]})
