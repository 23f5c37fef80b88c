"""Heads of published models: what transformers says with them, and the folders that it opens again."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import onebase
from onebase.errors import ArtifactError, UserError
from tests.formats.parity import TOLERANCE, shaken
from tests.formats.words import write_words

transformers = pytest.importorskip("transformers")

TEXTS = ["The quick fox", "How are you? I am fine, thank you.", "Yes", "a lazy dog jumps over 123 questions"]
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
DISTIL = {"dim": 32, "hidden_dim": 40, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64}
GROUPED = SMALL | {"num_key_value_heads": 2}
MODERN = SMALL | {"local_attention": 8, "global_attn_every_n_layers": 2}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
ESM = SMALL | {"position_embedding_type": "rotary", "mask_token_id": 4}
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("Bert", "bert", SMALL),
    "roberta": ("Roberta", "bert", SMALL),
    "xlm_roberta": ("XLMRoberta", "unigram", SMALL),
    "distilbert": ("DistilBert", "bert", DISTIL),
    "modernbert_cls": ("ModernBert", "bert", MODERN | {"classifier_pooling": "cls"}),
    "modernbert_mean": (
        "ModernBert",
        "bert",
        MODERN | {"classifier_pooling": "mean", "classifier_bias": True, "norm_bias": True},
    ),
    "esm": ("Esm", "bert", ESM),
    "gpt2": ("GPT2", "gpt2", GPT2),
    "llama": ("Llama", "llama3", GROUPED),
    "qwen2": ("Qwen2", "qwen", GROUPED),
    "qwen3": ("Qwen3", "qwen", GROUPED | {"head_dim": 8}),
    "gemma2": ("Gemma2", "gemma", GROUPED | {"head_dim": 8}),
    "gemma3_text": ("Gemma3Text", "gemma", GROUPED | {"head_dim": 8}),
    "mistral": ("Mistral", "mistral", GROUPED),
    "phi3": ("Phi3", "phi3", GROUPED),
    "smollm3": ("SmolLM3", "llama3", GROUPED),
    "mpnet": ("MPNet", "bert", SMALL),
}
NAMES = {0: "bad", 1: "fair", 2: "good"}


def made(folder: Path, family: str, kind: str, **more: Any) -> Any:
    """A tiny model of transformers with a head, saved with its tokenizer."""
    name, words, size = FAMILIES[family]
    write_words(folder, words)
    if family == "bert":
        file = folder / "tokenizer_config.json"
        inputs = ["input_ids", "token_type_ids", "attention_mask"]
        file.write_text(json.dumps(json.loads(file.read_text()) | {"model_input_names": inputs}))
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    pad = tokenizer.pad_token_id
    if pad is None:
        pad = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else 0
    config = getattr(transformers, f"{name}Config")(
        **{
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            **size,
            "pad_token_id": pad,
            **more,
        }
    )
    there = shaken(getattr(transformers, f"{name}{kind}")(config))
    there.save_pretrained(folder)
    return there


def said_there(there: Any, folder: Path, texts: list[Any], **more: Any) -> Tensor:
    """Logits of texts, or of pairs of texts, each read alone."""
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    each = []
    for text in texts:
        pair = text if isinstance(text, tuple) else (text,)
        with torch.no_grad():
            each.append(there(**tokenizer(*pair, return_tensors="pt", **more)).logits[0])
    return torch.stack(each) if each[0].ndim == 1 else each  # type: ignore[return-value]


def same(a: Any, b: Tensor) -> None:
    a = torch.as_tensor(a, dtype=torch.float64)
    torch.testing.assert_close(
        a, b.double(), atol=10 * TOLERANCE * max(1.0, float(b.abs().max())), rtol=0
    )  # ten times: a probability's logarithm adds up as many outputs


def opened(folder: Path, kind: str) -> Any:
    """A folder in transformers, every tensor of which must have its place."""
    found, said = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    # What ESM's trunk is read without (formats/families/esm.py).
    assert not {k for k in said["missing_keys"] if "contact_head" not in k and "inv_freq" not in k}
    assert not said["unexpected_keys"]
    return found.eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_classes(family: str, tmp_path: Path) -> None:
    there = made(tmp_path / "theirs", family, "ForSequenceClassification", id2label=NAMES)
    want = said_there(there, tmp_path / "theirs", TEXTS).log_softmax(-1)
    base = onebase.load(tmp_path / "theirs")
    found = base.classify(TEXTS)
    assert list(found[0].scores) == list(NAMES.values())
    same([list(f.scores.values()) for f in found], want.exp())
    assert [f.label for f in found] == [NAMES[int(i)] for i in want.argmax(-1)]
    # As a base of ours, which answers the same; and its trunk alone is as it was.
    onebase.import_base(tmp_path / "theirs", tmp_path / "ours")
    again = onebase.load(tmp_path / "ours")
    assert again.classify(TEXTS) == found
    assert again.fingerprint == base.fingerprint and again.plain.attached is None
    assert again.head is not None and again.head.task == "classify"
    back = opened(again.export(tmp_path / "back"), "AutoModelForSequenceClassification")
    same(said_there(back, tmp_path / "back", TEXTS).log_softmax(-1), want)
    assert back.config.id2label == NAMES and type(back) is type(there)
    assert onebase.load(tmp_path / "back").classify(TEXTS) == found
    assert onebase.load(again.plain.export(tmp_path / "trunk")).head is None


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_many_labels_and_numbers(family: str, tmp_path: Path) -> None:
    kind = "ForSequenceClassification"
    many = made(tmp_path / "many", family, kind, id2label=NAMES, problem_type="multi_label_classification")
    found = onebase.load(tmp_path / "many").classify(TEXTS)
    want = said_there(many, tmp_path / "many", TEXTS).sigmoid()
    same([list(f.scores.values()) for f in found], want)
    assert [f.labels for f in found] == [
        tuple(NAMES[int(i)] for i in row.argsort(descending=True) if row[i] >= 0.5) for row in want
    ]
    one = made(tmp_path / "one", family, kind, num_labels=1, problem_type="regression")
    base = onebase.load(tmp_path / "one")
    same(base.predict(TEXTS), said_there(one, tmp_path / "one", TEXTS)[:, 0])
    assert onebase.load(base.export(tmp_path / "back")).predict(TEXTS) == base.predict(TEXTS)


TALKS = [
    ([{"role": "user", "content": "Hello there"}], "how are you?"),
    ([{"role": "user", "content": "Who jumps?"}], "The quick brown fox"),
]


@pytest.mark.parametrize(("family", "padded"), [("llama", False), ("qwen2", False), ("llama", True)])
def test_rewards(family: str, padded: bool, tmp_path: Path) -> None:
    """Of conversations as the chat template writes them; what transformers takes for padding at their end is not read."""
    there = made(tmp_path / "theirs", family, "ForSequenceClassification", num_labels=1)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "theirs")
    base = onebase.load(tmp_path / "theirs")
    assert base.attached is not None and base.attached.task == "reward"
    rows = [
        base.loaded.codec.chat_ids(
            [*talk, {"role": "assistant", "content": said}], add_generation_prompt=False
        )
        for talk, said in TALKS
    ]
    if padded:  # the token that ends a turn is the padding token too
        there.config.pad_token_id = rows[0][-1]
        there.save_pretrained(tmp_path / "theirs")
        base = onebase.load(tmp_path / "theirs")
    chat = [[*talk, {"role": "assistant", "content": said}] for talk, said in TALKS]
    each = [tokenizer.apply_chat_template(c, return_dict=False) for c in chat]
    assert each == rows
    with torch.no_grad():
        want = torch.stack([there(input_ids=torch.tensor([ids])).logits[0, 0] for ids in each])
    same(base.reward(TALKS), want)
    back = opened(base.export(tmp_path / "back"), "AutoModelForSequenceClassification")
    with torch.no_grad():
        again = torch.stack([back(input_ids=torch.tensor([ids])).logits[0, 0] for ids in each])
    same(again, want)
    assert onebase.load(tmp_path / "back").reward(TALKS) == base.reward(TALKS)


def test_what_is_no_head_here_is_named_and_the_trunk_opens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kind = "ForSequenceClassification"
    made(tmp_path / "theirs", "bert", kind, id2label=NAMES, problem_type="regression")
    base = onebase.load(tmp_path / "theirs")
    assert base.head is None and base.attached is None and base.embed(["Yes"]).shape == (1, 32)
    assert "BertForSequenceClassification is left out" in caplog.text
    assert "a regression of 3 numbers" in caplog.text
    with pytest.raises(UserError, match="no adapter that classifies"):
        base.classify(TEXTS)


@pytest.mark.parametrize(
    ("family", "kind"),
    [("bert", "MultipleChoice"), ("roberta", "MultipleChoice")],
)
def test_the_trunk_opens_without_heads_of_no_task(
    family: str, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    there = made(tmp_path, family, f"For{kind}")
    base = onebase.load(tmp_path)
    assert base.head is None and f"For{kind} is left out: no task supports" in caplog.text
    ids = base.tokenizer.framed(base.tokenizer.encode(TEXTS[1]))
    with torch.no_grad():
        same(base.hidden(ids), there.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0])


def edited(folder: Path, **keys: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | keys))


def test_bad_configs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "theirs"
    made(folder, "modernbert_cls", "ForSequenceClassification", id2label=NAMES)
    edited(folder, id2label={"0": "a", "2": "b", "3": "c"})
    assert onebase.load(folder).head is None and "a name for each of the 3 outputs" in caplog.text
    edited(folder, id2label=None, classifier_pooling="max")
    assert onebase.load(folder).head is None and "'classifier_pooling' is 'max'" in caplog.text
    edited(folder, classifier_pooling="cls", classifier_bias=True)
    with pytest.raises(ArtifactError, match=r"'head\.dense\.bias' is missing"):
        onebase.load(folder)
    edited(folder, classifier_bias=False, id2label={"0": "a", "1": "b", "2": "a"})
    found = onebase.load(folder).classify(["Yes"])[0]
    assert list(found.scores) == ["a", "b", "a (2)"]


def test_own_heads_and_adapters(tmp_path: Path) -> None:
    """An adapter takes the place of the head that a base came with; learning starts from the base without it."""
    made(tmp_path / "theirs", "bert", "ForSequenceClassification", id2label=NAMES)
    base = onebase.load(tmp_path / "theirs")
    own = base.classify(TEXTS)
    rows = [{"text": t, "label": "long" if len(t) > 20 else "short"} for t in TEXTS]
    adapter = base.adapt(rows, task="classify", method="head")
    assert set(base.with_adapter(adapter).classify(TEXTS)[0].scores) == {"long", "short"}
    assert base.classify(TEXTS) == own
    assert base.plan_adapt(rows, task="classify", method="lora").facts
    assert base.head is not None
    base.head.save(tmp_path / "head")
    assert base.plain.with_adapter(tmp_path / "head").classify(TEXTS) == own
    scores = onebase.evaluate(base, [{"text": t, "label": f.label} for t, f in zip(TEXTS, own, strict=True)])
    assert scores["accuracy"].value == 1.0
    base.save(tmp_path / "ours")
    assert onebase.load(tmp_path / "ours").classify(TEXTS) == own


PAIRS = [("Who jumps?", "The quick brown fox"), ("How are you?", "Yes, it is"), ("naïve", "a lazy dog")]


@pytest.mark.parametrize(
    "family", ["bert", "roberta", "distilbert", "modernbert_mean", "xlm_roberta", "qwen3"]
)
def test_pairs_of_texts(family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Framed as the tokenizer frames two, the second of the second type where the base knows types."""
    there = made(tmp_path / "theirs", family, "ForSequenceClassification", id2label=NAMES)
    base = onebase.load(tmp_path / "theirs")
    want = said_there(there, tmp_path / "theirs", PAIRS).softmax(-1)
    found = base.classify(PAIRS)
    same([list(f.scores.values()) for f in found], want)
    rows = [{"text": a, "text_pair": b, "label": f.label} for (a, b), f in zip(PAIRS, found, strict=True)]
    assert onebase.evaluate(base, rows)["accuracy"].value == 1.0
    (long,) = base.classify([("Yes " * 80, "Yes")])
    assert "1 of 1 texts are truncated" in caplog.text
    assert long.scores == base.classify([("Yes " * 400, "Yes")])[0].scores
    with pytest.raises(UserError, match="pairs of them"):
        base.classify(["Yes", PAIRS[0]])


