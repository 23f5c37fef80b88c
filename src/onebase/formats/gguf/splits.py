r"""Pre-tokenizers of GGUF: the names of `tokenizer.ggml.pre`, and the regular expressions of each.

A kind is a list of patterns. Each splits the pieces left by the one before it, and its matches become separate pieces. The same table reads a
name and finds the name for a tokenizer. Sources: llama.cpp's src/llama-vocab.cpp for names and patterns. If it writes a pattern differently
because its regular expressions lack a feature, the pattern is from the tokenizer.json of the models that introduced the name.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tokenizers import Regex, normalizers, pre_tokenizers

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_ENGLISH = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_END = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_DIGIT, _NUMBER, _THREES = r"\p{N}", r"\p{N}+", r"\p{N}{1,3}"


def _gpt4(number: str, end: str = _END, english: str = f"{_ENGLISH}|") -> str:
    """The pattern of GPT-4 with another rule for numbers."""
    return f"{english}{_WORD}|{number}|{_SIGNS}|{end}"


def _cased(number: str, suffix: str = f"{_ENGLISH}?") -> str:
    """The pattern of GPT-4o: a word also ends before a capital that follows lowercase letters."""
    capital, small = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    words = [rf"[^\r\n\p{{L}}\p{{N}}]?{capital}{a}{small}{b}{suffix}" for a, b in ("*+", "+*")]
    return "|".join([*words, number, r" ?[^\s\p{L}\p{N}]+[\r\n/]*", _END])


_CASED_LETTERS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚ"
    "Ḁ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
_HAN = "[一-龥ࠀ-一가-퟿]+"
_DEEPSEEK = (
    r"[\r\n]",
    rf"\s?[{_CASED_LETTERS}]+",
    r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
    r"\s+$",
    _HAN,
)
_DEEPSEEK3 = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"""
_YOUTU = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+"
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"


@dataclass(frozen=True)
class TextSplit:
    """One kind of pre-tokenizer. names: the first is written, all are read. whole: a word in the vocabulary is one token, whatever the merges
    are. begins: texts begin with BOS unless the file has the key. nfc: the models normalise a text to NFC first (llama.cpp does not).
    also: patterns of the models' own tokenizer.json, which are equivalent for their vocabularies, and get this name on export.
    near: llama.cpp's own pattern differs: a word has no combining marks, and only ASCII capitals count as capitals.
    """

    names: tuple[str, ...]
    patterns: tuple[str, ...]
    whole: bool = False
    begins: bool = False
    nfc: bool = False
    also: tuple[str, ...] = ()
    near: bool = False

    @property
    def normalizer(self) -> Any:
        """The normalizer of a text, or None."""
        return normalizers.NFC() if self.nfc else None

    @property
    def pre_tokenizer(self) -> Any:
        """The patterns, followed by the byte-level step."""
        last = self.patterns[-1] == _GPT2  # the library's own, in one step with the bytes
        steps = [_step(p) for p in self.patterns[: -1 if last else None]]
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=last))
        return steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)


def _step(pattern: str) -> Any:
    if pattern == _DIGIT:
        return pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def _one(names: str, *patterns: str, **how: Any) -> TextSplit:
    return TextSplit(tuple(names.split()), patterns, **how)


