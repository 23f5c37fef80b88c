"""Every example runs as a user would run it, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.pictures import paired
from tests.native import saved
from tests.pictures import sighted
from tests.pretrained import tiny_run
from tests.residues import esm
from tests.spoken import hearing

ROOT = Path(__file__).parents[1]
# (name, whether a base is given, or one that sees or hears, what it must say)
EXAMPLES: dict[str, tuple[bool | str, str]] = {
    "pretrain_tiny": (False, "held-out bits per byte"),
    "adapt_classify": (True, "accuracy"),
    "compare_systems": (True, "the best adapter is a "),
    "saved_prompt": (True, "On Friday we cook soup ->"),
    "rerank_and_extract": (True, "answer '"),
    "search_documents": (True, "found on page 200"),
    "adapt_continue": (True, "forgetting"),
    "adapt_distil": (True, "student_accuracy"),
    "adapt_prefer": (True, "reward_accuracy"),
    "adapt_reinforce": (True, "greedy after: reward"),
    "adapt_chat_lora": (True, "with the adapter: 'It is food.'"),
    "generate_and_stream": (True, "one vector for each text: (2, 64)"),
    "classify_images": ("sees", "accuracy"),
    "find_pictures": ("pairs", "of 6 found first"),
    "transcribe": ("hears", "2.0 seconds of audio"),
    "serve_and_ask": (True, "chat, streamed:"),
    "structured_output": (True, "dish and guests:"),
    "adapt_transcribe": ("hears", "with the adapter: wer"),
    "adapt_caption": ("native", "with the adapter: exact_match"),
    "adapt_contacts": ("proteins", "with the adapter: long_range_precision"),
    "adapt_style": (False, "never shown in it, adapter: flow_loss"),
    "draw_digits": (False, "digits that it has not seen"),
    "draw_shapes": (False, "have the colour"),
    "open_pipeline": (False, "draws the same in diffusers, within"),
    "train_clip": (False, "nearest to 'a blue square and a red square'"),
    "segment_shapes": (False, "which it has never seen"),
    "masked_digits": (False, "a head of 100 labels: accuracy"),
    "own_objective": (False, "nats per token over 15 steps"),
}

SHORTER = {
    "draw_digits": ["20"],
    "masked_digits": ["10"],
    "segment_shapes": ["10"],
    "draw_shapes": ["5"],
    "train_clip": ["10"],
    "adapt_style": ["5", "1"],
}
"""Arguments with which an example that trains for minutes ends in seconds."""
NEEDS = {"open_pipeline": "diffusers"}
"""Packages without which an example is skipped."""


def test_every_example_is_run() -> None:
    assert {p.stem for p in (ROOT / "examples").glob("*.py")} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str, tmp_path: Path) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    given, said = EXAMPLES[name]
    made = {"sees": sighted, "hears": hearing, "pairs": paired, "native": saved, "proteins": esm}.get(
        str(given)
    )
    words = [str(made(tmp_path / "base") if made else tiny_run())] if given else SHORTER.get(name, [])
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py"), *words],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert said in done.stdout
    assert "Traceback" not in done.stderr
