"""What a run read, counted from its order, is what its batches had: stopped and resumed, extended, over several epochs, cut documents."""

import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

import onebase
from examples.pretrain_tiny import write_corpus
from onebase.base.config import TextShape
from onebase.cli.app import app
from onebase.data import Dataset, SourceConfig
from onebase.errors import UserError
from onebase.objective.base import Batch, Row
from onebase.objective.infill import Infill
from onebase.objective.next_token import NextToken
from onebase.pretraining.documents import DocumentsRead
from onebase.pretraining.objectives import InfillConfig, NextTokenConfig
from onebase.pretraining.recipe import DataConfig, Recipe
from onebase.pretraining.run import run_recipe
from onebase.train.callbacks import NoCallback, StepInfo
from onebase.train.config import TrainConfig

BATCH = 4


class Heard:
    """The ids of the pieces that batches had, by the number of the row that they begin with: a batch that is made again is the same."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.by_row: dict[int, list[str]] = {}
        for kind in (NextToken, Infill):
            self.listen(kind, monkeypatch)

    def listen(self, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
        inner = kind.batch  # type: ignore[attr-defined]

        def batch(objective: object, rows: Sequence[Row], first: int) -> Batch:
            for i, row in enumerate(rows):
                self.by_row[first + i] = [piece.id for piece in row]
            return inner(objective, rows, first)

        monkeypatch.setattr(kind, "batch", batch)

    def pieces(self, steps: int) -> Counter[str]:
        """How many pieces of each document the batches of so many steps had."""
        assert set(range(steps * BATCH)) <= self.by_row.keys()
        return Counter(name for i in range(steps * BATCH) for name in self.by_row[i])

    def steps(self, name: str, steps: int) -> tuple[int, ...]:
        return tuple(sorted({i // BATCH for i in range(steps * BATCH) if name in self.by_row[i]}))


class Stops(NoCallback):
    """Ask the run to stop after a step, as a scheduler does."""

    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, info: StepInfo) -> None:
        if info.step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


def made(folder: Path, objective: object = NextTokenConfig(), steps: int = 24) -> Recipe:
    """Two sources, of 40 short documents each; three of one are long and read in pieces."""
    sources = []
    for name, seed in (("one", 0), ("two", 1)):
        path = write_corpus(folder / f"{name}.jsonl", documents=40, seed=seed)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        if name == "two":
            for line in lines[:3]:
                line["text"] = line["text"] * 4
        rows = [json.dumps({"text": line["text"], "id": f"{name}/{i}"}) for i, line in enumerate(lines)]
        path.write_text("\n".join(rows) + "\n")
        sources.append(SourceConfig(name=name, kind="jsonl", path=str(path)))
    return Recipe(
        name="read",
        data=DataConfig(sources=tuple(sources), holdout=0.1),
        model=TextShape(width=16, depth=1, head_dim=16, context=128, vocab_size=300),
        train=TrainConfig(steps=steps, batch_size=BATCH, sequence_length=128, device="cpu", dtype="fp32"),
        objective=objective,
    )


def check(found: DocumentsRead, heard: Heard, run: Path) -> None:
    """Every document against the ids that batches had, and the table against the documents."""
    pieces, counts = heard.pieces(found.steps), Counter[tuple[str, str]]()
    tokens = Counter[str]()
    for row in (
        r for s in Dataset.open(run / "data").shards for r in Dataset.open(run / "data").rows(s, "train")
    ):
        [one] = found.document(row["hash"])
        name = row["hash"][:16]
        assert one.steps == heard.steps(name, found.steps)
        own = -(-(one.tokens - 1) // 127)  # pieces of at most 127 tokens behind a BOS
        if own == 1:
            assert one.times == pieces[name]
            assert one.tokens_read == one.times * one.tokens
        else:
            assert one.times <= pieces[name] / own <= one.times + 1
        often = "never" if not pieces[name] else {0: "in_part", 1: "once", 2: "twice"}.get(one.times, "more")
        counts[one.source, often] += 1
        tokens[one.source] += one.tokens_read
    for source, told in found.sources.items():
        each = {k: counts[source, k] for k in ("never", "in_part", "once", "twice", "more")}
        assert {k: getattr(told, k) for k in each} == each
        assert told.documents == sum(each.values())
        assert told.tokens_read == tokens[source]


@pytest.mark.parametrize("objective", [NextTokenConfig(), InfillConfig()])
def test_what_was_counted_is_what_the_batches_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: object
) -> None:
    """Stopped, resumed, finished after more than one epoch, extended."""
    heard, run = Heard(monkeypatch), tmp_path / "run"
    recipe = made(tmp_path, objective)
    if isinstance(objective, InfillConfig):  # the order keeps room for the marks
        run_recipe(recipe, run, train__steps=7)
        check(onebase.documents_read(run), heard, run)
        return
    run_recipe(recipe, run, callbacks=[Stops(5)])
    half = onebase.documents_read(run)
    assert half.steps == 6
    check(half, heard, run)
    assert half.sources["one"].never > 0
    run_recipe(recipe, run)
    whole = onebase.documents_read(run)
    assert whole.steps == 24
    assert whole.epochs > 1
    check(whole, heard, run)
    # The loop's own totals count the BOS of later pieces too.
    ours = Dataset.open(run / "data")
    record = onebase.load(run).record
    assert sum(v.tokens_read for v in whole.sources.values()) <= record.get("tokens.read")
    assert set(record.get("tokens.by_source")) == set(whole.sources) == set(ours.stats)
    run_recipe(recipe, run, extend={"steps": 26})
    more = onebase.documents_read(run)
    assert more.steps == 50
    check(more, heard, run)
    assert more.sources["one"].twice > 0
    assert onebase.documents_read(run / "base-step_00000024").facts["sources"] == whole.facts["sources"]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ended")
    run_recipe(made(folder, steps=4), folder / "run")
    return folder / "run"


def told(*words: object) -> str:
    found = CliRunner().invoke(app, ["show", *map(str, words)], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


def test_the_command(ended: Path) -> None:
    found = onebase.documents_read(ended)
    assert found.text in told(ended, "--read")
    assert json.loads(told(ended, "--read", "--json")) == found.facts
    held = next(iter(Dataset.open(ended / "data").documents("holdout")))
    assert "held out, never read" in told(ended, "--read", held.id)
    read = next(d for d in Dataset.open(ended / "data").documents("train") if found.document(d.id)[0].steps)
    [one] = found.document(read.id)
    assert one.line() in told(ended, "--read", one.hash[:12])
    assert json.loads(told(ended, f"--read={one.id}", "--json"))[0]["steps"] == list(one.steps)
    assert "train.steps" in told(ended)  # without it: the record


def test_a_link_to_the_base_is_enough(ended: Path, tmp_path: Path) -> None:
    """As the store has it."""
    (tmp_path / "name").symlink_to(ended / "base")
    assert onebase.documents_read(tmp_path / "name").sources == onebase.documents_read(ended).sources


def test_what_cannot_be_counted(ended: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--read does not go with --html"):
        told(ended, "--read", "--html", tmp_path / "page.html")
    with pytest.raises(UserError, match="has no document 'nobody'"):
        onebase.documents_read(ended).document("nobody")
    alone = tmp_path / "base"
    shutil.copytree(ended / "base", alone)
    with pytest.raises(UserError, match="is not in the folder of its run"):
        onebase.documents_read(alone)
    run = Path(shutil.copytree(ended, tmp_path / "run"))
    recipe = json.loads((run / "recipe.json").read_text())
    recipe["train"]["seed"] = 5
    (run / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(UserError, match="are not those that .* was trained with"):
        onebase.documents_read(run)
    shutil.rmtree(run / "base")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UserError, match="neither a finished base nor a checkpoint"):
        onebase.documents_read(run)


def test_ranks_share_the_same_rows(ended: Path) -> None:
    """What all ranks of a step read together is what is counted."""
    found = onebase.documents_read(ended)
    plan = found._plan
    rows = [r for step in range(found.steps) for rank in range(2) for r in plan.rows(step, rank, 2)]
    counted = Counter(piece.id for row in rows for piece in row)
    for i in range(len(plan.tokenset)):
        assert counted[plan.tokenset.name(i)] == found._pieces[plan.documents == i].sum()
