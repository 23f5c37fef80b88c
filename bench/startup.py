"""Start-up time: `import onebase` and commands that need no torch (help, version, list, show, verify, mistakes), compared with imports of peers.

Prints medians and minima over fresh processes, warm; `ratios` are ours over the peer (import onebase / import transformers), or over the
limit: 0.3 s for the import, help and version, 0.6 s for the rest. On a shared machine the minimum is the meaningful number.

    python bench/startup.py [--quick] [--isa avx2]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import arguments, report

LIMIT_SECONDS, ANSWER_SECONDS = 0.3, 0.6


def seconds(command: list[str], runs: int, status: int = 0) -> tuple[float, float]:
    """Median and minimum wall-clock time of whole processes, after one warm-up."""
    times = []
    for i in range(runs + 1):
        began = time.perf_counter()
        done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert done.returncode == status, command
        if i:
            times.append(time.perf_counter() - began)
    return statistics.median(times), min(times)


def small_base(folder: Path) -> Path:
    """An untrained base with 0.1 million parameters."""
    from onebase.base.config import TextShape, text_base
    from onebase.base.folder import LoadedBase, save_base
    from onebase.base.model import BaseModel
    from onebase.modality.text.codec import TextCodec
    from onebase.modality.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.train([Path(__file__).read_text(encoding="utf-8")], 300)
    shape = TextShape(width=64, depth=2, head_dim=16, context=64, vocab_size=tokenizer.vocab_size)
    model = BaseModel(text_base(shape))
    model.reset(0)
    save_base(folder / "base", LoadedBase(model.eval(), TextCodec(tokenizer)))
    return folder / "base"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer runs")
    args = arguments(parser)
    runs = 3 if args.quick else 15
    tool = str(Path(sys.executable).with_name("onebase"))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ONEBASE_HOME"] = folder
        base = str(small_base(Path(folder)))
        rows = ["adapt", base, "--data", base, "--out", f"{folder}/out"]
        took = {
            "python": seconds([sys.executable, "-c", "pass"], runs),
            "import onebase": seconds([sys.executable, "-c", "import onebase"], runs),
            "onebase --help": seconds([tool, "--help"], runs),
            "onebase --version": seconds([tool, "--version"], runs),
            "onebase list": seconds([tool, "list"], runs),
            "onebase show": seconds([tool, "show", base], runs),
            "onebase verify": seconds([tool, "verify", base], runs),
            "a wrong path": seconds([tool, "generate", f"{folder}/gone", "hi"], runs, 1),
            "a misspelt option": seconds([tool, *rows, "-o", "epoch=3"], runs, 1),
            "import transformers": seconds([sys.executable, "-c", "import transformers"], max(3, runs // 5)),
            "import torch": seconds([sys.executable, "-c", "import torch"], max(3, runs // 5)),
        }
    found = {name: median for name, (median, _) in took.items()}
    least = {name: low for name, (_, low) in took.items()}
    ratios = {
        "import_over_transformers": least["import onebase"] / least["import transformers"],
        "import_over_limit": least["import onebase"] / LIMIT_SECONDS,
        "help_over_limit": least["onebase --help"] / LIMIT_SECONDS,
        "version_over_limit": least["onebase --version"] / LIMIT_SECONDS,
        "list_over_limit": least["onebase list"] / ANSWER_SECONDS,
        "show_over_limit": least["onebase show"] / ANSWER_SECONDS,
        "verify_over_limit": least["onebase verify"] / ANSWER_SECONDS,
        "wrong_path_over_limit": least["a wrong path"] / ANSWER_SECONDS,
        "wrong_option_over_limit": least["a misspelt option"] / ANSWER_SECONDS,
    }
    report("startup", {"seconds": found, "least_seconds": least}, ratios, quick=args.quick)


if __name__ == "__main__":
    main()
