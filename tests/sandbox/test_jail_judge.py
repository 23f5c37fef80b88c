"""Who judges: programs that would be right by a trick, and right programs in all the forms that tests ask for."""

import pytest

from onebase.errors import UserError
from onebase.rewards import RewardInput, checked
from onebase.sandbox.programs import Sandbox, SandboxLimits, check_sandbox

LIMITS = SandboxLimits(seconds=4, wall=8)


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    made = Sandbox()
    try:
        check_sandbox(made)
    except UserError as e:
        pytest.skip(f"this machine has no jail: {e.cause}")
    return made


ANY = """
class Any:
    def __init__(self, *a, **k): pass
    def __eq__(self, o): return True
    def __ne__(self, o): return False
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __eq__
    __bool__ = lambda self: True
    __hash__ = lambda self: 0
    def __sub__(self, *o): return self
    __rsub__ = __add__ = __radd__ = __abs__ = __round__ = __mod__ = __mul__ = __and__ = __xor__ = __sub__
    def __iter__(self): return iter(())
def add(*a): return Any()
"""
ZERO = "class Z:\n    def __sub__(s, o): return 0.0\n    __rsub__ = __sub__\ndef add(*a): return Z()"
SUBCLASS = "class X({}):\n    def __eq__(s, o): return True\n    __hash__ = None\n    def __ne__(s, o): return False\n"
FORGE = (
    "import json, os\ndef send(x):\n    b = x if isinstance(x, bytes) else json.dumps(x).encode()\n"
    "    os.write(61, len(b).to_bytes(4, 'big') + b)\n"
)
TRICKS = {
    "always equal": (ANY, "assert add(2, 2) == 4"),
    "always equal, on the right": (ANY, "assert 4 == add(2, 2)"),
    "never unequal": (ANY, "assert not add(2, 2) != 4"),
    "always near": (ANY, "assert abs(add(2, 2) - 4) < 1e-6"),
    "always the difference 0": (ZERO, "assert abs(add(2, 2) - 4) < 1e-6"),
    "always less": (ANY, "assert add(2, 2) <= 4"),
    "holds all": (ANY, "assert 4 in add(2, 2)"),
    "is in all": (ANY, "assert add(2, 2) in [4]"),
    "an int, it says": (ANY + "\nAny.__class__ = int", "assert isinstance(add(2, 2), int)"),
    "always equal in a list": (
        ANY + "\nf = lambda: [Any(), (Any(),), {'a': Any()}]",
        "assert f() == [4, (4,), {'a': 4}]",
    ),
    "as a key": (ANY + "\nf = lambda: {Any(): 1}", "assert f()[4] == 1"),
    "always equal by unittest": (ANY, "import unittest\nunittest.TestCase().assertEqual(add(2, 2), 4)"),
    "always near by unittest": (ANY, "import unittest\nunittest.TestCase().assertAlmostEqual(add(2, 2), 4)"),
    "an int that is always equal": (SUBCLASS.format("int") + "def f(): return X(3)", "assert f() == 4"),
    "a text that is always equal": (SUBCLASS.format("str") + "def f(): return X('a')", "assert f() == 'b'"),
    "a list that is always equal": (SUBCLASS.format("list") + "def f(): return X([1])", "assert f() == [2]"),
    "a dict that is always equal": (
        SUBCLASS.format("dict") + "def f(): return X(a=1)",
        "assert f() == {'a': 2}",
    ),
    "a tuple that is always equal": (
        SUBCLASS.format("tuple") + "def f(): return X([1])",
        "assert (2,) == f()",
    ),
    "a class in its place": (ANY.replace("def add(*a): return Any()", "add = Any"), "assert add(2, 2) == 4"),
    "all is true": ("def all(x): return True\ndef f(x): return 0", "assert all(f(x) == x for x in (1, 2))"),
    "abs is 0": ("def abs(x): return 0\ndef f(x): return 9", "assert abs(f(1) - 1) < 0.1"),
    "len is right": ("class L(int): pass\ndef len(x): return 3\ndef f(): return []", "assert len(f()) == 3"),
    "its own math": (
        "class math:\n    isclose = lambda *a: True\ndef f(): return 0",
        "assert math.isclose(f(), 1)",
    ),
    "builtins of its own": (
        "import builtins\nbuiltins.all = lambda x: True\ndef f(): return 0",
        "assert all([f()])",
    ),
    "another AssertionError": (
        "import builtins\nbuiltins.AssertionError = ValueError\ndef f(): return 0",
        "assert f()",
    ),
    "patched unittest": (
        "import unittest\nunittest.TestCase.assertEqual = lambda *a: None\ndef f(): return 0",
        "import unittest\nunittest.TestCase().assertEqual(f(), 1)",
    ),
    "skipped": (
        "import unittest\ndef f(): raise unittest.SkipTest",
        "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(), 1)\nunittest.main()",
    ),
    "skipped by another name": (
        "E = type('SkipTest', (Exception,), {'__module__': 'unittest'})\ndef f(): raise E",
        "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(), 1)\nunittest.main()",
    ),
    "the end of a map": ("def f(x): raise StopIteration", "for a in map(f, [1]): assert a == 1"),
    "an exit": ("def f(): raise SystemExit(0)", "assert f() == 1"),
    "an exit of the process": ("import os\ndef f(): os._exit(0)", "assert f() == 1"),
    "an exit that the tests catch": (
        "import os\ndef f(): os._exit(0)",
        "try: f()\nexcept BaseException: pass",
    ),
    "an exit when it is loaded": ("raise SystemExit(0)", "pass"),
    "an end at exit": ("import atexit, os\natexit.register(os._exit, 0)\ndef f(): return 0", "assert f()"),
    "a trace": ("import sys\nsys.settrace(lambda *a: None)\ndef f(): return 0", "assert f()"),
    "a verdict on every descriptor": (
        "import os\nfor fd in range(64):\n    try: os.write(fd, b'right')\n    except OSError: pass\nos._exit(0)",
        "assert 0",
    ),
    "no message": (FORGE + "send(b'{')", "assert 0"),
    "a message without an end": ("import os\nos.write(61, b'\\xff\\xff\\xff\\xff')", "assert 0"),
    "a nested message": (FORGE + "send(b'[' * 10**6)", "assert 0"),
    "an answer that is an order": (
        FORGE + "send({'op': 'call', 'on': 1, 'args': [], 'named': [], 'nodes': []})\ndef f(): return 0",
        "assert f()",
    ),
    "eval by name": (
        FORGE + "send({'out': ['x'], 'nodes': []})\n"
        "send({'out': [0], 'nodes': [['h', 'library', 'builtins:eval', []]]})",
        "assert f('1') == 1",
    ),
    "a value that holds itself": (FORGE + "send({'out': [0], 'nodes': [['t', [[0]]]]})", "assert f()"),
    "an error that is none": (FORGE + "send({'out': [0], 'nodes': [['h', 'error', 'eval', []]]})", "f()"),
    "a type of another module": (
        FORGE + "send({'out': [0], 'nodes': [['x', 'os.system', ['true']]]})",
        "f()",
    ),
}


