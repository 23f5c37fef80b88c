"""What a folder calls its special tokens is in the folder that is exported: masks are filled there, processors find their image token."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers")

import onebase  # noqa: E402
from onebase.base.folder import load_base, save_base  # noqa: E402
from tests.formats.parity import shaken  # noqa: E402

WORDS = [
    *["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    *["the", "cat", "sat", "on", "mat", "a", "dog", "ran", "##s", "x", "y", "z"],
]
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
}
TEXT = "the cat sat on"


def bert_words() -> Any:
    return transformers.BertTokenizer(vocab={w: i for i, w in enumerate(WORDS)})


def roberta_words() -> Any:
    letters = sorted(transformers.models.gpt2.tokenization_gpt2.pre_tokenizers.ByteLevel.alphabet())
    names = ["<s>", "<pad>", "</s>", "<unk>", *letters, "th", "Ġt", "<mask>"]
    vocab = {w: i for i, w in enumerate(names)}
    return transformers.RobertaTokenizer(vocab=vocab, merges=[("t", "h"), ("Ġ", "t")])


def esm_words(folder: Path) -> Any:
    file = folder / "vocab.txt"
    file.write_text("\n".join(["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<mask>"]))
    return transformers.EsmTokenizer(str(file))


def made(kind: str, folder: Path) -> tuple[Any, Any, str]:
    """A tiny model for masked tokens, its tokenizer, and a text."""
    if kind == "esm":
        words = esm_words(folder)
        cfg = transformers.EsmConfig(
            **SMALL, vocab_size=len(words), pad_token_id=1, mask_token_id=words.mask_token_id
        )
        return transformers.EsmForMaskedLM(cfg), words, "LAGV"
    words = roberta_words() if kind == "roberta" else bert_words()
    size = len(words)
    if kind == "roberta":
        cfg = transformers.RobertaConfig(**SMALL, vocab_size=size, pad_token_id=1, type_vocab_size=1)
        return transformers.RobertaForMaskedLM(cfg), words, TEXT
    if kind == "distilbert":
        cfg = transformers.DistilBertConfig(
            dim=32, n_layers=2, n_heads=2, hidden_dim=48, max_position_embeddings=32, vocab_size=size
        )
        return transformers.DistilBertForMaskedLM(cfg), words, TEXT
    if kind == "modernbert":
        ids = {f"{k}_token_id": getattr(words, f"{k}_token_id") for k in ("pad", "cls", "sep")}
        cfg = transformers.ModernBertConfig(**SMALL, vocab_size=size, **ids, bos_token_id=2, eos_token_id=3)
        generic = transformers.PreTrainedTokenizerFast(
            tokenizer_object=words.backend_tokenizer, **words.special_tokens_map
        )
        return transformers.ModernBertForMaskedLM(cfg), generic, TEXT
    return transformers.BertForMaskedLM(transformers.BertConfig(**SMALL, vocab_size=size)), words, TEXT


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "esm", "modernbert"])
def test_masks_are_filled_as_at_the_source(kind: str, bare: bool, tmp_path: Path) -> None:
    """bare: a source whose class alone says what its tokens are called."""
    model, words, text = made(kind, tmp_path)
    shaken(model).eval().save_pretrained(tmp_path / "a")
    words.save_pretrained(tmp_path / "a")
    if bare and kind != "modernbert":
        file = tmp_path / "a" / "tokenizer_config.json"
        tree = json.loads(file.read_text())
        file.write_text(json.dumps({k: v for k, v in tree.items() if not k.endswith("_token")}))
    base = onebase.load(tmp_path / "a")
    save_base(tmp_path / "ours", base.loaded)  # by way of a folder of ours, too
    onebase.Base(load_base(tmp_path / "ours")).export(tmp_path / "b", format="hf")
    there = transformers.AutoTokenizer.from_pretrained(tmp_path / "a")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "b")
    names = ["mask_token", "cls_token", "sep_token"]
    names += [] if bare else ["pad_token", "unk_token", "bos_token", "eos_token"]
    said = {n: (str(getattr(there, n)), str(getattr(again, n))) for n in names}
    assert not {n: x for n, x in said.items() if x[0] != x[1]}
    masked = [f"{text} {there.mask_token}", f"{text}{there.mask_token}", f"{there.mask_token} {text}"]
    for x in masked:
        assert again(x)["input_ids"] == there(x)["input_ids"], x
    found = [
        transformers.pipeline("fill-mask", model=str(tmp_path / name))(masked[0], top_k=4) for name in "ab"
    ]
    for a, b in zip(*found, strict=True):
        assert (a["token"], a["sequence"]) == (b["token"], b["sequence"])
        assert a["score"] == pytest.approx(b["score"], rel=1e-4)


def test_names_of_other_tokens_and_those_without_one_go_out_too(tmp_path: Path) -> None:
    model, words, _ = made("bert", tmp_path)
    model.save_pretrained(tmp_path / "a")
    words.add_special_tokens({"extra_special_tokens": ["x", "y"]})
    words.save_pretrained(tmp_path / "a")
    file = tmp_path / "a" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"image_token": "z", "of_none_token": "none"}))
    tree = json.loads((tmp_path / "a" / "tokenizer.json").read_text())
    tree["added_tokens"].append(tree["added_tokens"][0] | {"id": WORDS.index("z"), "content": "z"})
    (tmp_path / "a" / "tokenizer.json").write_text(json.dumps(tree))
    onebase.load(tmp_path / "a").export(tmp_path / "b", format="hf")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "b")
    assert again.image_token == "z"
    assert {"x", "y"} <= set(map(str, again.extra_special_tokens))
    assert str(again.of_none_token) == "none"  # a new token there, and so here
    assert onebase.load(tmp_path / "b").tokenizer.roles == onebase.load(tmp_path / "a").tokenizer.roles


def test_what_tokens_are_called_elsewhere_is_no_part_of_what_adapters_rely_on(tmp_path: Path) -> None:
    model, words, _ = made("bert", tmp_path)
    model.save_pretrained(tmp_path / "a")
    words.save_pretrained(tmp_path / "a")
    tokenizer = onebase.load(tmp_path / "a").tokenizer
    assert tokenizer.roles.others["mask_token"] == "[MASK]"
    assert tokenizer.naming({}, ()).digest == tokenizer.digest


def test_a_decoder_writes_on_there_with_the_tokenizer_that_was_exported(tmp_path: Path) -> None:
    """No kinds of tokens are given to a model that has none."""
    words = roberta_words()
    cfg = transformers.LlamaConfig(**SMALL, vocab_size=len(words), bos_token_id=0, eos_token_id=2)
    model = shaken(transformers.LlamaForCausalLM(cfg)).eval()
    model.save_pretrained(tmp_path / "a")
    words.save_pretrained(tmp_path / "a")
    onebase.load(tmp_path / "a").export(tmp_path / "b", format="hf")
    writes = transformers.pipeline("text-generation", model=str(tmp_path / "b"))
    given = writes.tokenizer("the", return_tensors="pt")
    assert set(given) == {"input_ids", "attention_mask"}
    with torch.no_grad():
        assert writes.model.generate(**given, max_new_tokens=3, do_sample=False).shape[1] > 3
