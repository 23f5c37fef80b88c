"""`onebase plan --machine`: what this machine computes with, and why; and threads that fit it."""

import json
import os
import subprocess
import sys

import torch

from onebase.model.device import compute_dtype, has_bf16
from onebase.model.kernels import compiled
from tests.pretrained import onebase as command


def test_what_was_chosen_is_shown_with_the_times_that_decided() -> None:
    said = command("plan", "--machine")
    assert said.status == 0 and "Newton-Schulz in" in said.out and "GFLOP/s" in said.out
    facts = json.loads(command("plan", "--machine", "--json").out)
    native = has_bf16(torch.device("cpu"))
    assert facts["bf16_native"] is native and facts["newton_schulz"] == ("bf16" if native else "fp32")
    assert facts["instructions"] == torch.backends.cpu.get_cpu_capability()
    if compiled.direct() is None:
        assert facts["rows_as_stored"] == dict.fromkeys(("fp32", "8 bits", "4 bits"), 0)
        return
    asked = {c["question"]: c for c in facts["choices"]}
    for kind, most in facts["rows_as_stored"].items():
        assert asked[f"1 rows times a matrix of {kind}"]["seconds"].keys() == {"as stored", "made dense"}
        assert most == 0 or asked[f"{most} rows times a matrix of {kind}"]["chosen"] == "as stored"


def test_a_recipe_or_the_machine() -> None:
    for words in ((), ("recipes/tiny.yaml", "--machine")):
        said = command("plan", *words)
        assert said.status == 1 and "onebase plan --machine" in said.err and "Traceback" not in said.err


EMULATED = """
import logging, torch
logging.basicConfig(format="%(message)s")
from onebase.model.device import compute_dtype
for name in ("auto", "fp32", "bf16", "bf16"):
    compute_dtype(name, torch.device("cpu"))
"""


def test_a_format_that_is_emulated_is_said_once() -> None:
    env = os.environ | {"ATEN_CPU_CAPABILITY": "avx2"}
    said = subprocess.run(
        [sys.executable, "-c", EMULATED], env=env, capture_output=True, text=True, check=True
    )
    assert said.stderr.count("emulated") == 1
    assert compute_dtype("fp32", torch.device("cpu")) == torch.float32


FITTED = """
import torch
from onebase import machine
from onebase.model import device
torch.set_num_threads(4)
device.cores = lambda: 1
device.pick_device("cpu")
print(torch.get_num_threads())
torch.set_num_threads(3)  # asked for afterwards
device.pick_device("cpu")
print(torch.get_num_threads())
"""


def test_threads_are_no_more_than_the_cores_of_a_container() -> None:
    plain = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    for env, wanted in ((plain, ["1", "3"]), (plain | {"OMP_NUM_THREADS": "4"}, ["4", "3"])):
        said = subprocess.run(
            [sys.executable, "-c", FITTED], env=env, capture_output=True, text=True, check=True
        )
        assert said.stdout.split() == wanted
