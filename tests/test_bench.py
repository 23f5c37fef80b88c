"""What the bench scripts share: the instruction set that they and their children are held to, and the names of their records."""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import common

ROOT = Path(__file__).parents[1]
SIDES = ("adapt_sides", "decode_sides", "training_sides", "named_pictures", "native_data", "common")
"""What other scripts run or import."""
SCRIPTS = sorted(p for p in (ROOT / "bench").rglob("*.py") if p.stem not in SIDES)
HAS_AVX2 = platform.machine() in ("x86_64", "AMD64") and " avx2 " in common._flags()
needs_avx2 = pytest.mark.skipif(not HAS_AVX2, reason="the chip has no AVX2 to be held to")

SEEN = """
import json, os
from onebase.model.device import has_bf16
import torch
print(json.dumps({"env": dict(os.environ), "torch": torch.backends.cpu.get_cpu_capability(), "bf16": has_bf16(torch.device("cpu"))}))
"""
LOOP = """
import json
from numba import float32, njit
@njit((float32[::1], float32[::1], float32), fastmath=True)
def add(x, y, a):
    for i in range(x.shape[0]):
        y[i] += a * x[i]
(text,) = add.inspect_asm().values()
cpu, features = add.targetctx.codegen().magic_tuple()[1:]
print(json.dumps({"zmm": text.count("zmm"), "ymm": text.count("ymm"), "cpu": cpu, "features": features}))
"""


@pytest.fixture
def environment() -> Iterator[None]:
    """The environment as it was, afterwards."""
    before = dict(os.environ)
    for name in common.ISA_ENV["avx2"]:
        os.environ.pop(name, None)
    yield
    os.environ.clear()
    os.environ.update(before)


def child_output(code: str, *words: str) -> dict[str, Any]:
    """What a child of a bench script prints, the script being called with these words."""
    program = (
        "import argparse, json, sys\n"
        "from bench import common\n"
        "common.arguments(argparse.ArgumentParser(), sys.argv[1:])\n"
        f"print(json.dumps(common.child([sys.executable, '-c', {code!r}])))"
    )
    return common.child([sys.executable, "-c", program, *words], os.environ | {"PYTHONPATH": _path()})


def _path() -> str:
    return os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])


@needs_avx2
@pytest.mark.usefixtures("environment")
def test_children_of_a_held_script_compute_with_no_more_than_avx2() -> None:
    seen = child_output(SEEN, "--isa", "avx2")
    assert common.ISA_ENV["avx2"].items() <= seen["env"].items()
    assert (seen["torch"], seen["bf16"]) == ("AVX2", False)


@pytest.mark.usefixtures("environment")
def test_without_isa_nothing_is_set() -> None:
    assert not common.ISA_ENV["avx2"].keys() & child_output(SEEN)["env"].keys()


@needs_avx2
@pytest.mark.usefixtures("environment")
def test_numba_makes_no_wider_vectors_and_keeps_them_apart_on_disk() -> None:
    pytest.importorskip("numba")
    here, there = child_output(LOOP), child_output(LOOP, "--isa", "avx2")
    assert there["zmm"] == 0 < there["ymm"]
    # The key of its cache: with the features of the machine a chip with AVX-512 would have its vectors in spite of the name.
    assert there["cpu"] == "haswell"
    assert there["features"] == common.ISA_ENV["avx2"]["NUMBA_CPU_FEATURES"]
    assert here["features"] != there["features"]


@pytest.mark.usefixtures("environment")
def test_what_is_held_is_known_by_the_whole_environment() -> None:
    assert common.current_isa() == "native"
    os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
    assert common.current_isa() == "native"
    facts = common.isa_facts()
    assert facts["asked"] == "native" and facts["set"] == {"ATEN_CPU_CAPABILITY": "avx2"}
    os.environ.update(common.ISA_ENV["avx2"])
    assert common.current_isa() == common.isa_facts()["asked"] == "avx2"


@pytest.mark.usefixtures("environment")
def test_isa_is_refused_after_torch_where_it_would_do_nothing() -> None:
    assert "torch" in sys.modules or __import__("torch")
    with pytest.raises(AssertionError, match="torch"):
        common.arguments(argparse.ArgumentParser(), ["--isa", "avx2"])