@pytest.mark.parametrize("what", TRICKS)
def test_no_trick_makes_a_program_right(what: str, sandbox: Sandbox) -> None:
    program, tests = TRICKS[what]
    assert not sandbox.passes(program, tests, LIMITS)


REACHING = """
import sys
def reach(given):
    peer, number, found = given._onebase_peer, given._onebase_number, []
    for path in ('__globals__', '__code__', '__self__', '__class__', '__closure__', '__dict__', '__init__', '__func__', 'func',
                 'gi_frame', 'f_back', 'cr_frame', '_secret', '_T__own', '__reduce__', '__getattribute__'):
        try: found.append((path, str(peer.ask('get', number, path))))
        except (AttributeError, TypeError): pass
    for op in ('set', 'del'):
        try: found.append(peer.ask(op, number, '_secret', 5))
        except (AttributeError, TypeError): pass
    return found
"""


@pytest.mark.parametrize(
    "given",
    ["lambda: 1", "(x for x in (1,))", "T()", "T().see", "T", "io.StringIO()", "functools.partial(T)"],
)
def test_what_the_tests_hand_over_leads_nowhere(given: str, sandbox: Sandbox) -> None:
    tests = (
        "import functools, io\nclass T:\n    _secret, __own, seen = 4, 4, 4\n    def see(self): return 1\n"
    )
    assert sandbox.passes(REACHING, f"{tests}assert reach({given}) == []", LIMITS)
    assert sandbox.passes(
        "def see(given): return given.seen, given.see()", f"{tests}assert see(T()) == (4, 1)", LIMITS
    )


