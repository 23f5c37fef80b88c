"""The demo's report: complete, self-contained, honest about what is missing, and safe with hostile text."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onebase.demo.report import marked, render, score, write_report
from onebase.demo.results import Beside, DemoResult, Generated, Row
from onebase.errors import ArtifactError
from onebase.evaluation.bootstrap import Score, mean_score, ratio_score
from onebase.evaluation.gate import System, gate
from onebase.evaluation.paired import RowSums, mean_sums
from tests.pages import Page

HOSTILE = "</pre><script>alert('x')</script> & <img src=http://evil.example/a.png> \x1b[31m \u202e"


def row(task: str, setting: str, metric: str, means: tuple[float, ...], n: int = 400) -> Row:
    """A task's row: scores drawn about `means` for base, untrained twin and two classical systems."""
    rng = np.random.default_rng(sum(map(ord, task + setting)))
    names = (
        f"base + {setting}",
        f"untrained + {setting}",
        "TF-IDF + logistic regression",
        "nearest neighbour",
    )
    counts = np.full(n, 10.0)
    systems = []
    for i, (name, mean) in enumerate(zip(names, means, strict=True)):
        if metric == "accuracy":
            each = (rng.random(n) < mean).astype(float)
        else:
            each = rng.normal(mean, 1.0, n) * (10.0 if metric == "nats_per_token" else 1.0)
        found = ratio_score(metric, each, counts) if metric == "nats_per_token" else mean_score(metric, each)
        parts = RowSums(each, counts if metric == "nats_per_token" else np.ones(n))
        systems.append(
            System(name, found, parts, (12.5, 11.0, 0.6, 0.002)[i], (0, 96_000, 1_400_000, 250)[i])
        )
    verdict = gate(metric, systems[0], systems[1], systems[2:])
    return Row(task, setting, metric, systems[0], systems[1], tuple(systems[2:]), verdict)


def curve(steps: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "step": i,
            "total": steps,
            "loss": 3.4 + 4.9 * float(np.exp(-8 * i / steps)) + float(rng.normal(0, 0.08)),
            "factor": min(1.0, (i + 1) / 10, 2.5 * (1 - i / steps) + 0.02),
            "tokens": (i + 1) * 8192,
            "tokens_per_second": 10_500 + float(rng.normal(0, 300)),
            "skipped": False,
        }
        for i in range(steps)
    ]


def full() -> DemoResult:
    """A whole run as the demo makes it."""
    source = {"documents": 2939, "bytes": 9_149_975, "holdout_documents": 47, "holdout_bytes": 149_998}
    return DemoResult(
        out="runs/my demo",
        recipe={
            "model": {"width": 192, "depth": 4, "head_dim": 64, "context": 256, "vocab_size": 4096},
            "train": {"minutes": 2.75, "steps": None, "batch_size": 32, "sequence_length": 256},
        },
        sources={
            "dialogue": source | {"duplicates_removed": 1, "licence": "MIT"},
            "code": source | {"duplicates_removed": 0, "licence": "PSF-2.0"},
        },
        facts={
            "fingerprint": "ob1-" + "ab12" * 16,
            "config.parameters": 3_072_384,
            "data.fingerprint": "ds1-" + "0f" * 32,
            "tokens.read": 1_802_240,
            "tokens.supervised": 1_795_000,
            "tokens.by_source": {"dialogue": 1_100_000, "code": 702_240},
            "train.steps": 220,
            "train.skipped_steps": 0,
            "seconds.training": 165.2,
            "flops.formula": 4.1e13,
            "flops.counted": 4.2e13,
            "machine": {
                "cpu": "Some CPU @ 2.0GHz",
                "cores": 2,
                "memory_bytes": 8_000_000_000,
                "platform": "Linux 6 x86_64",
                "python": "3.11.9",
                "accelerators": [],
            },
            "versions": {"onebase": "0.1.0", "torch": "2.13.0"},
        },
        curve=curve(220),
        ledger="dialogue 0a1b: 9 of 10 tokens supervised\n  <|bos|>«- Hi! How are you?\\n- Fine.<|eos|>»",
        heldout={
            "dialogue": {
                "base": Score("bits_per_byte", 1.741, 1.7, 1.79, 47),
                "untrained base": Score("bits_per_byte", 3.412, 3.3, 3.5, 23),
                "5-gram": Score("bits_per_byte", 1.735, 1.69, 1.78, 47),
            },
            "code": {
                "base": Score("bits_per_byte", 1.67, 1.6, 1.75, 17),
                "5-gram": Score("bits_per_byte", 1.87, 1.78, 1.95, 17),
            },
        },
        rows=[
            row("question", "prompt alone, no label", "accuracy", (0.85, 0.5, 0.7, 0.6)),
            row("question", "head, 200 labels a class", "accuracy", (0.85, 0.7, 0.82, 0.66)),
            row("docstring", "SFT, likelihood of the true text", "nats_per_token", (4.7, 6.2, 4.8, 5.5)),
            row("docstring", "SFT, written text", "rouge_l", (14.0, 7.0, 25.0, 12.0)),
            row("topic", "head, 20 labels a class", "accuracy", (0.82, 0.81, 0.79, 0.7)),
        ],
        samples=[
            Generated(
                "docstring after SFT", 'def f(x):\n    return x\n"""', "Return the x.", "Return x unchanged."
            ),
            Generated("free text, dialogue", "- Hi! How are you?\n- ", "I'm in the is good.\n- yes"),
        ],
        stages={
            "prepare the corpus": 6.2,
            "pretrain one base": 181.0,
            "task: topic": 30.5,
            "everything": 240.0,
        },
        adapters={"mark": "runs/my demo/adapters/mark", "docstring": "runs/my demo/adapters/docstring"},
    )


