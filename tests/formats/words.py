"""Tiny tokenizers of the kinds that open models have, as folders, with chat templates written after the published formats."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer, UnigramTrainer, WordPieceTrainer

TEXTS = [
    "The quick brown fox jumps over the lazy dog. " * 3,
    "Grüße aus Köln, naïve café: 123 questions; is this one? Yes, it is!\n\nNo.",
    "def add(a, b):\n    return a + b  # the user and the assistant\n",
    "user assistant system model Hello there, how are you? I am fine, thank you.",
] * 4
PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

CHATML = """{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
LLAMA3 = """{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"""
MISTRAL = """{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"""
PHI3 = """{% for message in messages %}{{'<|' + message['role'] + '|>' + '\n' + message['content'] + '<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"""


def _byte_level(specials: list[Any], pattern: str | None = PATTERN) -> Tokenizer:
    inner = Tokenizer(models.BPE())
    if pattern is None:
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        TEXTS, BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    )
    inner.add_tokens([t for t in specials if isinstance(t, AddedToken) and not t.special])
    inner.add_special_tokens([t for t in specials if not isinstance(t, AddedToken) or t.special])
    return inner


def _sentence_piece(first: list[str], more: list[Any]) -> Tokenizer:
    """BPE as SentencePiece makes it: U+2581 for a space, and a token for each byte."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.train_from_iterator(TEXTS, BpeTrainer(vocab_size=300, show_progress=False))
    tree = json.loads(inner.to_str())
    letters = sorted(tree["model"]["vocab"], key=tree["model"]["vocab"].get)
    names = dict.fromkeys([*first, *(f"<0x{b:02X}>" for b in range(256)), *letters, "\n"])
    tree["model"] |= {
        "vocab": {name: i for i, name in enumerate(names)},
        "byte_fallback": True,
        "fuse_unk": True,
        "unk_token": "<unk>",
    }
    inner = Tokenizer.from_str(json.dumps(tree | {"pre_tokenizer": None}))
    inner.add_special_tokens([*first, *more])
    return inner


def _replaced(strip: bool) -> decoders.Sequence:
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if strip else parts)


def _bos(inner: Tokenizer, name: str) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(
        single=f"{name} $A", pair=f"{name} $A {name} $B", special_tokens=[(name, inner.token_to_id(name))]
    )


def gpt2() -> tuple[Tokenizer, dict[str, Any]]:
    name = "<|endoftext|>"
    return _byte_level([name], None), {"bos_token": name, "eos_token": name, "unk_token": name}


def qwen() -> tuple[Tokenizer, dict[str, Any]]:
    plain = [AddedToken(n, special=False, normalized=False) for n in ("<think>", "</think>")]
    inner = _byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *plain])
    inner.normalizer = normalizers.NFC()
    return inner, {
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": CHATML,
    }


def llama3() -> tuple[Tokenizer, dict[str, Any]]:
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    inner = _byte_level(names)
    inner.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), _bos(inner, names[0])]
    )
    return inner, {
        "bos_token": names[0],
        "eos_token": "<|eot_id|>",
        "chat_template": [{"name": "default", "template": LLAMA3}, {"name": "tool_use", "template": "no"}],
    }


def phi3() -> tuple[Tokenizer, dict[str, Any]]:
    """Special tokens that swallow the white space behind them; a text begins with a space of its own."""
    marks = [
        AddedToken(n, special=True, rstrip=True, normalized=False)
        for n in ("<|user|>", "<|assistant|>", "<|end|>")
    ]
    inner = _sentence_piece(["<unk>", "<s>", "</s>"], ["<|endoftext|>", *marks])
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = _replaced(strip=True)
    return inner, {
        "bos_token": "<s>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<unk>",
        "chat_template": PHI3,
    }


def llama2() -> tuple[Tokenizer, dict[str, Any]]:
    inner = _sentence_piece(["<unk>", "<s>", "</s>"], [])
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = _replaced(strip=True)
    inner.post_processor = _bos(inner, "<s>")
    return inner, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": MISTRAL}


def mistral() -> tuple[Tokenizer, dict[str, Any]]:
    inner, said = llama2()
    inner.normalizer = None
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return inner, said


def gemma() -> tuple[Tokenizer, dict[str, Any]]:
    turns = ["<start_of_turn>", "<end_of_turn>"]
    inner = _sentence_piece(["<pad>", "<eos>", "<bos>", "<unk>"], turns)
    inner.normalizer = normalizers.Replace(" ", "▁")
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    inner.decoder = _replaced(strip=False)
    inner.post_processor = _bos(inner, "<bos>")
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return inner, names | {"chat_template": GEMMA}


def unigram() -> tuple[Tokenizer, dict[str, Any]]:
    """As T5 and XLM-R have it."""
    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = UnigramTrainer(vocab_size=200, special_tokens=specials, unk_token="<unk>", show_progress=False)
    inner.train_from_iterator(TEXTS, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return inner, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def bert() -> tuple[Tokenizer, dict[str, Any]]:
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner.train_from_iterator(
        TEXTS, WordPieceTrainer(vocab_size=200, special_tokens=specials, show_progress=False)
    )
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    inner.enable_truncation(128)
    inner.enable_padding(length=128, pad_token="[PAD]")
    return inner, {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


KINDS: dict[str, Callable[[], tuple[Tokenizer, dict[str, Any]]]] = {
    f.__name__: f for f in (gpt2, qwen, llama3, phi3, llama2, mistral, gemma, unigram, bert)
}
CHATS = ("qwen", "llama3", "phi3", "llama2", "mistral", "gemma")


def write_words(folder: Path, kind: str) -> Tokenizer:
    """The files of one kind in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    inner, said = KINDS[kind]()
    inner.save(str(folder / "tokenizer.json"))
    more = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(said | more))
    return inner