QUERY, CANDIDATES = (
    "Who jumps over the dog?",
    ["Yes", "The quick brown fox jumps", "Hello there", "fox " * 90],
)


@pytest.mark.parametrize(
    ("family", "saved"),
    [
        ("bert", "transformers"),
        ("bert", "old"),
        ("xlm_roberta", "Identity"),
        ("modernbert_cls", "Sigmoid"),
        ("qwen3", "Identity"),
    ],
)
def test_reranking_as_sentence_transformers(family: str, saved: str, tmp_path: Path) -> None:
    CrossEncoder = pytest.importorskip("sentence_transformers").CrossEncoder
    made(tmp_path / "plain", family, "ForSequenceClassification", num_labels=1)
    config = json.loads((tmp_path / "plain" / "tokenizer_config.json").read_text())
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "plain")
    pad = tokenizer.pad_token or tokenizer.eos_token
    # Where there is a chat template sentence-transformers makes a conversation of the two (docs/bases.md).
    more = {"model_max_length": 40, "pad_token": pad, "chat_template": None}
    (tmp_path / "plain" / "tokenizer_config.json").write_text(json.dumps(config | more))
    there, folder = CrossEncoder(str(tmp_path / "plain")), tmp_path / "plain"
    if saved == "old":
        edited(folder, sbert_ce_default_activation_function="torch.nn.modules.linear.Identity")
        there = CrossEncoder(str(folder))
    elif saved != "transformers":
        there.activation_fn = getattr(torch.nn, saved)()
        folder = tmp_path / "theirs"
        there.save_pretrained(str(folder))
    want = there.rank(QUERY, CANDIDATES)
    onebase.import_base(folder, tmp_path / "ours")
    for base in (onebase.load(folder), onebase.load(tmp_path / "ours")):
        found = base.rerank(QUERY, CANDIDATES)
        assert [r.index for r in found] == [w["corpus_id"] for w in want]
        same([r.score for r in found], torch.tensor([float(w["score"]) for w in want]))
        assert base.rerank(QUERY, CANDIDATES, top=2) == found[:2]
        assert base.apply([{"query": QUERY, "texts": CANDIDATES}])[0]["ranked"][0]["index"] == found[0].index
    back = CrossEncoder(str(base.export(tmp_path / "back"))).rank(QUERY, CANDIDATES)
    assert [w["corpus_id"] for w in back] == [w["corpus_id"] for w in want]
    same([float(w["score"]) for w in back], torch.tensor([float(w["score"]) for w in want]))
    rows = [{"query": QUERY, "texts": CANDIDATES, "grades": [0, 2, 0, 1]}]
    scores = onebase.evaluate(base, rows)
    place = [r.index for r in found]
    assert scores["mrr@10"].value == pytest.approx(1 / (1 + min(place.index(1), place.index(3))))
    sklearn = pytest.importorskip("sklearn.metrics")
    by_index = sorted(found, key=lambda r: r.index)
    assert scores["ndcg@10"].value == pytest.approx(
        sklearn.ndcg_score([[0, 2, 0, 1]], [[r.score for r in by_index]], k=10)
    )


