"""The page of an artifact: all that `show` says, its curves, and nothing that a browser would obey."""

import copy
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from onebase.api.base import Base
from onebase.artifact.files import ArtifactWriter
from onebase.artifact.record import Record
from onebase.errors import ArtifactError, UserError
from onebase.govern.page import REINFORCE, render, write_page
from onebase.govern.show import as_text, describe, fact_rows
from onebase.govern.verify import verify_artifact
from tests.govern.conftest import Family
from tests.helpers import tiny_base
from tests.pages import Page
from tests.pages import drawn as points_of
from tests.pretrained import onebase, tiny_run

HOSTILE = "</td></table><script>alert('x')</script> & <img src=http://evil.example/a.png> \x1b[31m \u202e"


class Cells(HTMLParser):
    """The rows of all tables of a page, as lists of their cells' texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reinforce adapter that was learnt: 6 rollouts, each learnt from twice."""
    folder = tmp_path_factory.mktemp("page") / "adds"
    made = Base(tiny_base()).adapt(
        [{"prompt": f"say {w}:"} for w in "abcdefgh"],
        task="reinforce",
        method="lora",
        lr=2e-2,
        epochs=3,
        batch_size=4,
        reinforce={"reward": "format:[a-z ]*", "max_tokens": 2, "group": 4, "passes": 2},
    )
    made.save(folder)
    return folder


def recorded(folder: Path, value: Any, *, field: str = REINFORCE, origin: str = "measured") -> Path:
    """An adapter whose record says `field`."""
    record = Record("adapter")
    record.add(field, value, origin)
    with ArtifactWriter(folder, "adapter") as w:
        record.save(w.path("record.json"))
    return folder


def charts(text: str) -> dict[str, str]:
    """The charts of a page by their titles."""
    return {re.findall('aria-label="(.*?)"', svg)[0]: svg for svg in re.findall("<svg.*?</svg>", text, re.S)}


def test_the_page_of_what_was_learnt_from_rewards_has_its_curve(adapter: Path) -> None:
    text = render(adapter)
    page, curve = Page(text), Record.load(adapter).get(REINFORCE)
    assert len(curve) == 6
    drawn = charts(text)
    assert len(drawn) == len(curve[0]) - 1 == page.tags.count("svg")  # all but the rollout's number
    assert list(drawn)[:2] == ["Reward, mean of the completions", "Success, % of the completions"]
    for title in ("KL", "Length", "Importance ratio", "Clipped"):
        assert any(t.startswith(title) for t in drawn), title
    heights = [y for _, y in points_of(drawn["Success, % of the completions"], "raw")]
    assert heights == pytest.approx([176 - 146 * r["success"] for r in curve], abs=0.051)  # 0 to 100 %
    assert list(curve[0]) in (cells := Cells(text).rows)
    for r in curve:
        assert [as_text(v) for v in r.values()] in cells
    gap = Record.load(adapter).get("reinforce.gap")
    assert f"by {gap['mean']:.2g} nats on average and {gap['most']:.2g} at most" in " ".join(
        page.text.split()
    )


def test_nothing_is_loaded_and_nothing_runs(adapter: Path) -> None:
    for text in (render(adapter), render(tiny_run() / "base")):
        page = Page(text)
        assert page.loads == [] and not {"script", "link", "iframe"} & set(page.tags)
        assert not re.search(r"url\(|@import|http-equiv|\son\w+=|https?://", text)
        assert "prefers-color-scheme: dark" in text


def test_all_that_show_says_is_on_the_page(adapter: Path, family: Family) -> None:
    folders = [family.root / n for n in ("base", "adapter", "data", "run")]
    for folder in (adapter, tiny_run() / "base", *folders):
        data, text = describe(folder), render(folder)
        cells = Cells(text).rows
        for fact in data["facts"]:
            if fact["field"] != REINFORCE:
                for row in fact_rows([fact]):
                    assert list(row) in cells, row
        flat = " ".join(Page(text).text.split())
        for value in (data["kind"], data["fingerprint"], *data["hashes"].values(), *data["files"]):
            assert value is None or value in flat
        for parent in data["parents"]:
            assert parent["fingerprint"] in flat
    head = render(adapter).split("<main>")[0]
    assert "<dt>task</dt><dd>reinforce</dd>" in head and "<dt>method</dt><dd>lora</dd>" in head


