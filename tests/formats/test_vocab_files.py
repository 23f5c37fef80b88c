"""Byte-level BPE in vocab.json and merges.txt, and CLIP's tokenizer in either form: ids, frames and texts as transformers gives them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer

from onebase.errors import ArtifactError
from onebase.formats.hf.tokenizer_files import read_codec
from onebase.formats.hf.vocab_files import CLIP
from onebase.modality.text.tokenizer import Tokenizer as Ours
from tests.formats.words import TEXTS

transformers = pytest.importorskip("transformers")
SPECIALS = {
    "GPT2Tokenizer": ["<|endoftext|>"],
    "WhisperTokenizer": ["<|endoftext|>"],
    "RobertaTokenizer": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    "CLIPTokenizer": ["<|startoftext|>", "<|endoftext|>"],
    "Qwen2Tokenizer": ["<|endoftext|>"],
}
PLAIN = [
    "",
    "a photo of a cat",
    " A PHOTO  of\n a\tCat!! ",
    "Grüße, naïve café 中文 😀",
    "don't we'LL 12345 e\u0301",
    "?!...",
    "İstanbul ǅ ſ K",
]


def write_two_files(folder: Path, kind: str, **said: Any) -> None:
    """A small trained vocabulary as the two files, and a tokenizer_config.json that names the class."""
    inner = Tokenizer(models.BPE(**({"end_of_word_suffix": "</w>"} if kind == "CLIPTokenizer" else {})))
    if kind == "CLIPTokenizer":
        inner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        cut = pre_tokenizers.Split(Regex(CLIP), "removed", invert=True)
        inner.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    else:
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    more = {"end_of_word_suffix": "</w>"} if kind == "CLIPTokenizer" else {}
    trainer = BpeTrainer(
        vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False, **more
    )
    inner.train_from_iterator([*TEXTS, *PLAIN], trainer)
    model = json.loads(inner.to_str())["model"]
    vocab = model["vocab"]
    for token in (
        *(f"{letter}</w>" for letter in pre_tokenizers.ByteLevel.alphabet() if more),
        *SPECIALS[kind],
    ):
        vocab.setdefault(token, len(vocab))
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind} | said))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Ours, Any]]:
    """Ours and transformers' of each kind; `CLIP, one file` from the tokenizer.json that transformers writes."""
    root = tmp_path_factory.mktemp("two-files")
    found = {}
    for kind in SPECIALS:
        write_two_files(root / kind, kind)
        theirs = getattr(transformers, kind).from_pretrained(root / kind, local_files_only=True)
        found[kind] = read_codec(root / kind, 2000).tokenizer, theirs
    found["CLIPTokenizer"][1].save_pretrained(root / "one")
    assert not (root / "one" / "vocab.json").exists()
    found["CLIP, one file"] = read_codec(root / "one", 2000).tokenizer, found["CLIPTokenizer"][1]
    return found


NAMES = [*SPECIALS, "CLIP, one file"]


def same(ours: Ours, theirs: Any, text: str) -> None:
    ids = ours.encode(text)
    assert ids == theirs(text, add_special_tokens=False)["input_ids"]
    if (
        type(theirs).__name__ != "WhisperTokenizer"
    ):  # it begins with what asks for a language and a task: a matter of the codec
        assert ours.framed(ids) == theirs(text)["input_ids"]
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("text", PLAIN)
def test_ids_and_text_are_those_of_transformers(pairs: Any, kind: str, text: str) -> None:
    same(*pairs[kind], text)


LETTERS = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from("abcDEF012 '\n\té中😀.,!?<|>-_"),
    st.sampled_from("ſİǅßﬁ½٣"),
)


@pytest.mark.parametrize("kind", NAMES)
@settings(deadline=None, max_examples=60)
@given(text=st.text(LETTERS, max_size=40))
def test_any_text_becomes_what_it_does_there(pairs: Any, kind: str, text: str) -> None:
    ours, theirs = pairs[kind]
    assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]