def test_an_activation_that_is_not_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "theirs"
    made(folder, "bert", "ForSequenceClassification", num_labels=1)
    edited(folder, sentence_transformers={"activation_fn": "mine.Own"})
    base = onebase.load(folder)
    assert base.head is None and "the activation is 'mine.Own'" in caplog.text
    with pytest.raises(UserError, match="no adapter that reranks"):
        base.rerank(QUERY, CANDIDATES)


TAGS = {0: "B-PER", 1: "I-PER", 2: "O", 3: "LOC", 4: "S-ORG"}


@pytest.mark.parametrize(
    "family",
    ["bert", "roberta", "distilbert", "modernbert_cls", "esm", "gpt2", "llama", "qwen3", "gemma2", "mistral"],
)
def test_tags_of_tokens(family: str, tmp_path: Path) -> None:
    there = made(tmp_path / "theirs", family, "ForTokenClassification", id2label=TAGS)
    base = onebase.load(tmp_path / "theirs")
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "theirs")
    found, every = base.tag(TEXTS), set()
    for text, spans in zip(TEXTS, found, strict=True):
        read = tokenizer(text, return_tensors="pt", return_offsets_mapping=True)
        places = read.pop("offset_mapping")[0].tolist()
        with torch.no_grad():
            names = [TAGS[int(i)] for i in there(**read).logits[0].argmax(-1)]
        want: list[tuple[int, int, str]] = []
        before = "O"
        for name, (a, b) in zip(names, places, strict=True):
            if a == b:
                continue  # what is around the text
            label = name.split("-")[-1]
            if name != "O" and before == label and name[:2] not in ("B-", "S-"):
                want[-1] = (want[-1][0], b, label)
            elif name != "O":
                want.append((a, b, label))
            before = label if name != "O" else "O"
        every |= set(names)
        trimmed = [
            (a + len(text[a:b]) - len(text[a:b].lstrip()), a + len(text[a:b].rstrip()), n) for a, b, n in want
        ]
        assert [(s.start, s.end, s.label) for s in spans] == [t for t in trimmed if t[0] < t[1]]
    assert len(every) >= 2
    back = opened(base.export(tmp_path / "back"), "AutoModelForTokenClassification")
    for a, b in zip(
        said_there(back, tmp_path / "back", TEXTS), said_there(there, tmp_path / "theirs", TEXTS), strict=True
    ):
        same(a, b)
    assert back.config.id2label == TAGS and onebase.load(tmp_path / "back").tag(TEXTS) == found