def test_a_whole_report(tmp_path: Path) -> None:
    result = full()
    write_report(result, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("svg") == 3
    assert page.tags.count("h1") == 1
    assert set(page.anchors) <= set(page.ids) and len(page.ids) == len(set(page.ids))
    flat = " ".join(page.text.split())
    for r in result.rows:
        assert r.verdict.line.split(": ", 1)[1][1:] in flat
        for s in (r.base, r.untrained, *r.classical):
            assert score(s.score, r.metric) in flat
    assert "3.07 million parameters" in flat and "1.80 million tokens" in flat and "2 min 45 s" in flat
    assert "ob1-" + "ab12" * 16 in flat
    assert "quick run" not in flat
    assert "onebase chat 'runs/my demo/pretrain'" in flat
    assert "--adapter mark='runs/my demo/adapters/mark'" in flat
    assert "4.1e+13" in flat and "4.2e+13" in flat


def test_the_gate_says_yes_and_no_and_that_it_cannot_tell() -> None:
    result = full()
    said = [r.verdict.answer for r in result.rows]
    assert set(said) == {"yes", "no", "cannot tell"}, "the test data must show all answers"
    text = render(result)
    for answer, pill in (
        ("yes", '<span class="pill yes">Yes</span>'),
        ("no", '<span class="pill no">No</span>'),
        ("cannot tell", '<span class="pill unsure">Cannot tell</span>'),
    ):
        assert text.count(pill) == 2 * said.count(answer)  # on top and in the table
    assert f"Yes in {said.count('yes')} of {len(said)} settings, no in {said.count('no')}" in text


@pytest.mark.parametrize("make", [full, lambda: DemoResult("o", {}, {}, {}, [], "")])
def test_nothing_is_loaded_and_nothing_runs(make: Any) -> None:
    text = render(make())
    page = Page(text)
    assert page.loads == []
    assert "script" not in page.tags and "link" not in page.tags and "iframe" not in page.tags
    assert not re.search(r"url\(|@import|http-equiv|\son\w+=", text)
    assert not re.search(r"https?://", text)


def test_hostile_text_is_shown_not_obeyed() -> None:
    result = full()
    result.out = HOSTILE
    result.samples = [Generated(HOSTILE, HOSTILE, HOSTILE, HOSTILE), Generated(HOSTILE, HOSTILE, HOSTILE)]
    result.ledger = f"x: 1 of 2 tokens supervised\n  «{HOSTILE}»"
    result.sources = {HOSTILE: {"licence": HOSTILE}}
    result.facts |= {"fingerprint": HOSTILE, "versions": {HOSTILE: HOSTILE}, "machine": {"cpu": HOSTILE}}
    result.facts["tokens.by_source"] = {HOSTILE: 3}
    result.stages = {HOSTILE: 1.0}
    result.adapters = {HOSTILE: HOSTILE}
    result.heldout = {HOSTILE: result.heldout["code"]}
    bad = replace(result.rows[0].base, name=HOSTILE)
    verdict = replace(result.rows[0].verdict, line=f"No: {HOSTILE}")
    result.rows = [replace(result.rows[0], task=HOSTILE, setting=HOSTILE, base=bad, verdict=verdict)]
    text = render(result)
    page = Page(text)
    assert "script" not in page.tags and "img" not in page.tags and page.loads == []
    assert "&lt;script&gt;" in text
    samples = text[text.index('id="samples"') : text.index('id="time"')]
    assert "\\x1b[31m" in samples and "\x1b" not in samples and "\u202e" not in samples


def test_missing_facts_are_unknown() -> None:
    flat = " ".join(Page(render(DemoResult("runs/demo", {}, {"code": {}}, {}, [], ""))).text.split())
    assert "A base of unknown parameters read unknown tokens in unknown of training" in flat
    assert (
        "No task was measured." in flat
        and "too short for a chart" in flat
        and "No samples were taken." in flat
    )
    assert "None" not in flat and "nan" not in flat


def test_open_bases_stand_in_the_same_table_with_verdicts_of_their_own() -> None:
    result = full()
    plain = render(result)
    assert "open base" not in " ".join(Page(plain).text.split()) and 'key open"' not in plain
    first = result.rows[-1]
    rng = np.random.default_rng(7)
    for name, mean in (("Big & <b>", 0.97), ("Poor", 0.3)):
        each = (rng.random(len(first.base.sums.over)) < mean).astype(float)
        system = System(
            f"{name} + head", mean_score("accuracy", each), mean_sums(each), 3.0, 69_000, 98_362_432
        )
        verdict = gate(
            "accuracy", system, first.base, first.classical, twin="the base trained here", who=name
        )
        first = replace(first, beside=(*first.beside, Beside(system, verdict)))
    result.rows[-1] = first
    result.opened = [
        {
            "name": n,
            "package": f"{n} 1",
            "licence": "MIT",
            "bytes": 98_362_432,
            "parameters": 134_515_008,
            "prompted": True,
        }
        for n in ("Big & <b>", "Poor")
    ]
    text = render(result)
    page = Page(text)
    assert "b" not in page.tags and page.loads == []
    flat = " ".join(page.text.split())
    assert "Big & <b> + head: Big & <b> adds" in flat and "+ base 98.36 MB" in flat
    assert "Poor + head: TF-IDF + logistic regression is better than Poor by" in flat
    assert text.count('<span class="pill yes small">Yes</span>') == 2
    assert text.count('<span class="pill no small">No</span>') == 2
    assert text.count('<g class="open">') == 2 and "134.5 million parameters, 98.36 MB on disk" in flat


def test_a_quick_run_says_so() -> None:
    result = full()
    result.recipe["train"] = {"minutes": None, "steps": 20, "batch_size": 16, "sequence_length": 256}
    assert "This was a quick run" not in render(result)
    result.quick = True
    result.curve = curve(20)
    result.rows = [row("topic", "head, 5 labels a class", "accuracy", (0.9, 0.5, 0.5, 0.5), n=8)]
    flat = " ".join(Page(render(result)).text.split())
    assert "This was a quick run of 20 training steps" in flat
    assert "Yes in 0 of 1 settings" in flat and "too few" in flat


def test_stages_sum_up_and_an_earlier_run_is_said() -> None:
    result = full()
    text = render(result)
    assert 'this page</th><td class="n">22 s</td><td class="n">9%</td>' in text
    assert "earlier call" not in text
    result.stages["pretrain one base"] = 1.0
    assert "earlier call" in render(result)


def test_steps_without_a_finite_loss_are_counted() -> None:
    result = full()
    result.curve[5] |= {"loss": float("nan"), "skipped": True}
    text = render(result)
    assert "1 steps had no finite loss" in text and "nan" not in text


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError):
        write_report(full(), tmp_path / "file" / "report.html")


def test_formats() -> None:
    assert score(Score("accuracy", 0.842, 0.821, 0.862, 9)) == "0.842 (0.821–0.862)"
    assert score(Score("rouge_l", 14.23, 13.1, 15.25, 9)) == "14.2 (13.1–15.2)"
    assert score(Score("bits_per_byte", 2.7821, 2.7821, 2.7821, 1)) == "2.782 (no interval)"
    assert score(Score("accuracy", float("nan"), 0, 0, 1)) == score(None) == "unknown"


def test_the_ledger_marks_what_is_learnt() -> None:
    assert marked("a«b<»c\n«d»") == 'a<mark class="learnt">«b&lt;»</mark>c\n<mark class="learnt">«d»</mark>'
    assert marked("no mark & one « alone") == "no mark &amp; one « alone"