def test_roles_and_frames(pairs: Any) -> None:
    clip, roberta, gpt2 = (pairs[k][0].roles for k in ("CLIPTokenizer", "RobertaTokenizer", "GPT2Tokenizer"))
    assert (clip.before, clip.after) == (("<|startoftext|>",), ("<|endoftext|>",))
    assert (clip.bos, clip.eos, clip.pad, clip.unk) == ("<|startoftext|>", *["<|endoftext|>"] * 3)
    assert (roberta.before, roberta.after, roberta.pad) == (("<s>",), ("</s>",), "<pad>")
    assert (gpt2.before, gpt2.bos, gpt2.eos, gpt2.pad) == ((), "<|endoftext|>", "<|endoftext|>", None)


def test_capitals_and_word_ends_of_clip(pairs: Any) -> None:
    for kind in ("CLIPTokenizer", "CLIP, one file"):
        ours = pairs[kind][0]
        assert ours.encode("A Photo\n OF a cat") == ours.encode("a photo of a cat")
        assert ours.decode(ours.encode("A photo, OF a cat!")) == "a photo , of a cat !"


@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "RobertaTokenizer"])
def test_settings_and_added_tokens_are_kept(kind: str, tmp_path: Path) -> None:
    write_two_files(tmp_path, kind, add_prefix_space=True)
    size = len(json.loads((tmp_path / "vocab.json").read_text()))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<new>": size + 1, "<extra>": size}))
    theirs = getattr(transformers, kind).from_pretrained(tmp_path, local_files_only=True)
    ours = read_codec(tmp_path, 2000).tokenizer
    for text in ("hello there", " hello", "the <extra> and <new>"):
        same(ours, theirs, text)
    assert theirs.convert_tokens_to_ids("<new>") == ours.inner.token_to_id("<new>") == size + 1


def test_an_older_folder_says_the_kind_by_its_model(tmp_path: Path) -> None:
    write_two_files(tmp_path, "GPT2Tokenizer")
    want = read_codec(tmp_path, 2000).tokenizer.encode("The quick brown fox")
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(ArtifactError, match="vocab.json, not as tokenizer.json"):
        read_codec(tmp_path, 2000)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    assert read_codec(tmp_path, 2000).tokenizer.encode("The quick brown fox") == want


DAMAGED: dict[str, tuple[str, Any]] = {
    "vocabulary is no map": ("vocab.json", "[1]"),
    "vocabulary is empty": ("vocab.json", "{}"),
    "an id twice": ("vocab.json", '{"a": 0, "b": 0}'),
    "an id that is none": ("vocab.json", '{"a": -1}'),
    "an id beyond reason": ("vocab.json", '{"a": 9223372036854775808}'),
    "an id that is true": ("vocab.json", '{"a": true}'),
    "no JSON": ("vocab.json", '{"a":'),
    "a merge of three": ("merges.txt", "a b c\n"),
    "a merge of one": ("merges.txt", "a\n"),
    "a merge of what is no token": ("merges.txt", "\u4e2d \u4e2d\n"),
    "merges that are no text": ("merges.txt", b"\xff\xfe"),
    "an added token with another's id": ("added_tokens.json", '{"<new>": 0}'),
    "an added token far away": ("added_tokens.json", '{"<new>": 2000000000}'),
    "an added token that is none": ("added_tokens.json", '{"<new>": null}'),
    "a token of a config that is none": (
        "tokenizer_config.json",
        '{"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": {"900": 3}}',
    ),
    "an id of a config that is none": (
        "tokenizer_config.json",
        '{"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": {"x": {"content": "<n>"}}}',
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    write_two_files(tmp_path, "GPT2Tokenizer")
    name, content = DAMAGED[kind]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        read_codec(tmp_path, 2000)


def test_a_vocabulary_without_the_tokens_of_its_frame_is_refused(tmp_path: Path) -> None:
    write_two_files(tmp_path, "RobertaTokenizer", cls_token="<none>")
    with pytest.raises(ArtifactError, match="lacks the token '<none>'"):
        read_codec(tmp_path, 2000)


def test_an_id_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    write_two_files(tmp_path, "GPT2Tokenizer")
    tree = json.loads(Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>")).to_str())
    tree["model"]["vocab"]["<unk>"] = 4_000_000_000
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree))
    with pytest.raises(ArtifactError, match=r"id 4,000,000,000"):
        read_codec(tmp_path, 2000)
