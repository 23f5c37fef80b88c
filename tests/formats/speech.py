"""Tiny Whispers of transformers as folders, with a tokenizer that has the special tokens of real ones."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer

LANGUAGES = ("en", "de", "haw")
TIMES = 26
SPECIALS = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    *(f"<|{x}|>" for x in LANGUAGES),
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
TEXTS = ["The quick brown fox jumps over the lazy dog. " * 3, "Please leave a message after the tone."] * 4


def whisper_tokenizer() -> Tokenizer:
    """Byte-level BPE of about 300 tokens, then the special ones; timestamps have no names, as in Whisper's English ones."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        TEXTS, BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    inner.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIALS])
    return inner


def rows(inner: Tokenizer) -> int:
    """Tokens that a model for it can choose, timestamps included."""
    return inner.get_vocab_size() + TIMES


def tiny_config(vocab: int = 60, **more: Any) -> Any:
    """A config of transformers: 3 + 2 blocks, width 32, 20 frames."""
    import transformers

    sizes = {
        "vocab_size": vocab,
        "num_mel_bins": 8,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_layers": 3,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 40,
        "decoder_ffn_dim": 48,
        "d_model": 32,
        "max_source_positions": 10,
        "max_target_positions": 16,
        "begin_suppress_tokens": None,
    }
    tokens = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2, "decoder_start_token_id": 3}
    return transformers.WhisperConfig(**sizes | tokens | more)


def speech_folder(path: Path, *, multilingual: bool = True, seed: int = 0, **more: Any) -> Any:
    """A folder with weights, tokenizer and both configs of a tiny random Whisper; returns the model."""
    import transformers

    from tests.formats.parity import shaken

    inner = whisper_tokenizer()
    ids = {s: inner.token_to_id(s) for s in SPECIALS}
    end = ids["<|endoftext|>"]
    own = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end}
    sizes = {"max_target_positions": 40, "decoder_start_token_id": ids["<|startoftranscript|>"]}
    model = shaken(
        transformers.WhisperForConditionalGeneration(tiny_config(rows(inner), **own | sizes | more)), seed
    )
    model.save_pretrained(path)
    inner.save(str(path / "tokenizer.json"))
    roles = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "<|endoftext|>")
    (path / "tokenizer_config.json").write_text(json.dumps(roles))
    tree = {
        "eos_token_id": end,
        "is_multilingual": multilingual,
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "suppress_tokens": [5, 6, ids["<|startoflm|>"]],
        "begin_suppress_tokens": [7, end],
        "max_initial_timestamp_index": 4,
    }
    if multilingual:
        tree["lang_to_id"] = {f"<|{x}|>": ids[f"<|{x}|>"] for x in LANGUAGES}
        tree["task_to_id"] = {t: ids[f"<|{t}|>"] for t in ("transcribe", "translate")}
    (path / "generation_config.json").write_text(json.dumps(tree))
    frames = {
        "feature_size": 8,
        "sampling_rate": 16000,
        "hop_length": 160,
        "n_fft": 400,
        "padding_value": 0.0,
    }
    (path / "preprocessor_config.json").write_text(json.dumps(frames))
    return model
