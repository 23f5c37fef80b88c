"""What every bench script shares: peers, facts about the run, result files, and the last line of output."""

import datetime
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PEERS = ("transformers", "accelerate", "datasets")


def need(*modules: str) -> None:
    """Exit with the command that installs what is missing."""
    missing = [m for m in modules if importlib.util.find_spec(m) is None]
    if missing:
        sys.exit(f"{', '.join(missing)} not installed\n  {sys.executable} -m pip install -e '.[bench]'")


def commit() -> str:
    """The commit that was measured, with `+changes` when the tree differs from it; `unknown` outside of git."""

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
    """Versions of ours, of what we stand on, and of the peers that are installed."""
    from onebase.artifact.record import version_facts

    found = version_facts()
    for name in PEERS:
        if importlib.util.find_spec(name):
            found[name] = importlib.metadata.version(name)
    return found


def facts() -> dict[str, Any]:
    """Date, commit, hardware and versions."""
    from onebase.artifact.record import machine_facts

    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"date": now, "commit": commit(), "machine": machine_facts(), "versions": versions()}


def child(command: Sequence[str], env: dict[str, str] | None = None, timeout: float = 3600) -> dict[str, Any]:
    """Run a fresh process and read the JSON object on its last line. A failure shows the end of what it said."""
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=timeout)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        sys.exit(f"{' '.join(command)} failed ({done.returncode})\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def report(name: str, results: dict[str, Any], ratios: dict[str, float], *, quick: bool = False) -> None:
    """Write bench/results/<name>-<date>.json (not for quick runs) and print the last line, with the same content."""
    ratios = {k: round(v, 4) for k, v in ratios.items()}
    whole = {"bench": name, "quick": quick, "ratios": ratios, "results": results, **facts()}
    if not quick:
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{name}-{whole['date'][:10]}.json"
        path.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
        print(f"written to {path.relative_to(ROOT)}", file=sys.stderr)
    print(json.dumps(whole))