def test_a_base_has_no_rollouts_and_the_curve_of_its_run_where_there_is_a_log(tmp_path: Path) -> None:
    shutil.copytree(tiny_run() / "base", tmp_path / "base")
    alone = render(tmp_path / "base")
    assert "<svg" not in alone and "Rollouts" not in alone and "Pretraining" not in alone
    shutil.copy(tiny_run() / "log.jsonl", tmp_path)
    beside = render(tmp_path / "base")
    assert list(charts(beside)) == ["Training loss and speed"] and "60 steps of 8 × 128 tokens" in beside
    (tmp_path / "log.jsonl").write_bytes(b"[" * 100_000)
    assert "<svg" not in render(tmp_path / "base")  # a damaged line is left out
    (tmp_path / "log.jsonl").write_bytes(b"\xff\xfe")  # no whole line
    assert "<svg" not in render(tmp_path / "base")
    (tmp_path / "log.jsonl").write_text('3\n{"loss": "x"}\n[]\n')
    assert "<svg" not in render(tmp_path / "base")


def test_hostile_text_is_shown_not_obeyed(tmp_path: Path) -> None:
    point = {"rollout": 0, "reward": HOSTILE, HOSTILE: 1.0}
    record = Record("adapter", {HOSTILE: HOSTILE})
    for field in (HOSTILE, "name", "task", f"config.{HOSTILE}"):
        record.add(field, {HOSTILE: [HOSTILE]} if field == HOSTILE else HOSTILE, "measured")
    record.add(REINFORCE, [point, point | {"rollout": 1}], "measured")
    # From elsewhere: nobody here makes such an origin.
    record.events = [replace(e, origin=HOSTILE) for e in record.events]
    record.add_parent("base", HOSTILE, HOSTILE)
    with ArtifactWriter(tmp_path / "a", "adapter", {"fingerprint": HOSTILE}) as w:
        record.save(w.path("record.json"))
    text = render(tmp_path / "a")
    page = Page(text)
    assert not {"script", "img"} & set(page.tags) and page.loads == []
    assert len(charts(text)) == 1, "the number that we do not know is drawn by its own name"
    assert "&lt;script&gt;" in text and "\\x1b[31m" in text and "\x1b" not in text and "\u202e" not in text


@pytest.mark.parametrize(
    "value", [None, "x", 3, {}, [], [1, 2], [{}], [{"reward": 1}, None], {"reward": [1]}]
)
def test_a_curve_that_is_none_is_shown_as_any_fact(tmp_path: Path, value: Any) -> None:
    text = render(recorded(tmp_path / "a", copy.deepcopy(value)))
    assert "<svg" not in text and "Rollouts" not in text
    assert any(row[0].startswith(REINFORCE) for row in Cells(text).rows)


def test_odd_numbers_in_a_curve_are_left_out_of_the_charts(tmp_path: Path) -> None:
    curve = [{"rollout": i, "reward": v} for i, v in enumerate((0.5, "nan", 10**400, None, True, 1e300, 0.7))]
    (svg,) = charts(render(recorded(tmp_path / "a", curve))).values()
    assert len(points_of(svg, "raw")) == 3
    assert "One rollout is too short" in render(recorded(tmp_path / "b", curve[:1]))


def test_the_command_writes_the_page_and_refuses_what_can_be_no_file(adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "adds.html"
    said = onebase("show", adapter, "--html", out)
    assert (said.status, said.out) == (0, f"page: {out}\n")
    assert out.read_text(encoding="utf-8") == render(adapter)
    both = onebase("show", adapter, "--html", out, "--json")
    assert both.status == 0 and both.out.startswith("{")
    run = onebase("show", tiny_run(), "--html", tmp_path / "run.html")
    assert run.status == 0 and "Training loss and speed" in (tmp_path / "run.html").read_text(
        encoding="utf-8"
    )
    for bad, part in (
        (tmp_path / "nothing" / "a.html", "there is no folder"),
        (tmp_path, "is a folder"),
        (out / "a.html", "there is no folder"),
        ("", "is a folder"),
        (adapter / "a.html", "is inside the artifact"),
    ):
        said = onebase("show", adapter, "--html", bad)
        assert said.status == 1 and part in said.err and len(said.err.splitlines()) == 2, said.err
    assert not list(tmp_path.glob(".*")), "no half-written file is left"
    verify_artifact(adapter)


def test_in_python_it_is_one_call(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("old")
    write_page(adapter, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == render(adapter)
    with pytest.raises(UserError):
        write_page(adapter, tmp_path)
    with pytest.raises(ArtifactError):
        write_page(tmp_path / "nothing", tmp_path / "page.html")
