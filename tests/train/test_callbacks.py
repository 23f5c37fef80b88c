"""The log of a run as it is read back."""

import json
from pathlib import Path

import pytest

from onebase.train.callbacks import read_log


@pytest.mark.parametrize("cut", [1, 3, 4, 12])
def test_a_log_torn_anywhere_is_read_up_to_there(cut: int, tmp_path: Path) -> None:
    """Inside the line, inside a letter of two bytes, or before its end alone."""
    lines = "".join(json.dumps({"step": i, "note": "é"}, ensure_ascii=False) + "\n" for i in range(3))
    (tmp_path / "log.jsonl").write_bytes(lines.encode()[:-cut])
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")][:2] == [0, 1]
    assert read_log(tmp_path / "nothing.jsonl") == []
