"""What needs no torch answers without it: records, the store, the version, and every mistake that paths, records and names of options can tell."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from onebase.cli import app, speech
from onebase.engine import transcribing
from onebase.govern.store import Store
from tests.pretrained import onebase, tiny_run

ROWS = "".join(json.dumps({"text": f"The text {i} is good.", "label": "ab"[i % 2]}) + "\n" for i in range(12))
RUNNER = """
import contextlib, io, json, sys
from onebase.cli import main
for words in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["onebase", *words]
    status = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as e:
            status = e.code if isinstance(e.code, int) else int(e.code is not None)
    heavy = [m for m in ("torch",) if m in sys.modules]
    print(json.dumps({"words": words, "status": status, "out": out.getvalue(), "err": err.getvalue(), "heavy": heavy}))
    if heavy:
        break
"""


def told(*commands: tuple[str, ...]) -> list[dict[str, object]]:
    """What each command said, in a process of its own that has imported nothing yet; stops behind one that imported torch."""
    done = subprocess.run(
        [sys.executable, "-c", RUNNER], input=json.dumps(commands), capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text(ROWS)
    return tmp_path


def test_records_are_read_without_torch() -> None:
    run = str(tiny_run())
    Store().add(Path(run) / "base", "at-once")
    found = told(
        ("--version",),
        ("list",),
        ("list", "--json"),
        ("show", run),
        ("show", "at-once", "--json"),
        ("show", run, "--html", "page.html"),
        ("verify", run),
    )
    for said in found:
        assert said["status"] == 0 and not said["heavy"], said
    assert str(found[0]["out"]).startswith("onebase ")
    assert "at-once" in str(found[1]["out"])
    assert "fingerprint recomputed" in str(found[-1]["out"])


def test_a_wrong_path_is_said_before_torch_is_imported_by_every_command() -> None:
    run = str(tiny_run())
    base = str(Path(run) / "base")
    no_base = [
        *(("adapt", "gone", "--data", "rows.jsonl", "--out", "o"), ("eval", "gone", "--data", "rows.jsonl")),
        *(("apply", "gone", "hi"), ("embed", "gone", "hi"), ("search", "gone", "hi", "--index", "i")),
        *(
            ("generate", "gone", "hi"),
            ("chat", "gone"),
            ("serve", "gone"),
            ("audit", "gone", "--truth", "rows.jsonl"),
        ),
        *(
            ("images", "gone", "rows.jsonl"),
            ("segment", "gone", "rows.jsonl", "--point", "1,1", "--out", "m.png"),
            ("transcribe", "gone", "rows.jsonl"),
            ("caption", "gone", "rows.jsonl"),
            ("draw", "gone", "x"),
            ("speak", "gone", "x"),
            ("contacts", "gone", "MKT"),
            ("import", "gone", "--out", "o"),
        ),
        *(
            ("export", "gone", "--out", "o"),
            ("merge", "gone", base, "--out", "o"),
            ("combine", "gone", "gone", "--out", "o"),
        ),
        *(
            ("quantize", "gone", "--bits", "8", "--out", "o"),
            ("student", "gone", "--layers", "1", "--out", "o"),
        ),
        ("compare", "gone", "--data", "rows.jsonl", "--test", "rows.jsonl"),
        *(("show", "gone"), ("verify", "gone")),
    ]
    no_file = [
        ("adapt", run, "--data", "gone.jsonl", "--out", "o"),
        ("adapt", run, "--data", "rows.jsonl", "--test", "gone.jsonl", "--out", "o"),
        *(
            ("eval", run, "--data", "gone.jsonl"),
            ("eval", run, "--data", "rows.jsonl", "--train", "gone.jsonl"),
        ),
        *(("apply", run, "--data", "gone.jsonl"), ("embed", run, "gone.jsonl")),
        ("compare", run, "--data", "gone.jsonl", "--test", "rows.jsonl"),
        ("compare", run, "--data", "rows.jsonl", "--test", "gone.jsonl"),
        *(
            ("search", run, "--index", "i", "--add", "gone.jsonl"),
            ("search", run, "query", "--index", "gone"),
        ),
        *(
            ("generate", run, "hi", "--image", "gone.png"),
            ("images", run, "gone.png"),
            ("segment", run, "gone.png", "--point", "1,1", "--out", "m.png"),
            ("transcribe", run, "gone.wav"),
        ),
        *(
            ("audit", run, "--truth", "gone.csv"),
            ("quantize", run, "--bits", "8", "--out", "o", "--data", "gone.txt"),
        ),
        ("student", run, "--layers", "1", "--out", "o", "--data", "gone.jsonl"),
        *(
            ("eval", run, "--data", "rows.jsonl", "--adapter", "gone"),
            ("generate", run, "hi", "--adapter", "gone"),
        ),
        *(
            ("chat", run, "--adapter", "gone"),
            ("serve", run, "--adapter", "a=gone"),
            ("apply", run, "hi", "--adapter", "gone"),
        ),
        *(
            ("export", run, "--adapter", "gone", "--out", "o"),
            ("import", "rows.jsonl", "--base", "gone", "--out", "o"),
        ),
    ]
    others = {"demo", "pretrain", "plan", "list"}  # these take no REF
    assert {c.name or str(getattr(c.callback, "__name__", "")) for c in app.registered_commands} - others == {
        words[0] for words in no_base
    }
    found = told(*no_base, *no_file)
    assert len(found) == len(no_base) + len(no_file), found[-1]
    for said in found:
        assert said["status"] == 1 and not said["heavy"] and "gone" in str(said["err"]), said


def test_what_is_no_base_or_adapter_is_said_before_torch_is_imported() -> None:
    base = str(tiny_run() / "base")
    (one, two, three) = told(
        ("generate", ".", "hi"),
        ("generate", base, "hi", "--adapter", base),
        ("generate", "rows.jsonl", "hi"),
    )
    assert "no manifest.json" in str(one["err"])
    assert "'base', not an adapter" in str(two["err"])
    assert "rows.jsonl" in str(three["err"]) and not three["heavy"]


def test_options_are_checked_before_torch_is_imported() -> None:
    run = str(tiny_run())
    start = ("adapt", run, "--data", "rows.jsonl", "--out", "o")
    cases = {
        (*start, "-o", "epoch=3"): "did you mean 'epochs' (whole number)?",
        (*start, "--method", "head", "-o", "rank=3"): "method head has no option 'rank': lora has it",
        (
            *start,
            "--task",
            "tag",
            "-o",
            "temperature=0.1",
        ): "task tag has no option 'temperature': embed has it",
        (*start, "--task", "classifi"): "task 'classifi' is not known",
        (*start, "--method", "lorra"): "method 'lorra' is not known",
        (*start, "-o", "epochs"): "is not key=value",
        (*start, "--batch-size", "4", "-o", "batch_size=8"): "both --batch-size and -o batch_size",
    }
    for said, part in zip(told(*cases), cases.values(), strict=True):
        assert said["status"] == 1 and part in str(said["err"]) and not said["heavy"], said


def test_a_recipe_is_checked_before_torch_is_imported() -> None:
    recipe = str(Path(__file__).parents[2] / "recipes/tiny.yaml")
    cases = {
        ("pretrain", "gone.yaml"): "no recipe at gone.yaml",
        ("pretrain", recipe, "train.stepz=3"): "did you mean 'steps'",
        ("plan", recipe, "objective=infil"): "accepted: one of next_token, infill",
        ("plan", recipe, "--machine"): "both a recipe and --machine",
    }
    for said, part in zip(told(*cases), cases.values(), strict=True):
        assert said["status"] == 1 and part in str(said["err"]) and "torch" not in str(said["heavy"]), said


def test_help_leaves_no_name_of_a_table_unfilled() -> None:
    said = onebase("--help")
    assert said.status == 0 and "apply" in said.out and "{" not in said.out
    assert "classify, regress, tag" in onebase("apply", "--help").out


def test_every_ref_says_what_it_may_be() -> None:
    for command in (
        "adapt",
        "eval",
        "apply",
        "embed",
        "search",
        "generate",
        "chat",
        "serve",
        "export",
        "merge",
    ):
        told = " ".join(onebase(command, "--help").out.replace("│", " ").split())
        for part in (".gguf", "hf:org/name", "onebase list"):
            assert part in told, (command, part)
    assert "onebase list" in " ".join(onebase("show", "--help").out.replace("│", " ").split())


def test_formats_that_are_known_without_the_engine_are_its() -> None:
    assert tuple(transcribing.FORMATS) == speech.FORMATS and speech.TIMED == transcribing.TIMED