def test_a_chip_without_avx2_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "READ_ONCE", ())
    monkeypatch.setattr(common, "_flags", lambda: " fpu sse2 ")
    with pytest.raises(SystemExit, match="no AVX2"):
        common.set_isa("avx2")


@pytest.mark.parametrize(
    ("capability", "amx", "expected"),
    [
        ("AVX512", True, "amx"),
        ("AVX512", False, "avx512"),
        # Held to AVX2 on a chip with AMX.
        ("AVX2", True, "avx2"),
        ("DEFAULT", False, "default"),
        ("SVE256", False, "sve256"),
        ("Z VECTOR", False, "z_vector"),
    ],
)
def test_the_class_is_that_of_what_was_used(capability: str, amx: bool, expected: str) -> None:
    assert common.class_of(capability, amx) == expected


@given(
    st.from_regex(r"[a-z]+([_-][a-z]+)*", fullmatch=True),
    st.sampled_from(["AVX512", "AVX2", "DEFAULT", "SVE256"]),
    st.booleans(),
    st.datetimes(),
)
def test_records_of_both_chips_lie_side_by_side(name: str, capability: str, amx: bool, at: Any) -> None:
    kind = common.class_of(capability, amx)
    path = common.record_path(name, kind, at.isoformat())
    assert path.parent == common.RESULTS
    assert path.name == f"{name}-{kind}-{at.date().isoformat()}.json"
    others = {common.record_path(name, k, at.isoformat()) for k in {"amx", "avx512", "avx2"} - {kind}}
    assert path not in others


def test_a_record_has_its_instructions_and_a_ratio_may_be_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(common, "ROOT", tmp_path)
    common.report("thing", {"a": 1}, {"known": 1.23456, "unknown": None})
    (file,) = tmp_path.iterdir()
    whole = json.loads(file.read_text(encoding="utf-8"))
    assert whole["ratios"] == {"known": 1.2346, "unknown": None}
    assert whole["isa"] == common.isa_facts()
    assert re.fullmatch(rf"thing-{whole['isa']['class']}-\d{{4}}-\d\d-\d\d\.json", file.name)


def test_no_script_imports_what_reads_the_environment_before_it_is_set() -> None:
    program = (
        "import runpy, sys\n"
        "for path in sys.argv[1:]:\n"
        "    sys.path.insert(0, path.rsplit('/', 1)[0])\n"
        "    runpy.run_path(path, run_name='imported')\n"
        f"    early = set({common.READ_ONCE!r}) & set(sys.modules)\n"
        "    assert not early, (path, early)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, SCRIPTS)],
        env=os.environ | {"PYTHONPATH": _path()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_every_script_takes_isa(script: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(script), "--help"],
        env=os.environ | {"PYTHONPATH": _path()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "--isa {native,avx2}" in done.stdout and "--quick " in done.stdout


@pytest.mark.parametrize(
    ("said", "asked", "kind", "expected"),
    [
        ("CPU : SSE3 = 1 | AVX2 = 1 | FMA = 1 | REPACK = 1 | ", "native", "avx2", "same"),
        ("CPU : SSE3 = 1 | AVX2 = 1 | FMA = 1 | REPACK = 1 | ", "avx2", "avx2", "same"),
        ("CPU : SSE3 = 1 | AVX2 = 1 | FMA = 1 | REPACK = 1 | ", "native", "amx", "narrower"),
        ("CPU : AVX2 = 1 | AVX512 = 1 | AMX_INT8 = 1 | ", "avx2", "avx2", "wider"),
        ("CPU : AVX2 = 1 | AVX_VNNI = 1 | ", "avx2", "avx2", "wider"),
        ("CPU : AVX2 = 1 | AVX512 = 0 | ", "avx2", "avx2", "same"),
        ("CPU : AVX2 = 1 | AVX512 = 1 | ", "native", "avx512", "same"),
    ],
)
def test_llama_cpp_is_compared_where_its_instructions_are_no_wider(
    said: str, asked: str, kind: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    decode = __import__("decode")
    assert decode.compared(decode.instructions(said), {"asked": asked, "class": kind}) == expected