def test_what_is_learnt_here_for_transformers(tmp_path: Path) -> None:
    """A tagger with its LoRA merged in; a head that their layout cannot say is refused with the reason."""
    made(tmp_path / "theirs", "bert", "Model")
    base = onebase.load(tmp_path / "theirs")
    rows = [{"text": t, "spans": [{"start": 0, "end": 3, "label": "word"}]} for t in TEXTS]
    on = base.with_adapter(base.adapt(rows, task="tag", method="lora", epochs=2, lr=0.05))
    back = opened(on.export(tmp_path / "back"), "AutoModelForTokenClassification")
    assert back.config.id2label == {0: "O", 1: "B-word", 2: "I-word"}
    assert onebase.load(tmp_path / "back").tag(TEXTS) == on.tag(TEXTS)
    labelled = [{"text": t, "label": "long" if len(t) > 20 else "short"} for t in TEXTS]
    on = base.with_adapter(base.adapt(labelled, task="classify", method="head"))
    with pytest.raises(UserError, match="cannot express a head (with pooling|whose layer)"):
        on.export(tmp_path / "no")
    assert not (tmp_path / "no").exists()


CONTEXT = "The quick brown fox jumps over the lazy dog. Hello there, how are you? I am fine, thank you."


ANSWERING = ["bert", "roberta", "distilbert", "modernbert_cls", "mpnet"]
ANSWERING += ["gpt2", "llama", "qwen2", "qwen3", "mistral", "smollm3"]


