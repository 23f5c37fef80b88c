"""One file each, from outside the package, adds a family, a task, a method, an objective and a score: by command, in Python, in eval, in a trial, in a stack."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onebase.api.base import Base
from onebase.base.folder import save_base
from onebase.errors import ConfigError, UserError
from onebase.evaluation import scores
from onebase.evaluation.predictions import Labels
from onebase.evaluation.scores import Metric
from onebase.formats import families
from onebase.formats.families.llama import FAMILY as LLAMA
from onebase.methods import table as methods
from onebase.methods.config import OWN, AdapterConfig, BoundTo
from onebase.methods.method import Method
from onebase.pretraining import objectives
from onebase.tasks import table
from tests.helpers import posted, served, tiny_base

HERE = Path(__file__).parent / "plugin"
ROWS = [
    {"query": f"{word} please", "passages": [f"some {word}", f"no {other}", "none"], "grades": [2, 1, 0]}
    for word, other in [("tea", "milk"), ("milk", "tea"), ("bread", "jam"), ("jam", "bread")] * 4
]
POINTS = "[onebase]\n" + "".join(
    f"{n} = {n}\n" for n in ("ia3", "rank", "family", "hidden", "brier", "broken")
)
RECIPE = """
name: hidden
data: {sources: [{name: docs, kind: jsonl, path: docs.jsonl}], holdout: 0.2}
model: {width: 32, depth: 1, head_dim: 16, context: 64, vocab_size: 300}
objective: hidden
train: {steps: 24, batch_size: 4, sequence_length: 64, device: cpu, dtype: fp32, eval_every: 12, checkpoint: {every: 8}, schedule: {warmup: 2}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as pip makes it: modules, and what says which of them are plug-ins. One of these fails."""
    folder = tmp_path_factory.mktemp("site")
    for path in HERE.glob("*.py"):
        shutil.copy(path, folder)
    (folder / "broken.py").write_text("raise RuntimeError('no')\n")
    about = folder / "more-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: more\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    save_base(folder / "base", tiny_base(portable=True), overwrite=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    paragraphs = (Path(__file__).parents[2] / "docs" / "design.md").read_text(encoding="utf-8").split("\n\n")
    (folder / "docs.jsonl").write_text("".join(json.dumps({"text": p}) + "\n" for p in paragraphs))
    (folder / "hidden.yaml").write_text(RECIPE)
    return folder


def run(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(place), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = os.environ | {"PYTHONPATH": path, "ONEBASE_HOME": str(place / "home")}
    return subprocess.run([sys.executable, *words], env=env, cwd=place, capture_output=True, text=True)


def command(place: Path, *words: str) -> str:
    found = run(place, "-m", "onebase", *words)
    assert found.returncode == 0, found.stderr
    assert "plug-in broken (broken) is skipped: RuntimeError: no" in found.stderr
    return found.stdout


@pytest.mark.slow
def test_by_command(place: Path) -> None:
    more = ("--data", "rows.jsonl", "--task", "rank", "-o", "epochs=1")
    for method in ("head", "ia3"):
        command(place, "adapt", "base", *more, "--method", method, "--out", f"by_{method}")
    scored = json.loads(
        command(place, "eval", "base", "--adapter", "by_ia3", "--data", "rows.jsonl", "--json")
    )
    assert 0.5 < scored["ndcg"]["value"] <= 1 and scored["ndcg"]["n"] == len(ROWS)
    said = command(place, "apply", "base", "--adapter", "by_ia3", "--data", "rows.jsonl", "--json")
    first: dict[str, Any] = json.loads(said.splitlines()[0])
    assert sorted(first["order"]) == [0, 1, 2] and first["query"] == "tea please"
    assert "ia3" in run(place, "-m", "onebase", "show", "by_ia3").stdout
    bad = run(place, "-m", "onebase", "apply", "base", "--adapter", "by_ia3", "a text")
    assert "needs the columns query, passages" in bad.stderr
    only = ("eval", "base", "--adapter", "by_ia3", "--data", "rows.jsonl", "--score")
    assert command(place, *only, "ndcg").startswith("ndcg: ")
    assert "score 'ndgc' is not known" in run(place, "-m", "onebase", *only, "ndgc").stderr
    bad = run(place, "-m", "onebase", *only, "brier")
    assert "there is no score 'brier' for this task\n  scores: ndcg" in bad.stderr
    plan = command(place, "adapt", "base", *more, "--method", "ia3", "--dry-run")
    assert "rank" in plan and "ia3" in plan
    told = command(place, "adapt", "base", "--method", "ia3", "-o", "help")
    assert 'factors (["attn.k", "attn.v", "ff.up"]): which projections' in told and "epochs (3)" in told
    few = ("-o", "factors=[attn.v]")
    command(place, "adapt", "base", *more, "--method", "ia3", *few, "--out", "few")
    config = json.loads((place / "few" / "adapter.json").read_text())["config"]
    assert config["plugins"] == {"ia3": {"factors": ["attn.v"]}}
    command(place, "merge", "base", "few", "--out", "merged")
    bad = run(place, "-m", "onebase", "export", "base", "--adapter", "few", "--format", "peft", "--out", "x")
    assert "PEFT cannot represent a head whose pooling is 'all'" in bad.stderr
    says = [json.dumps({"prompt": f"tea {i}", "completion": " please"}) for i in range(4)]
    (place / "says.jsonl").write_text("\n".join(says))
    asked = ("--data", "says.jsonl", "--task", "complete", "--method", "ia3", "-o", "epochs=1")
    command(place, "adapt", "base", *asked, "--out", "says")
    command(place, "export", "base", "--adapter", "says", "--format", "peft", "--out", "theirs")
    for method in ("lora", "head"):
        bad = run(place, "-m", "onebase", "adapt", "base", *more, "--method", method, *few, "--out", "x")
        assert f"method {method} has no option 'factors': ia3 has it" in bad.stderr
    bad = run(
        place, "-m", "onebase", "adapt", "base", *more, "--method", "ia3", "-o", "factor=3", "--out", "x"
    )
    assert "unknown key 'factor'" in bad.stderr and "did you mean 'factors'" in bad.stderr
    bad = run(place, "-m", "onebase", "adapt", "base", *more, "--method", "prompt", "--out", "x")
    assert "a prompt gives probabilities of answers, not an order" in bad.stderr


PYTHON = """
import json, torch, onebase
rows = [json.loads(line) for line in open("rows.jsonl")]
base = onebase.load("base")
before = base.loaded.reread()
ids = base.tokenizer.encode("tea please")
plain = base.logits(ids)
made = base.adapt(rows, task="rank", method="ia3", epochs=2, lr=0.05)
assert base.loaded.reread() == before and torch.equal(base.logits(ids), plain)
made.save("made")
on = base.with_adapter("made")
assert not torch.equal(on.logits(ids), plain) and torch.equal(base.logits(ids), plain)
print(on.apply(rows[:2]), float(onebase.evaluate(on, rows)["ndcg"].value))
for task, data in (("classify", [{"text": w, "label": w[0]} for w in ("aa", "ab", "ba", "bb") * 4]), ("complete", [{"prompt": "a", "completion": "b"}])):
    assert base.adapt(data, task=task, method="ia3", epochs=1).method == "ia3"
tuned = base.tune(rows, task="rank", method="ia3", trials=2, epochs=1)
assert [t["score"] for t in tuned.record.get("tune.trials")] == ["ndcg", "ndcg"]
stack = base.with_adapter([base.adapt([{"prompt": "a", "completion": "b"}], task="complete", method="lora", epochs=1), made])
assert stack.attached.task == "rank" and stack.apply(rows[:1])
one = base.with_adapter(base.adapt(rows, task="rank", method="ia3", lr=0.5, epochs=2, factors=["attn.k", "down"]))
assert sorted(one.attached.config.part("ia3").factors) == ["attn.k", "down"]
assert torch.allclose(one.merged().logits(ids), one.logits(ids), atol=1e-5)
low = base.adapt([{"prompt": "a", "completion": "b"}] * 4, task="complete", method="lora", lr=0.05, epochs=4)
stack = base.with_adapter([low, made])
assert torch.allclose(stack.merged().logits(ids), stack.logits(ids), atol=1e-5)
base.export("out", format="hf")
config = json.load(open("out/config.json")) | {"model_type": "mine"}
json.dump(config, open("out/config.json", "w"))
assert torch.allclose(onebase.load("out").logits(ids), plain, atol=1e-5)
"""


OPTION = """
import json, onebase, torch
from onebase.errors import ConfigError
rows = [json.loads(line) for line in open("rows.jsonl")]
moved = [r | {"grades": [g + i % 4 for g in r["grades"]]} for i, r in enumerate(rows)]
base = onebase.load("base")

def head(rows, **options):
    made = base.adapt(rows, task="rank", method="head", pooling="mean", **options)
    assert made.record.get("config.options")["by_query"] is options.get("by_query", False)
    return made.parts.tensors["head.weight"]

plain, beside = head(rows), head(moved, by_query=True)
assert torch.equal(beside, plain), "what all grades of a query have in common does not count"
assert not torch.allclose(head(moved), plain, rtol=0.01)
for given, says in (({"by_query": 1}, "'by_query' is 1"), ({"by_qery": True}, "did you mean 'by_query'"), ({"temperature": 1.0}, "embed has it")):
    try:
        head(rows, **given)
    except ConfigError as e:
        assert says in str(e), e
    else:
        raise AssertionError(given)
"""


def test_a_task_of_a_plugin_has_an_option_of_its_own(place: Path) -> None:
    found = run(place, "-c", OPTION)
    assert found.returncode == 0, found.stderr
    told = command(place, "adapt", "base", "--task", "rank", "--method", "head", "-o", "help")
    assert told.startswith('options of task rank\n  pooling ("auto"): ')
    assert "\n  by_query (false): whether a grade counts beside the others of its query only\n" in told
    asked = ("--data", "none.jsonl", "--task", "complete", "--method", "lora", "-o", "by_query=true")
    bad = run(place, "-m", "onebase", "adapt", "base", *asked, "--out", "x")
    assert "task complete has no option 'by_query': rank has it" in bad.stderr


def test_in_python(place: Path) -> None:
    found = run(place, "-c", PYTHON)
    assert found.returncode == 0, found.stderr
    assert "'order'" in found.stdout


PEFT = """
import json, peft, torch, transformers, onebase
base = onebase.load("hf")
made = base.adapt([{"prompt": "a", "completion": "b"}] * 4, task="complete", method="ia3", lr=0.3, epochs=8)
on = base.with_adapter(made)
ids = base.tokenizer.encode("tea please")
on.export("ia3-there", format="peft")
there = transformers.AutoModelForCausalLM.from_pretrained("hf")
plain = there(torch.tensor([ids])).logits[0]
there = peft.PeftModel.from_pretrained(there, "ia3-there").eval()
assert torch.allclose(there(torch.tensor([ids])).logits[0], on.logits(ids), atol=1e-4)
assert (plain - on.logits(ids)).abs().max() > 1e-3
there.save_pretrained("ia3-back")
again = base.with_adapter("ia3-back")
assert again.attached.method == "ia3" and torch.allclose(again.logits(ids), on.logits(ids), atol=1e-5)
"""


def test_a_method_of_a_plugin_is_read_and_written_as_peft_has_it(place: Path) -> None:
    pytest.importorskip("peft")
    made = run(place, "-m", "onebase", "export", "base", "--format", "hf", "--out", "hf")
    assert made.returncode == 0, made.stderr
    found = run(place, "-c", PEFT)
    assert found.returncode == 0, found.stderr


PRETRAIN = """
import onebase, torch
from pathlib import Path
from onebase.train.callbacks import NoCallback, read_log

class Ends(NoCallback):
    def step(self, info):
        if info.step == 13:
            raise KeyboardInterrupt

told = []
base = onebase.pretrain("hidden.yaml", out="whole", log=told.append)
try:
    onebase.pretrain("hidden.yaml", out="parts", callbacks=[Ends()])
except KeyboardInterrupt:
    pass
on = onebase.pretrain("hidden.yaml", out="parts", log=told.append)
assert on.fingerprint == base.fingerprint, "resumes bitwise"
log = read_log(Path("whole/log.jsonl"))
assert [l["loss"] for l in log] == [l["loss"] for l in read_log(Path("parts/log.jsonl"))][-24:]
first, last = (sum(l["loss"] for l in some) / 4 for some in (log[:4], log[-4:]))
assert first > last + 0.4, (first, last)
assert [l["step"] for l in log if "heldout_nats_per_hidden_token/docs" in l] == [11, 23]
kept = base.record.get("scores.heldout_nats_per_hidden_token.docs")
assert kept["low"] < kept["value"] < kept["high"] and kept["value"] < first
assert base.record.get("config.recipe")["objective"] == {"kind": "hidden", "rate": 0.15, "hidden": 0.8}
ledger = next(t for t in told if "supervised text" in t)
rows = [l for l in ledger.splitlines() if "tokens supervised" in l]
shares = [int(l.split()[-5]) / int(l.split()[-3]) for l in rows]
assert 0 < sum(shares) / len(shares) < 0.4, ledger

# What is learnt is hidden, and what is behind it is read.
from onebase.data import RowPlan, TokenSet
from onebase.pretraining.objectives import OBJECTIVES, Setting
from hidden import MaskedConfig
import glob
tokens = TokenSet.open(glob.glob("whole/tokens/*")[0])
made = OBJECTIVES["hidden"].make(MaskedConfig(rate=0.5), Setting(base.tokenizer, 64))
row = RowPlan(tokens, 64, 4, 0).rows(0)
batch, whole = made.batch(row, 0), torch.cat([torch.from_numpy(p.ids) for p in row[0]])
ids, targets = batch.inputs["text"].ids_BT[0][: len(whole)], batch.targets["hidden"][0][: len(whole)]
learnt = targets >= 0
assert torch.equal(targets[learnt], whole[learnt].long()) and torch.equal(ids[~learnt], whole[~learnt].long())
assert 0.6 < float((ids[learnt] == base.tokenizer.id_of("<mask>")).float().mean()) < 0.95
again = made.batch(row[1:], 1)
assert torch.equal(again.inputs["text"].ids_BT, batch.inputs["text"].ids_BT[1:]), "a row's number alone draws"
short = [int(i) for i in whole[:9]]
other = [*short[:8], (short[8] + 1) % 290]
assert not torch.equal(base.hidden(short)[:8], base.hidden(other)[:8]), "it reads both ways"
"""


def test_an_objective_in_python(place: Path) -> None:
    found = run(place, "-c", PRETRAIN)
    assert found.returncode == 0, found.stderr


SCORE = """
import onebase
rows = [{"text": f"{'much ' * i}{word}", "label": word[0]} for word in ("tea", "milk") for i in range(8)]
base = onebase.load("base")
on = base.with_adapter(base.adapt(rows, task="classify", method="head"))
found = onebase.evaluate(on, rows, scores=["brier", "accuracy"])
said = [x.scores for x in on.classify([r["text"] for r in rows])]
want = sum(sum((p[k] - (k == r["label"])) ** 2 for k in p) for p, r in zip(said, rows)) / len(rows)
assert list(found) == ["brier", "accuracy"] and abs(found["brier"].value - want) < 1e-9, (found, want)
assert found["brier"].low < want < found["brier"].high and found["brier"].n == 16
assert "brier" not in onebase.evaluate(on, rows)
tuned = base.tune(rows, task="classify", method="lora", trials=2, epochs=1, score="brier").record
assert [t["score"] for t in tuned.get("tune.trials")] == ["brier"] * 2
"""


def test_a_score_in_python(place: Path) -> None:
    found = run(place, "-c", SCORE)
    assert found.returncode == 0, found.stderr


@pytest.mark.slow
def test_a_score_by_command(place: Path) -> None:
    data = [
        json.dumps({"text": word * n, "label": word[0]}) for word in ("tea ", "milk ") for n in range(1, 9)
    ]
    (place / "words.jsonl").write_text("\n".join(data))
    more = ("--data", "words.jsonl", "--task", "classify", "--method")
    command(place, "adapt", "base", *more, "head", "--out", "by_label")
    asked = ("eval", "base", "--adapter", "by_label", "--data", "words.jsonl", "--score", "brier")
    found = json.loads(command(place, *asked, "--score", "ece", "--json"))
    assert list(found) == ["brier", "ece"] and found["brier"]["n"] == 16
    assert command(place, *asked).startswith(f"brier: {found['brier']['value']:.4f} (95%: ")
    tuned = ("lora", "--tune", "2", "--score", "brier", "-o", "epochs=1", "--out", "by_brier")
    command(place, "adapt", "base", *more, *tuned)
    shown = run(place, "-m", "onebase", "show", "by_brier")
    assert "brier" in shown.stdout
    bad = run(place, "-m", "onebase", "adapt", "base", *more, "lora", "--score", "brier", "--out", "no")
    assert "--score needs --tune" in bad.stderr


@pytest.mark.slow
def test_an_objective_by_command(place: Path) -> None:
    said = command(
        place, "pretrain", "hidden.yaml", "objective.rate=0.3", "train.steps=3", "--out", "by_rate"
    )
    assert "tokens supervised" in said and "held-out nats per hidden token, docs:" in said
    shown = run(place, "-m", "onebase", "show", "by_rate/base").stdout
    assert "heldout_nats_per_hidden_token" in shown
    bad = run(place, "-m", "onebase", "pretrain", "hidden.yaml", "objective=maskd")
    assert (
        "accepted: one of next_token, infill, masked, mixed, contrastive, masked_patches, segment, hidden"
        in bad.stderr
    )
    own = place / "base" / "codecs" / "text" / "tokenizer.json"
    size = f"model.vocab_size={json.loads((place / 'base' / 'base.json').read_text())['config']['codecs']['text']['vocab_size']}"
    bad = run(place, "-m", "onebase", "pretrain", "hidden.yaml", f"tokenizer.path={own}", size, "--out", "x")
    assert "has no special token '<mask>', which objective hidden needs" in bad.stderr


def test_its_task_over_http(place: Path) -> None:
    """An adapter of (rank, IA3) by a real server, as `apply` has it, without a line of ours for either."""
    if not (place / "by_ia3").exists():
        command(
            place,
            "adapt",
            "base",
            "--data",
            "rows.jsonl",
            "--task",
            "rank",
            "--method",
            "ia3",
            "--out",
            "by_ia3",
        )
    said = command(
        place, "apply", "base", "--adapter", "by_ia3", "--data", "rows.jsonl", "--json", "--device", "cpu"
    )
    want = [json.loads(line)["order"] for line in said.splitlines()]
    rows = [{k: r[k] for k in ("query", "passages")} for r in ROWS]
    path = os.pathsep.join([str(place), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {"PYTHONPATH": path, "ONEBASE_HOME": str(place / "home")}
    with served(place / "base", "--adapter", f"ranker={place / 'by_ia3'}", env=env) as url:
        status, found = posted(url, "/v1/rank", {"model": "ranker", "input": rows})
        assert status == 200 and [d["order"] for d in found["data"]] == want
        record = json.loads((place / "by_ia3" / "record.json").read_text())
        assert found["adapter_fingerprint"] == record["hashes"]["fingerprint"] and found["task"] == "rank"
        bad = posted(url, "/v1/rank", {"model": "ranker", "input": {"query": "tea", "passages": "tea"}})
        assert bad[0] == 400 and "'passages' is not a list" in bad[1]["error"]["message"]


def test_without_its_package_an_adapter_is_refused(place: Path, tmp_path: Path) -> None:
    if not (place / "by_ia3").exists():
        more = ("--data", "rows.jsonl", "--task", "rank", "--method", "ia3", "--out", "by_ia3")
        command(place, "adapt", "base", *more)

    def alone(*words: str | Path) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"ONEBASE_HOME": str(place / "home")}
        line = [sys.executable, "-m", "onebase", *map(str, words)]
        return subprocess.run(line, env=env, cwd=tmp_path, capture_output=True, text=True)

    adapter = place / "by_ia3"
    assert alone("show", adapter).returncode == 0
    said = alone("apply", place / "base", "--adapter", adapter, "x")
    assert said.returncode == 1 and "method 'ia3' is not installed" in said.stderr


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(ConfigError, match="two methods have the name 'lora'"):
        methods.register(Method(name="lora"))
    with pytest.raises(ConfigError, match="two tasks have the name 'chat'"):
        table.register(replace(table.TASKS["tag"], name="chat"))
    with pytest.raises(ConfigError, match="two tasks have the name 'text'"):
        table.register(replace(table.TASKS["tag"], name="text"))
    with pytest.raises(ConfigError, match="two families read model_type 'llama'"):
        families.register(replace(LLAMA, model_types=("new", "llama")))
    with pytest.raises(ConfigError, match="two objectives called 'infill'"):
        objectives.register(replace(objectives.OBJECTIVES["infill"], version="3"))
    with pytest.raises(ConfigError, match="BoundTo has no field `kind`"):
        objectives.register(replace(objectives.OBJECTIVES["infill"], config=BoundTo))
    with pytest.raises(ConfigError, match="two scores of Labels are called 'ece'"):
        scores.register(Metric("ece", Labels, lambda said, seed: None))
    methods.register(methods.METHODS["lora"])  # a module that is imported twice
    assert methods.BY_STEPS.count("lora") == 1


def test_a_method_that_a_task_says_nothing_of_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a task of another package may, of a method that learns without the loop."""
    monkeypatch.setitem(table.TASKS, "tag", replace(table.TASKS["tag"], methods={}))
    with pytest.raises(UserError, match="cannot use method 'head': the task does not support it"):
        Base(tiny_base()).adapt([], task="tag", method="head")


def test_a_method_called_like_a_field_is_no_part_of_every_adapter() -> None:
    config = AdapterConfig(method="head", task="tag", base=BoundTo(fingerprint="x"))
    assert config.part("task") is None and config.part("base") is None
    assert set(OWN) == set(methods.PARTS)
