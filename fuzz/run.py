"""Let atheris look for input that breaks a target, or run one file again.

python -m fuzz.run [--seconds N] [TARGET ...]    every target, or those named, N seconds each
python -m fuzz.run TARGET FILE                   one file through one target
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FOUND = Path(__file__).parent / "found"
MEMORY, SECONDS, LONGEST = 3000, 30, 200_000
"""What one input may take: megabytes (PyTorch alone takes 400), seconds; and how long it may be, bytes."""


def main() -> int:
    """0 where nothing was found, or nothing could be looked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        return _search(given.one, given.seconds)
    if len(given.words) == 2 and Path(given.words[1]).is_file():
        from fuzz.targets import TARGETS

        TARGETS[given.words[0]][0](Path(given.words[1]).read_bytes())
        return 0
    try:
        import atheris  # noqa: F401
    except ImportError:
        print(
            "atheris is not installed (pip install atheris; there is no wheel for every Python): nothing is done"
        )
        return 0
    from fuzz.targets import TARGETS

    failed = [name for name in given.words or TARGETS if _apart(name, given.seconds)]
    print(f"found in {', '.join(failed)}: see {FOUND}" if failed else "nothing was found")
    return int(bool(failed))


def _apart(name: str, seconds: int) -> int:
    """One target in a process of its own: libFuzzer ends it when it finds something."""
    print(f"--- {name}", flush=True)
    from fuzz.targets import ROOM, room

    line = [sys.executable, "-m", "fuzz.run", "--one", name, "--seconds", str(seconds)]
    with tempfile.TemporaryDirectory(
        prefix="onebase-fuzz-", dir=room()
    ) as place:  # libFuzzer cleans nothing up
        return subprocess.run(line, check=False, env=os.environ | {ROOM: place}).returncode


def _search(name: str, seconds: int) -> int:
    import atheris

    with atheris.instrument_imports(include=["onebase"]):
        from fuzz.targets import TARGETS, good, room
    target, file = TARGETS[name]
    FOUND.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=room()) as corpus:
        (Path(corpus) / "good").write_bytes((good() / file).read_bytes())
        flags = [
            f"-max_total_time={seconds}",
            f"-rss_limit_mb={MEMORY}",
            f"-timeout={SECONDS}",
            f"-max_len={LONGEST}",
            f"-artifact_prefix={FOUND}/{name}-",
            "-print_final_stats=0",
            "-verbosity=0",
        ]
        atheris.Setup([sys.argv[0], *flags, corpus], target)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