SPLITS = (
    _one(
        "gpt-2 phi-2 mpt olmo jais trillion exaone4 gigachat a.x-4.0 mellum modern-bert granite-docling",
        _GPT2,
    ),
    _one("smollm starcoder refact command-r codeshell exaone minerva-7b mellum2", _DIGIT, _GPT2),
    _one(
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
        _gpt4(_THREES),
        whole=True,
        begins=True,
    ),
    _one("dbrx smaug-bpe", _gpt4(_THREES)),
    _one("qwen2 deepseek-r1-qwen f2llmv2", _gpt4(_DIGIT), nfc=True),
    _one(
        "hunyuan stablelm2 solar-open grok-2 megrez kormo bailingmoe bailingmoe2 llada-moe",
        _gpt4(_DIGIT),
    ),
    _one(
        "qwen35",
        rf"{_ENGLISH}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_END}",
        nfc=True,
    ),
    _one("deepseek-llm", *_DEEPSEEK, _NUMBER, also=(*_DEEPSEEK, _DIGIT)),
    _one("deepseek-coder", r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN, _DIGIT),
    _one("deepseek-v3 hunyuan-dense joyai-llm", _THREES, "[一-龥぀-ゟ゠-ヿ]+", _DEEPSEEK3 + _END),
    _one("tekken", _cased(_DIGIT, ""), whole=True, begins=True, near=True),
    _one("gpt-4o llama4 kanana2 talkie minimax-m2", _cased(_THREES), near=True),
    _one("youtu", _YOUTU, _cased(_DIGIT), whole=True, near=True),
    _one("default", r"[\p{P}\$\+<=>\^~\|]+", _GPT2, _NUMBER, "[0-9][0-9][0-9]"),
    _one("falcon", r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"),
    _one("bloom gpt3-finnish poro-chat", _BLOOM),
    _one("viking", _BLOOM, _DIGIT),
    _one("minicpm5", _THREES, _gpt4(_NUMBER), whole=True),
    _one("ufakzeka", _gpt4(_DIGIT, english="")),
    _one("seed-coder", rf"{_ENGLISH}|{_WORD}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_END}"),
    _one(
        "exaone-moe",
        rf"{_ENGLISH}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
    ),
    _one(
        "jais-2",
        _gpt4(
            _THREES,
            r"\s*[\r\n]+|"
            + "".join(rf"\s{{{2**n}}}(?!\S)|" for n in range(9, 1, -1))
            + r"\s{1,2}(?!\S)|\s{1}",
        ),
    ),
)
NAMES = tuple(name for split in SPLITS for name in split.names)


def named(name: str) -> TextSplit | None:
    """The kind for a name of `tokenizer.ggml.pre`; None for an unknown name."""
    return next((s for s in SPLITS if name in s.names), None)


def alike(tree: dict[str, Any]) -> list[TextSplit]:
    """The kinds that split like the tokenizer of a tokenizer.json, ignoring `whole`."""
    normalizer = tree.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer] if normalizer else [])
    nfc = steps == [{"type": "NFC"}]
    if steps and not nfc:
        return []
    patterns_used = list(_steps(tree.get("pre_tokenizer")))
    return [
        s
        for s in SPLITS
        if s.nfc == nfc
        and patterns_used
        in [[_spelling(p) for p in patterns] + [_BYTES] for patterns in (s.patterns, s.also)]
    ]


_BYTES = "byte-level"


def _steps(step: dict[str, Any] | None) -> Iterator[str]:
    """The steps of a pre-tokenizer in a canonical form, without settings that no id depends on."""
    step = step or {}
    match step.get("type"):
        case "Sequence":
            for inner in step["pretokenizers"]:
                yield from _steps(inner)
        case "ByteLevel" if not step.get("add_prefix_space"):
            if step.get("use_regex", True):
                yield _spelling(_GPT2)
            yield _BYTES
        case "Digits":
            yield _spelling(_DIGIT if step.get("individual_digits") else _NUMBER)
        case "Split" if (
            "Regex" in step["pattern"] and step["behavior"] == "Isolated" and not step.get("invert")
        ):
            yield _spelling(step["pattern"]["Regex"])
        case _:
            yield json.dumps(step, sort_keys=True)


def _spelling(pattern: str) -> str:
    """The canonical form of a pattern."""
    for variant, canonical in _SPELLINGS.items():
        pattern = pattern.replace(variant, canonical)
    return pattern


_SPELLINGS = {
    "\r": r"\r",
    "\n": r"\n",
    # Contractions, in capitals too, which are written in three ways.
    "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])": _ENGLISH,
    "'(?i:[sdmt]|ll|ve|re)": _ENGLISH,
    # The next character is never in these classes, so possessive and greedy matching are equal.
    r"[^\r\n\p{L}\p{N}]?+": r"[^\r\n\p{L}\p{N}]?",
    r"[^\s\p{L}\p{N}]++": r"[^\s\p{L}\p{N}]+",
    # Both match white space up to its last line break.
    r"\s*[\r\n]+": r"\s*[\r\n]",
}