@pytest.mark.parametrize("family", ANSWERING)
def test_answers_in_a_text(family: str, tmp_path: Path) -> None:
    there = made(tmp_path / "theirs", family, "ForQuestionAnswering")
    base = onebase.load(tmp_path / "theirs")
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "theirs")
    read = tokenizer(QUERY, CONTEXT, return_tensors="pt", return_offsets_mapping=True)
    places, of = read.pop("offset_mapping")[0].tolist(), read.sequence_ids()
    with torch.no_grad():
        said = there(**read)
    inside = torch.tensor([x == 1 for x in of])
    start, end = (
        z[0].double().masked_fill(~inside, -torch.inf).log_softmax(-1)
        for z in (said.start_logits, said.end_logits)
    )
    want = max(
        ((i, j) for i in range(len(of)) for j in range(i, min(len(of), i + 30)) if inside[i] and inside[j]),
        key=lambda ij: float(start[ij[0]] + end[ij[1]]),
    )
    found = base.extract(QUERY, CONTEXT, top=3)
    text = CONTEXT[places[want[0]][0] : places[want[1]][1]]
    assert found[0].text == text.strip() == CONTEXT[found[0].start : found[0].end]
    same([found[0].score], (start[want[0]] + end[want[1]]).exp()[None])
    assert [f.score for f in found] == sorted((f.score for f in found), reverse=True)
    long = base.extract(QUERY, "I am fine, thank you. " * 30 + CONTEXT)  # in windows
    assert 0 < long[0].score < 1
    back = opened(base.export(tmp_path / "back"), "AutoModelForQuestionAnswering")
    with torch.no_grad():
        again = back(**read)
    same(again.start_logits, said.start_logits)
    same(again.end_logits, said.end_logits)
    assert type(back) is type(there)
    assert onebase.load(tmp_path / "back").extract(QUERY, CONTEXT, top=3) == found
