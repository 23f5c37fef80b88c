"""Lines: only `\\n` and `\\r\\n` end one, wherever text is read; what is printed as a line stays one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onebase.cli import lines as cli_lines
from onebase.data import SourceConfig, read_rows, read_source
from onebase.train.callbacks import read_log
from tests.pretrained import onebase, tiny_run

ODD = [
    "\u2028",
    "\u2029",
    "\x85",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x1d",
    "\x1e",
    "\r",
    "\ufeff",
    "é",
    "a",
    " ",
    "b",
    "\U0001f600",
]
TEXT = st.text(st.sampled_from(ODD), max_size=8)
LINE = (
    st.lists(st.sampled_from([*ODD, "---"]), max_size=8)
    .map("".join)
    .filter(lambda t: t.rstrip("\r") != "---")
)
LABELS = ("good", "not\ngood\u2028at all\r")


class _Stdin:
    """Standard input of bytes, as a shell gives it."""

    def __init__(self, data: bytes) -> None:
        import io

        self.buffer = io.BytesIO(data)

    def isatty(self) -> bool:
        return False


@given(st.lists(TEXT, min_size=1, max_size=6), st.sampled_from(["\n", "\r\n"]), st.booleans())
@example(["a\x0cb", "c\u2028d"], "\n", True)
def test_stdin_has_the_lines_that_were_written(texts: list[str], end: str, closed: bool) -> None:
    # A text that ends in a carriage return before a line feed cannot be told from a line that ends in both.
    texts = [t.rstrip("\r") for t in texts]
    texts[0] = texts[0].lstrip("\ufeff")
    whole = end.join(texts) + (end if closed else "")
    with pytest.MonkeyPatch.context() as patch:
        for bom in (b"", b"\xef\xbb\xbf") if whole else (b"",):
            patch.setattr(sys, "stdin", _Stdin(bom + whole.encode()))
            found = list(cli_lines.stdin_lines())
            assert found == (texts if closed or texts[-1] else texts[:-1])
            patch.setattr(sys, "stdin", _Stdin(bom + whole.encode()))
            assert cli_lines.stdin_text() == whole


@given(
    st.lists(st.lists(LINE, min_size=1, max_size=4), min_size=1, max_size=4), st.sampled_from(["\n", "\r\n"])
)
@example([["a\u2028---"], ["c\x0c---", "d\r---"]], "\n")
def test_a_separator_is_a_whole_line_and_nothing_else_cuts(documents: list[list[str]], end: str) -> None:
    import tempfile

    parts = ["".join(line.rstrip("\r") + end for line in lines) for lines in documents]
    parts[0] = "a" + parts[0]  # not a byte order mark
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.txt")
        path.write_bytes(f"---{end}".join(parts).encode())
        cfg = SourceConfig(name="a", kind="text", path=str(path), separator="---")
        assert [d.text for d in read_source(cfg)] == parts


@given(st.lists(TEXT.filter(str.strip), min_size=1, max_size=5))
def test_rows_with_odd_breaks_are_rows(texts: list[str]) -> None:
    import csv
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for dump in ({"ensure_ascii": False}, {}):
            path = Path(folder, "a.jsonl")
            path.write_bytes("".join(json.dumps({"text": t}, **dump) + "\n" for t in texts).encode())  # type: ignore[arg-type]
            assert [r["text"] for r in read_rows(path, ("text",))] == texts
        path = Path(folder, "a.csv")
        with path.open("w", newline="", encoding="utf-8") as f:
            csv.writer(f, quoting=csv.QUOTE_ALL).writerows([["text"], *[[t + "\n" + t] for t in texts]])
        assert [r["text"] for r in read_rows(path, ("text",))] == [t + "\n" + t for t in texts]


@given(TEXT)
def test_what_is_printed_is_one_line(text: str) -> None:
    assert len(cli_lines.one_line(f"<{text}\n>").splitlines()) == 1
    line = cli_lines.json_line({"text": text})
    assert len(line.splitlines()) == 1 and json.loads(line) == {"text": text}


def test_a_log_of_any_scores(tmp_path: Path) -> None:
    line = json.dumps({"step": 0, "a\u2028b": 1.0}, ensure_ascii=False)
    (tmp_path / "log.jsonl").write_text(line + "\n" + line + "\n", encoding="utf-8")
    assert len(read_log(tmp_path / "log.jsonl")) == 2


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier whose labels hold line breaks."""
    folder = tmp_path_factory.mktemp("lines")
    rows = [{"text": f"{'good' if i % 2 else 'bad'} {i}", "label": LABELS[i % 2]} for i in range(20)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    said = onebase("adapt", tiny_run(), "--data", folder / "rows.jsonl", "--task", "classify", "--method", "head", "--out", folder / "a")  # fmt: skip
    assert said.status == 0, said
    return folder / "a"


GIVEN = ["one\u2028and the same", "form\x0cfeed", "next\x85line", "lone\rreturn", "café", "last"]


def by_shell(*words: str | Path, data: bytes, **env: str) -> Any:
    line = [sys.executable, "-m", "onebase.cli", *map(str, words)]
    return subprocess.run(
        line, input=data, capture_output=True, check=False, env=os.environ | env, timeout=300
    )


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_apply_answers_once_a_line(adapter: Path, end: str) -> None:
    words = ("apply", tiny_run(), "--adapter", adapter, "-")
    said = onebase(*words, "--json", stdin=end.join(GIVEN))
    assert [json.loads(line)["text"] for line in said.out.splitlines()] == GIVEN
    plain = onebase(*words, stdin=end.join(GIVEN))
    assert len(plain.out.splitlines()) == len(GIVEN)
    labels = {line.rsplit(" (", 1)[0] for line in plain.out.splitlines()}
    assert labels <= {cli_lines.one_line(label) for label in LABELS}


def test_apply_by_a_pipe(adapter: Path) -> None:
    words = ("apply", tiny_run(), "--adapter", adapter, "-", "--json")
    data = ("\ufeff" + "\n".join(GIVEN)).encode()
    # Whatever the locale says of text, standard input is UTF-8.
    said = by_shell(*words, data=data, LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert said.returncode == 0, said
    found = [json.loads(line)["text"] for line in said.stdout.decode().splitlines()]
    assert found == GIVEN
    for bad, says in ((b"caf\xe9\n", b"standard input:1: not UTF-8 (byte 0xe9 at offset 3)"), (b"a\nb\0c\n", b"standard input:2")):  # fmt: skip
        said = by_shell(*words, data=bad)
        assert said.returncode == 1 and says in said.stderr and b"Traceback" not in said.stderr, said
    said = by_shell("apply", tiny_run(), "--adapter", adapter, b"caf\xe9".decode("utf-8", "surrogateescape"), data=b"")  # fmt: skip
    assert said.returncode == 1 and said.stderr.startswith(b"error: "), said