def test_the_tests_are_nowhere_in_the_memory_of_the_program(sandbox: Sandbox) -> None:
    """Its heap is read through a pipe, which answers EFAULT where there is nothing. What is its own it finds there."""
    program = """
import ctypes, gc, os, re
def search():
    reads, writes = os.pipe()
    libc = ctypes.CDLL(None)
    libc.sbrk.restype = ctypes.c_void_p
    top, found = libc.sbrk(0) // 4096 * 4096, set()
    starts = {top - 4096 * i for i in range(1, 4000)}
    for arena in {id(o) >> 20 for o in gc.get_objects()}:
        starts |= {(arena << 20) + 4096 * page for page in range(256)}
    for at in starts:
        if libc.write(writes, ctypes.c_void_p(at), 4096) == 4096:
            found |= set(re.findall(rb"xyz([a-j]{5})zyx", os.read(reads, 4096)))
    return found
kept = ["xyz" + chr(97) + "bcdezyx"]
"""
    assert sandbox.passes(program, "secret = 'xyzfghijzyx'\nassert search() == {b'abcde'}", LIMITS)


ADD = "def add(a, b): return a + b\n"
RIGHT = {
    "closes all": (
        ADD + "import os\nfor fd in range(64):\n    try: os.close(fd)\n    except OSError: pass",
        "assert add(2, 2) == 4",
    ),
    "closes all at once": (ADD + "import os\nos.closerange(0, 4096)", "assert add(2, 2) == 4"),
    "closes in a call": (
        "import os\ndef f():\n    os.closerange(0, 99)\n    return 1",
        "assert f() == 1\nassert f() == 1",
    ),
    "puts others in their place": (
        ADD + "import os\nfor fd in range(64):\n    try: os.dup2(0, fd)\n    except OSError: pass",
        "assert add(2, 2) == 4",
    ),
    "numbers by value": ("def f(): return 240.0", "assert f() == 240"),
    "nan": ("def f(): return float('nan')", "import math\nassert math.isnan(f())"),
    "a large number": ("def f(): return 7**200000", "assert f() == 7**200000"),
    "a list in itself": (
        "def f():\n    a = [1]\n    a.append(a)\n    return a",
        "r = f()\nassert r[1] is r and r[0] == 1",
    ),
    "deep lists": (
        "def f():\n    x = []\n    for _ in range(10**5): x = [x]\n    return x",
        "r = f()\nwhile r: r = r[0]\nassert r == []",
    ),
    "half a pair of letters": ("def f(s): return s", "assert f('\\ud800\\u2028') == '\\ud800\\u2028'"),
    "types of the library": (
        "import collections, decimal, fractions, datetime\nv = collections.Counter('aab'), collections.deque([1]), decimal.Decimal('1.50'),"
        " fractions.Fraction(1, 2), datetime.datetime(2020, 1, 2), 1j, b'x', bytearray(b'y'), {1}, frozenset([2]), range(3), ..., -0.0\n"
        "def f(): return v",
        "import collections, decimal, fractions, datetime, math\nassert f() == (collections.Counter('aab'), collections.deque([1]),"
        " decimal.Decimal('1.5'), fractions.Fraction(1, 2), datetime.datetime(2020, 1, 2), 1j, b'x', bytearray(b'y'), {1}, frozenset([2]),"
        " range(3), ..., 0.0)\nassert math.copysign(1, f()[-1]) == -1 and str(f()[2]) == '1.50'",
    ),
    "a class": (
        "class Stack:\n    def __init__(s): s.x = []\n    def push(s, v): s.x.append(v)\n    def pop(s): return s.x.pop()\n    def __len__(s): return len(s.x)",
        "s = Stack()\ns.push(1)\ns.push([2])\nassert len(s) == 2 and s.pop() == [2] and s.x == [1] and isinstance(s, Stack)\n"
        "try: s.pop(), s.pop()\nexcept IndexError as e: assert 'pop' in str(e)\nelse: assert 0",
    ),
    "operators of a class": (
        "class V:\n    def __init__(s, x): s.x = x\n    def __add__(s, o): return V(s.x + o.x)\n    def __mul__(s, k): return V(s.x * k)\n"
        "    def __eq__(s, o): return isinstance(o, V) and s.x == o.x\n    def __lt__(s, o): return s.x < o.x",
        "assert V(1) + V(2) == V(3) and (V(2) * 3).x == 6 and V(2) * 3 == V(6) and sorted([V(3), V(1)])[0].x == 1",
    ),
    "an error of its own": (
        "class Mine(ValueError):\n    def __init__(s, code):\n        super().__init__('m')\n        s.code = code\ndef f(): raise Mine(3)",
        "try: f()\nexcept Mine as e: assert e.code == 3 and str(e) == 'm' and isinstance(e, ValueError)\nelse: assert 0",
    ),
    "functions of the tests": (
        "def call(g, x): return g(x)",
        "import math\nassert call(lambda v: v + 1, 2) == 3 and call(len, 'abc') == 3 and call(str.upper, 'a') == 'A' and call(math.sqrt, 4) == 2",
    ),
    "changed arguments": (
        "def f(l, d):\n    l.sort()\n    d['x'].append(l)\n    return d",
        "a, b = [2, 1], {'x': []}\nassert f(a, b) is b and a == [1, 2] and b['x'][0] is a",
    ),
    "a generator": (
        "def g(n):\n    for i in range(n): yield i",
        "assert list(g(3)) == [0, 1, 2]\nit = g(1)\nassert next(it) == 0 and next(it, 9) == 9",
    ),
    "a named tuple": (
        "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(): return P(1, 2)",
        "assert f() == (1, 2) and f().y == 2 and P(3, 4).x == 3",
    ),
    "enums": (
        "import enum\nclass C(enum.Enum):\n    R = 1\nclass I(enum.IntEnum):\n    A = 2\ndef f(): return C.R, I.A",
        "assert f()[0] == C.R and f()[0].value == 1 and f()[1] == 2 and f()[1].name == 'A'",
    ),
    "a subclass of list": (
        "class L(list): pass\nmade = L([1])\ndef f(): return made",
        "f().append(2)\nassert f() == [1, 2] and [1, 2] == f() and f() != [1] and 2 in f()",
    ),
    "names that change": (
        "kept, n = [], 0\ndef add(v):\n    global n\n    kept.append(v)\n    n += 1",
        "add(5)\nassert kept == [5] and n == 1 and kept[0] == 5",
    ),
    "what it prints": (
        "def f(): print('hi')",
        "import contextlib, io\nto = io.StringIO()\nwith contextlib.redirect_stdout(to): f()\nassert to.getvalue() == 'hi\\n'",
    ),
    "what it reads": (
        "def f(): return int(input())",
        "import io, sys\nsys.stdin = io.StringIO('4\\n5\\n')\nassert f() == 4 and f() == 5",
    ),
    "a name of a builtin": ("def pow(a, b): return a ** b + 1", "assert pow(2, 3) == 9"),
    "trees of the tests": (
        "def depth(n): return 0 if n is None else 1 + max(depth(n.left), depth(n.right))",
        "class N:\n    def __init__(s, l=None, r=None): s.left, s.right = l, r\nassert depth(N(N(), N(N()))) == 3",
    ),
    "unittest": (
        ADD,
        "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(add(2, 2), 4)\n"
        "        with self.assertRaises(TypeError): add(1, 'x')\nif __name__ == '__main__': unittest.main()",
    ),
    "check(candidate)": (
        ADD,
        "METADATA = {}\ndef check(candidate):\n    assert candidate(2, 2) == 4\ncheck(add)",
    ),
}


