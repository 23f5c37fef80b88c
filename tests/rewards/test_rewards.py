"""Rewards: what is right, what a user's function may do wrong, and programs that mean harm."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from onebase.errors import UserError
from onebase.rewards import RewardInput, checked, opened
from onebase.sandbox.programs import SandboxLimits, check_sandbox, runs
from tests.helpers import tiny_base


def isolated() -> bool:
    try:
        check_sandbox()
    except UserError:
        return False
    return True


shut_in = pytest.mark.skipif(not isolated(), reason="this machine has no landlock or no seccomp")


def judged(spec: str, completions: Sequence[str], **row: Any) -> list[float]:
    answers = [RewardInput("q", c, {"prompt": "q", **row}, f"row {i}") for i, c in enumerate(completions, 1)]
    return checked(spec).scores(answers)


def test_an_answer_is_exact_but_for_white_space_around_it() -> None:
    assert judged("exact", [" 12\n", "12.", "012", ""], answer=12) == [1, 0, 0, 0]


def test_numbers_are_compared_by_value_and_the_last_one_counts() -> None:
    said = ["It is 1,000.", "1e3", "1000.0", "1000 - 1", "-1000", "none", "", "2 and 1000"]
    assert judged("number", said, answer="1000") == [1, 1, 1, 0, 0, 0, 0, 1]
    assert judged("number", ["-.5", "0.5"], answer=-0.5) == [1, 0]
    check = checked("number").check
    for wrong in ("many", True, "nan", [1]):
        flaw = check({"answer": wrong})
        assert flaw is not None and "expected a number" in flaw[0]
    assert check({"answer": " 7 "}) is None


def test_a_format_is_of_the_whole_completion() -> None:
    assert judged(r"format:<a>.*</a>", ["<a>1\n2</a>", "<a>1</a>!", "<a>"]) == [1, 0, 0]
    with pytest.raises(UserError, match="is not a regular expression"):
        checked("format:(")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("exactly", "is not known"),
        ("none.py:f", "file none.py does not exist"),
        ("{file}:absent", "has no function 'absent'"),
        ("{broken}:f", "cannot be loaded: ZeroDivisionError"),
    ],
)
def test_what_is_no_reward_is_refused(spec: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text("def good(prompt, completion, row): return 1")
    (tmp_path / "broken.py").write_text("1 / 0")
    spec = spec.format(file=tmp_path / "file.py", broken=tmp_path / "broken.py")
    with pytest.raises(UserError, match=says), opened(spec, tiny_base()):
        pass


def test_a_function_of_the_user_s_own_is_called_and_its_mistakes_name_the_row(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def good(prompt, completion, row):\n    row['x'] = 1\n    return len(prompt + completion) + row['more']\n"
        "def fails(prompt, completion, row):\n    return row['absent']\n"
        "def nan(prompt, completion, row):\n    return float('nan')\n"
        "def text(prompt, completion, row):\n    return '1'\n"
        "def nothing(prompt, completion, row): pass\n"
    )
    row = {"more": 3}
    assert judged(f"{file}:good", ["", "abc"], **row) == [4.0, 7.0]
    assert row == {"more": 3}, "a function has changed the row of the next completion"
    reward = checked(f"{file}:good")
    assert len(reward.facts["file"]) == 64
    for name, says in (
        ("fails", "failed at row 1, completion 'abc': KeyError: 'absent'"),
        ("nan", "returned nan at row 1"),
        ("text", "returned '1' at row 1"),
        ("nothing", "returned None at row 1"),
    ):
        with pytest.raises(UserError, match=says):
            judged(f"{file}:{name}", ["abc"])


@shut_in
def test_programs_are_right_when_their_tests_come_to_the_end() -> None:
    right = "def f(x):\n    return x + 1"
    said = [right, f"Here it is:\n```python\n{right}\n```\nDone.", "def f(x): return x", "def f(", ""]
    assert judged("code", said, tests="import math\nassert f(1) == math.floor(2.5)") == [1, 1, 0, 0, 0]
    flaw = checked("code").check({"tests": "assert ("})
    assert flaw is not None and "is not valid Python" in flaw[0]


HOSTILE = {
    "an endless loop": "while True: pass",
    "sleep": "import time; time.sleep(60)",
    "fork": "import os; os.fork()",
    "a thread": "import threading; threading.Thread(target=print).start()",
    "another program": "import os; os.execv('/bin/true', ['true'])",
    "a large allocation": "x = bytearray(2**31)",
    "a file": "open('{folder}/made', 'w')",
    "a large file": "import tempfile; tempfile.TemporaryFile().write(b'x' * 2**24)",
    "a change of a file": "open('{folder}/kept', 'a').write('x')",
    "taking a file away": "import os; os.unlink('{folder}/kept')",
    "rights of a file": "import os; os.chmod('{folder}/kept', 0o777)",
    "reading a file": "open('{folder}/kept').read()",
    "looking into a folder": "import os; os.listdir('{folder}')",
    "the environment of the parent": "open('/proc/{parent}/environ').read()",
    "a signal to the parent": "import os; os.kill({parent}, 0)",
    "a signal to all": "import os; os.kill(-1, 0)",
    "the network": "import socket; socket.socket()",
    "more of everything": "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "leaving early": "import os; os._exit(0)",
    "leaving politely": "raise SystemExit(0)",
    "a flood through every door": "import os\nfor fd in range(64):\n  try:\n    while True: os.write(fd, b'x' * 65536)\n  except OSError: pass\nassert 0",
}


@shut_in
@pytest.mark.parametrize("what", HOSTILE)
def test_programs_that_mean_harm_do_none(what: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("mine")
    mode = kept.stat().st_mode
    began = time.perf_counter()
    program = HOSTILE[what].format(folder=tmp_path, parent=os.getpid())
    assert not runs(program, SandboxLimits(seconds=1, wall=1.5))
    assert (
        time.perf_counter() - began < 60
    )  # the limits are 1.5 s; a busy machine may be slow to start a process
    assert kept.read_text() == "mine" and kept.stat().st_mode == mode
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


@shut_in
def test_a_program_sees_nothing_of_ours_and_may_say_what_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEBASE_SECRET", "x")
    assert runs(
        "import os, sys\nassert sys.stdin.read() == ''\nassert not [k for k in os.environ if k != 'LC_CTYPE']\n"
        "assert sys.flags.isolated and not [p for p in sys.path if 'site-packages' in p]\n"
        "print('x' * 10**7)\nprint('y' * 10**7, file=sys.stderr)"
    )
