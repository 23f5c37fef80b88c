"""Shared parts of the bench scripts: the instruction set, peers, facts about the run, result files, and the last line of output.

    --isa avx2    on a chip with AVX-512 or AMX: this process and its children do not use these instructions

So one machine can measure two classes of chips. The result has the requested class, the one that torch uses, and the chip. The file name has
the class that was used: `decode-avx2-2026-11-30.json`, `decode-amx-2026-11-30.json`.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PEERS = (
    "numba",
    "transformers",
    "accelerate",
    "datasets",
    "peft",
    "trl",
    "sentence_transformers",
    "faster_whisper",
    "xllamacpp",
)
ISA_ENV: dict[str, dict[str, str]] = {
    "native": {},
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels, and the vector width of compiled ones
        "TORCHINDUCTOR_CPP_MARCH": "haswell",  # the compiler's target; else the machine's own
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",  # numpy
        # The name alone is not enough: numba adds the features of the machine. Both are part of the key of its cache on disk.
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+popcnt,-avx512f",
        "CT2_FORCE_CPU_ISA": "AVX2",  # faster-whisper
    },
}
"""Environment variables per instruction set. llama.cpp has no such variable (`bench/decode.py` reports what it runs)."""
READ_ONCE = ("torch", "numpy", "numba", "ctranslate2")
"""Modules that read the variables on import, or soon after."""


def arguments(parser: argparse.ArgumentParser, words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments with --isa, which then applies to this process and its children."""
    parser.add_argument(
        "--isa",
        choices=tuple(ISA_ENV),
        default="native",
        help="instruction set: the machine's own, or at most AVX2",
    )
    args = parser.parse_args(words)
    set_isa(args.isa)
    return args


def set_isa(isa: str) -> None:
    """Limit this process and its children to an instruction set. Exits if the chip lacks it."""
    if not ISA_ENV[isa]:
        return
    early = [m for m in READ_ONCE if m in sys.modules]
    assert not early, f"{', '.join(early)} imported before --isa was read"
    if platform.machine() not in ("x86_64", "AMD64") or " avx2 " not in _flags():
        sys.exit(f"--isa {isa}: this machine's chip has no AVX2\n  leave --isa out")
    os.environ.update(ISA_ENV[isa])


def current_isa() -> str:
    """The instruction set that the environment limits this process to."""
    return next((k for k, v in ISA_ENV.items() if v and v.items() <= os.environ.items()), "native")


def class_of(capability: str, amx: bool) -> str:
    """The class of a CPU from torch's capability: amx, avx512, avx2, or torch's own name (default, sve256)."""
    if capability == "AVX512":
        return "amx" if amx else "avx512"
    return capability.lower().replace(" ", "_")


def isa_facts() -> dict[str, Any]:
    """The requested and the used instruction set, and the chip.

    asked: --isa. set: the variables of ISA_ENV that are set. torch: the instructions that its kernels use. class: the same with AMX. bf16: whether
    bf16 arithmetic is native, so that `auto` means bf16. chip: the class of what the chip supports. cpu: its name.
    """
    import torch

    from onebase.artifact.record import machine_facts
    from onebase.model.device import has_bf16

    capability, amx = torch.backends.cpu.get_cpu_capability(), torch.cpu._is_amx_tile_supported()
    wide = torch.cpu._is_avx512_supported()
    return {
        "asked": current_isa(),
        "set": {k: os.environ[k] for k in ISA_ENV["avx2"] if k in os.environ},
        "torch": capability,
        "class": class_of(capability, amx),
        "bf16": has_bf16(torch.device("cpu")),
        "chip": class_of("AVX512" if wide else capability, amx),
        "cpu": machine_facts()["cpu"],
    }


def chip_dtype() -> str:
    """`bf16` if the chip, as limited by --isa, multiplies it, else `fp32`: our `auto`, and the dtype for peers."""
    import torch

    from onebase.model.device import has_bf16

    return "bf16" if has_bf16(torch.device("cpu")) else "fp32"


def record_path(name: str, kind: str, date: str) -> Path:
    """The result file of a bench: its name, the class of instructions, the day (of an ISO date)."""
    return RESULTS / f"{name}-{kind}-{date[:10]}.json"


def _flags() -> str:
    """The flags of the first CPU, surrounded by spaces; AVX2 if the system does not list them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return " avx2 "
    return next((f" {x.split(':', 1)[1]} " for x in lines if x.startswith("flags")), "")


def need(*modules: str) -> None:
    """Exit with the install command if a module is missing."""
    missing = [m for m in modules if importlib.util.find_spec(m) is None]
    if missing:
        sys.exit(f"{', '.join(missing)} not installed\n  {sys.executable} -m pip install -e '.[bench]'")


def commit() -> str:
    """The measured commit, with `+changes` if the tree differs from it; `unknown` outside git."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        head = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--", "src", "bench", "pyproject.toml", ":!bench/results")
    except OSError:
        return "unknown"
    return (head + ("+changes" if changed else "")) if head else "unknown"


def versions() -> dict[str, str]:
    """Versions of onebase, its dependencies, and the installed peers."""
    from onebase.artifact.record import version_facts

    found = version_facts()
    for name in PEERS:
        if importlib.util.find_spec(name):
            found[name] = importlib.metadata.version(name)
    return found


def facts() -> dict[str, Any]:
    """Date, commit, hardware, instructions and versions."""
    from onebase.artifact.record import machine_facts

    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "date": now,
        "commit": commit(),
        "machine": machine_facts(),
        "isa": isa_facts(),
        "versions": versions(),
    }


def child(command: Sequence[str], env: dict[str, str] | None = None, timeout: float = 3600) -> dict[str, Any]:
    """Run a fresh process and read the JSON object on its last line. On failure, exits with the end of its standard error."""
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=timeout)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        sys.exit(f"{' '.join(command)} failed ({done.returncode})\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def report(
    name: str, results: dict[str, Any], ratios: Mapping[str, float | None], *, quick: bool = False
) -> None:
    """Write bench/results/<name>-<class>-<date>.json (not for quick runs) and print the same content as the last line.

    A ratio is None if its sides cannot be compared; the results contain the reason.
    """
    rounded = {k: None if v is None else round(v, 4) for k, v in ratios.items()}
    whole = {"bench": name, "quick": quick, "ratios": rounded, "results": results, **facts()}
    if not quick:
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = record_path(name, whole["isa"]["class"], whole["date"])
        path.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
        print(f"written to {path.relative_to(ROOT)}", file=sys.stderr)
    print(json.dumps(whole))
