"""Start-up: `import onebase` and `onebase --help`, warm, beside the imports of peers.

Prints medians over fresh processes; `ratios` are ours over the peer (import onebase / import transformers, and so on).

    python bench/startup.py [--quick] [--isa avx2]
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import arguments, report

LIMIT_SECONDS = 0.3


def seconds(command: list[str], runs: int) -> float:
    """Median wall-clock of whole processes, one warm-up."""
    times = []
    for i in range(runs + 1):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if i:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer runs")
    args = arguments(parser)
    runs = 3 if args.quick else 15
    tool = str(Path(sys.executable).with_name("onebase"))
    found = {
        "python": seconds([sys.executable, "-c", "pass"], runs),
        "import onebase": seconds([sys.executable, "-c", "import onebase"], runs),
        "onebase --help": seconds([tool, "--help"], runs),
        "import transformers": seconds([sys.executable, "-c", "import transformers"], runs),
        "import torch": seconds([sys.executable, "-c", "import torch"], max(3, runs // 5)),
    }
    ratios = {
        "import_over_transformers": found["import onebase"] / found["import transformers"],
        "import_over_limit": found["import onebase"] / LIMIT_SECONDS,
        "help_over_limit": found["onebase --help"] / LIMIT_SECONDS,
    }
    report("startup", {"seconds": found}, ratios, quick=args.quick)


if __name__ == "__main__":
    main()