@pytest.mark.parametrize("what", RIGHT)
def test_a_right_program_is_right(what: str, sandbox: Sandbox) -> None:
    program, tests = RIGHT[what]
    assert sandbox.passes(program, tests, LIMITS)
    assert not sandbox.passes(program, f"{tests}\nassert 0", LIMITS) or "unittest.main()" in tests


def test_tests_that_call_nothing_are_refused() -> None:
    check = checked("code").check
    flaw = check({"tests": "METADATA = {'a': 1}\ndef check(candidate):\n    assert candidate(1) == 2"})
    assert (
        flaw is not None and "'tests' defines check and calls nothing" in flaw[0] and "check(NAME)" in flaw[1]
    )
    for fine in ("assert f(1) == 2", "def check(c): assert c(1)\ncheck(f)", "x = f(1)", "pass"):
        assert check({"tests": fine}) is None


def test_the_reward_says_what_the_programs_were_shut_in_with() -> None:
    reward = checked("code")
    assert "landlock" in reward.seen["sandbox"] and "seccomp" in reward.seen["sandbox"]
    answers = [
        RewardInput("q", c, {"prompt": "q", "tests": "assert add(2, 2) == 4"}, "row 1") for c in (ADD, ANY)
    ]
    assert reward.scores(answers) == [1.0, 0.0]
