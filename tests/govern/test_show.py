import io
import json
from pathlib import Path

from rich.console import Console

from onebase.artifact.files import ArtifactWriter
from onebase.artifact.record import Record
from onebase.govern.show import describe, lines, show
from tests.govern.conftest import Family, make_other


def test_lines(family: Family) -> None:
    found = {line.split("  ")[0]: " ".join(line.split()) for line in lines(family.root / "base")}
    assert found["tokens.talk"] == "tokens.talk 1,234,567 [counted while training]"
    assert found["tokens.code"] == "tokens.code unknown [counted while training]"
    assert found["loss"] == "loss 2.125 [measured (latest of 2)]"
    assert found["energy"] == "energy unknown [not recorded]"
    assert found["fingerprint"] == f"fingerprint {family.base} [manifest]"
    assert found["hash of tokenizer"] == "hash of tokenizer tttttttt [record]"
    assert "parent dataset talk ob1-data [record]" in [
        " ".join(x.split()) for x in lines(family.root / "base")
    ]


def test_every_line_has_an_origin(family: Family) -> None:
    for name in ("base", "adapter", "data", "run"):
        assert all(line.endswith("]") for line in lines(family.root / name) if line)


def test_json(family: Family) -> None:
    data = json.loads(json.dumps(describe(family.root / "base"), allow_nan=False))
    facts = {f["field"]: f for f in data["facts"]}
    assert facts["tokens"]["value"] == {"talk": 1_234_567, "code": None}
    assert facts["loss"]["times"] == 2 and facts["energy"]["value"] is None
    assert data["files"].keys() == {
        "base.json",
        "model-00001.safetensors",
        "model-00002.safetensors",
        "record.json",
    }
    assert data["parents"][0]["fingerprint"] == "ob1-data"


def test_begun_fields_count_as_known(tmp_path: Path) -> None:
    record = Record("base")
    record.add("flops.from_config", 10**15, "counted from the config")
    record.add("energy_joules", 5.0, "measured")
    with ArtifactWriter(tmp_path / "b", "base") as w:
        record.save(w.path("record.json"))
    known = {f["field"]: f["value"] for f in describe(tmp_path / "b")["facts"]}
    assert "flops" not in known and "energy" not in known and known["machine"] is None


def test_lists_and_nesting(tmp_path: Path) -> None:
    record = Record("run")
    record.add("scores", [{"task": "qa", "accuracy": [0.5, 0.25]}], "measured")
    record.add("machine", {"accelerators": [], "gpu": True}, "measured")
    with ArtifactWriter(tmp_path / "r", "run") as w:
        record.save(w.path("record.json"))
    text = [" ".join(line.split()) for line in lines(tmp_path / "r")]
    assert "scores.0.accuracy 0.5, 0.25 [measured]" in text
    assert "machine.accelerators none [measured]" in text and "machine.gpu yes [measured]" in text


def test_a_hostile_record_drives_no_terminal(tmp_path: Path) -> None:
    make_other(tmp_path / "x", "run", "", ("base", "ob1-\x1b[2J", "[red]\u202eevil[/nope]"))
    console = Console(file=io.StringIO(), width=200)
    show(tmp_path / "x", console)
    out = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in out and "\u202e" not in out
    assert "[red]\\u202eevil[/nope]" in out and "\\x1b[2J" in out


def test_without_a_record(tmp_path: Path) -> None:
    with ArtifactWriter(tmp_path / "c", "checkpoint", {"step": 3}) as w:
        w.path("state.json").write_text("{}")
    assert describe(tmp_path / "c")["manifest"] == {"step": 3}
    assert any("unknown" in line for line in lines(tmp_path / "c"))
