"""Tokenizers and chat templates of open models: ids and texts as transformers gives them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebase.artifact.files import sha256_bytes
from onebase.base.folder import LoadedBase, load_base, save_base
from onebase.engine.stream import TextStream
from onebase.errors import ArtifactError, ConfigError, DataError
from onebase.formats.hf.tokenizer_files import read_codec
from onebase.modality.text import (
    ChatTemplate,
    Roles,
    TextCodec,
    Tokenizer,
    chat_sample,
    check_tokens,
    completion_sample,
)
from tests.formats.words import CHATS, KINDS, PHI3, write_words
from tests.helpers import tiny_base

transformers = pytest.importorskip("transformers")
TALK = [
    {"role": "user", "content": "  Is this a question?\n"},
    {"role": "assistant", "content": "Yes, it is."},
    {"role": "user", "content": "And  <this>\n\n  😀?"},
]
PLAIN = [
    "",
    " ",
    "The quick brown fox",
    "  two  spaces, Grüße\n\n\tand 中文 😀 12345 ▁ <0x41> don't",
    "def add(a, b):\n    return a + b\n",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[TextCodec, Any]]:
    root = tmp_path_factory.mktemp("words")
    found = {}
    for kind in KINDS:
        write_words(root / kind, kind)
        theirs = transformers.AutoTokenizer.from_pretrained(root / kind, local_files_only=True)
        found[kind] = read_codec(root / kind, 10_000), theirs
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", PLAIN)
def test_ids_and_text_are_those_of_transformers(folders: Any, kind: str, text: str) -> None:
    codec, theirs = folders[kind]
    tok = codec.tokenizer
    ids = tok.encode(text)
    assert tok.framed(ids) == theirs(text)["input_ids"]
    assert tok.encode_batch([text, "x"])[0] == ids
    for given_ids in (ids, tok.framed(ids)):
        assert tok.decode(given_ids) == theirs.decode(given_ids, skip_special_tokens=True)


@pytest.mark.parametrize("kind", CHATS)
@pytest.mark.parametrize("turns", [1, 3])
def test_a_conversation_is_that_of_transformers(folders: Any, kind: str, turns: int) -> None:
    codec, theirs = folders[kind]
    talk = TALK[:turns]
    found = codec.chat_ids(talk)
    assert found == theirs.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
    again = codec.chat_ids(TALK[: turns + 1], add_generation_prompt=False)
    whole = theirs.apply_chat_template(TALK[: turns + 1], return_dict=False)
    assert again == whole


@pytest.mark.parametrize("kind", CHATS)
def test_what_the_assistant_says_is_learnt_with_its_end(folders: Any, kind: str) -> None:
    codec, theirs = folders[kind]
    talk = [TALK[0], TALK[1]]
    tokens = codec.tokens(chat_sample(talk))
    check_tokens(tokens, codec.tokenizer)
    learnt = tokens.ids[tokens.loss].tolist()
    assert learnt[-1] in codec.tokenizer.stop_ids
    assert codec.tokenizer.decode(learnt[:-1], start=False).strip() == "Yes, it is."
    whole = theirs.apply_chat_template(talk, return_dict=False)
    assert tokens.ids.tolist() == whole
    prompt = codec.chat_ids(talk[:1])
    assert tokens.ids[: len(prompt)].tolist() == prompt
    assert not tokens.loss[: len(prompt)].any()


def test_special_tokens_have_the_roles_that_the_folder_says(folders: Any) -> None:
    roles = {kind: codec.tokenizer.roles for kind, (codec, _) in folders.items()}
    assert (roles["qwen"].bos, roles["qwen"].before) == (None, ())
    assert (roles["gpt2"].bos, roles["gpt2"].before, roles["gpt2"].pad) == ("<|endoftext|>", (), None)
    assert roles["llama3"].before == ("<|begin_of_text|>",)
    assert roles["phi3"].stop == (
        "<|endoftext|>",
        "<|end|>",
    )  # the second is what its template closes a turn with
    assert roles["gemma"].stop == ("<eos>", "<end_of_turn>")
    assert (roles["bert"].before, roles["bert"].after) == (("[CLS]",), ("[SEP]",))
    assert (roles["unigram"].before, roles["unigram"].after) == (("<s>",), ("</s>",))
    for codec, theirs in folders.values():
        assert codec.tokenizer.bos == theirs.bos_token_id
        assert codec.tokenizer.eos == theirs.eos_token_id


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_no_text_becomes_a_special_token(folders: Any, data: st.DataObject) -> None:
    codec, _ = folders[data.draw(st.sampled_from(list(KINDS)))]
    tok = codec.tokenizer
    parts = st.one_of(st.sampled_from(list(tok.specials)), st.text(max_size=6))
    text = "".join(data.draw(st.lists(parts, max_size=5)))
    unk = set() if tok.roles.unk is None else {tok.id_of(tok.roles.unk)}
    for follows in ("nothing", "special", "text"):
        ids = tok.encode(text, follows=follows)
        assert not set(ids) & (tok.special_ids - unk)
        assert tok.encode_batch([text], follows=follows) == [ids]


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_a_stream_says_what_decoding_says(folders: Any, data: st.DataObject) -> None:
    codec, theirs = folders[data.draw(st.sampled_from(list(KINDS)))]
    tok = codec.tokenizer
    text = data.draw(st.one_of(st.sampled_from(PLAIN), st.text(max_size=12)))
    ids = data.draw(
        st.one_of(st.just(tok.encode(text)), st.lists(st.integers(0, tok.vocab_size - 1), max_size=8))
    )
    start = data.draw(st.booleans())
    stream = TextStream(tok, start=start)
    said = "".join([*(stream.push(i) for i in ids), stream.flush()])
    assert said == tok.decode(ids, start=start)
    if start and ids == tok.encode(text):
        assert said == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "bert" and k != "unigram"])
def test_a_text_in_two_parts_reads_as_one(folders: Any, kind: str) -> None:
    tok = folders[kind][0].tokenizer
    a, b = tok.encode("The quick"), tok.encode(" brown fox\n", follows="text")
    assert tok.decode([*a, *b]) == "The quick brown fox\n"
    assert tok.decode(b, start=False) == " brown fox\n"


def test_completions_end_with_the_folder_s_end(folders: Any) -> None:
    codec, _ = folders["qwen"]
    tokens = codec.tokens(completion_sample("The quick", " fox"))
    assert tokens.ids.tolist() == [
        *codec.tokenizer.encode("The quick"),
        *codec.tokenizer.encode(" fox"),
        codec.tokenizer.eos,
    ]
    check_tokens(tokens, codec.tokenizer)


def test_a_base_without_a_template_refuses_to_chat(folders: Any) -> None:
    with pytest.raises(DataError, match="this base has no chat template"):
        folders["gpt2"][0].chat_ids(TALK)


def test_a_broken_template_is_named_when_it_is_used(tmp_path: Path) -> None:
    write_words(tmp_path, "qwen")
    (tmp_path / "chat_template.jinja").write_text("{% for m in messages %}")
    codec = read_codec(tmp_path, 1000)
    assert codec.tokenizer.encode("fine")
    with pytest.raises(ConfigError, match=r"chat_template.jinja:1"):
        codec.chat_ids(TALK)


def test_a_template_in_a_file_comes_first(tmp_path: Path) -> None:
    write_words(tmp_path, "qwen")
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}{{ eos_token }}")
    codec = read_codec(tmp_path, 1000)
    assert codec.chat_ids([{"role": "user", "content": "a"}])[-1] == codec.tokenizer.eos


def _with(folder: Path, name: str, **values: Any) -> None:
    file = folder / name
    tree = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(tree | values))


def test_a_turn_that_ends_a_conversation_otherwise_is_closed_by_its_own_token_too(tmp_path: Path) -> None:
    """Phi 3 as published: its template puts <|endoftext|> behind the last turn, and where there is no generation_config.json nothing else
    says that <|end|> closes one."""
    write_words(tmp_path, "phi3")
    source = PHI3.replace("{% endif %}", "{% else %}{{ eos_token }}{% endif %}")
    assert source.count("eos_token") == 1
    _with(tmp_path, "tokenizer_config.json", chat_template=source)
    codec = read_codec(tmp_path, 1000)
    end = codec.chat_ids(TALK[:2], add_generation_prompt=False)[-1]
    assert codec.tokenizer.id_of("<|endoftext|>") == end
    assert codec.tokenizer.roles.stop == ("<|endoftext|>", "<|end|>")


def test_generation_ends_with_any_token_of_the_list(tmp_path: Path) -> None:
    inner = write_words(tmp_path, "llama3")
    ids = [inner.token_to_id(n) for n in ("<|end_of_text|>", "<|eot_id|>")]
    _with(tmp_path, "generation_config.json", eos_token_id=ids)
    assert read_codec(tmp_path, 1000).tokenizer.stop_ids == frozenset(ids)
    _with(tmp_path, "generation_config.json", eos_token_id=9999)
    with pytest.raises(ArtifactError, match="stop token 9999"):
        read_codec(tmp_path, 1000)


def test_special_tokens_may_be_named_in_a_file_of_their_own(tmp_path: Path) -> None:
    write_words(tmp_path, "llama2")
    said = json.loads((tmp_path / "tokenizer_config.json").read_text())
    names = {k: {"content": said.pop(k), "lstrip": False} for k in ("bos_token", "eos_token", "unk_token")}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    _with(tmp_path, "special_tokens_map.json", **names)
    roles = read_codec(tmp_path, 1000).tokenizer.roles
    assert (roles.bos, roles.eos, roles.unk) == ("<s>", "</s>", "<unk>")


@pytest.mark.parametrize("flag", [True, False])
def test_without_a_post_processor_the_config_says_whether_bos_comes_first(flag: bool, tmp_path: Path) -> None:
    write_words(tmp_path, "llama2")
    _with(tmp_path, "tokenizer.json", post_processor=None)
    _with(tmp_path, "tokenizer_config.json", add_bos_token=flag)
    assert read_codec(tmp_path, 1000).tokenizer.roles.before == (("<s>",) if flag else ())


def test_a_padded_matrix_is_well_and_a_short_one_is_refused(tmp_path: Path) -> None:
    inner = write_words(tmp_path, "qwen")
    size = inner.get_vocab_size()
    assert read_codec(tmp_path, size + 50).tokenizer.vocab_size == size
    with pytest.raises(ArtifactError, match=f"has {size} tokens, the model has embeddings for {size - 1}"):
        read_codec(tmp_path, size - 1)
    tree = json.loads((tmp_path / "tokenizer.json").read_text())
    extra = tree["added_tokens"][-1] | {"content": "<image>", "id": size, "special": True}
    _with(tmp_path, "tokenizer.json", added_tokens=[*tree["added_tokens"], extra])
    assert "<image>" in read_codec(tmp_path, size).tokenizer.specials  # no text can mean it


@pytest.mark.parametrize("name", ["tokenizer.model", "vocab.txt"])
def test_other_formats_are_refused_with_what_to_do(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ArtifactError, match=f"as {name}, not as tokenizer.json") as e:
        read_codec(tmp_path, 10)
    assert "save_pretrained" in e.value.remedy


@pytest.mark.parametrize("lower", [True, False])
def test_a_list_of_word_pieces_is_a_tokenizer(lower: bool, tmp_path: Path) -> None:
    inner = write_words(tmp_path, "bert")
    vocab = inner.get_vocab()
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.txt").write_text("\n".join(sorted(vocab, key=vocab.get)) + "\n", encoding="utf-8")
    said = {"tokenizer_class": "BertTokenizer", "do_lower_case": lower}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path, local_files_only=True)
    tok = read_codec(tmp_path, 1000).tokenizer
    for text in [*PLAIN, "The QUICK Brown. fox-jumps"]:
        assert tok.framed(tok.encode(text)) == theirs(text)["input_ids"]


PROTEIN = "<cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - <null_1> <mask>"


@pytest.mark.parametrize("text", ["MKTAYIAKQR", "MK TA\nyy?K", "", "M.K-LX", "jjMjj K"])
def test_the_letters_of_proteins_are_a_tokenizer(text: str, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(PROTEIN.split()))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "EsmTokenizer"}))
    theirs = transformers.EsmTokenizer.from_pretrained(tmp_path, local_files_only=True)
    tok = read_codec(tmp_path, 33).tokenizer
    assert tok.framed(tok.encode(text)) == theirs(text)["input_ids"]
    assert tok.roles.before == ("<cls>",) and tok.roles.after == ("<eos>",)


@pytest.mark.parametrize("content", [b"", b"a\nb\n", b"\xff\xfe"])
@pytest.mark.parametrize("kind", ["BertTokenizer", "EsmTokenizer"])
def test_damaged_lists_are_refused(content: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(content)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    with pytest.raises(ArtifactError, match=r"vocab.txt|tokenizer.json"):
        read_codec(tmp_path, 33)


BAD: list[dict[str, Any]] = [
    {"model": None},
    {"model": {"type": "BPE", "vocab": 3, "merges": []}},
    {"model": {"type": "Nothing", "vocab": {"a": 0}}},
    {"added_tokens": [3]},
    {"added_tokens": [{"content": "a", "id": []}]},
    {"added_tokens": [{"content": [], "id": 0}]},
    {"model": {"type": "BPE", "vocab": {"a": []}, "merges": []}},
    {"added_tokens": {"a": 1}},
    {"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}]}},
    {"post_processor": {"type": "TemplateProcessing"}},
    {"post_processor": {"type": "Sequence", "processors": 3}},
    {"post_processor": {"type": "Own"}},
]


@pytest.mark.parametrize("change", BAD)
def test_damaged_tokenizers_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    write_words(tmp_path, "llama2")
    _with(tmp_path, "tokenizer.json", **change)
    with pytest.raises(ArtifactError, match=r"tokenizer.json"):
        read_codec(tmp_path, 1000)


@pytest.mark.parametrize("kind", ["qwen", "mistral", "bert"])
def test_a_base_folder_keeps_roles_and_template(folders: Any, kind: str, tmp_path: Path) -> None:
    codec, _ = folders[kind]
    own = tiny_base(vocab_size=codec.tokenizer.vocab_size)
    save_base(tmp_path / "base", LoadedBase(own.model, codec))
    again = load_base(tmp_path / "base").codec
    assert again.tokenizer.roles == codec.tokenizer.roles
    assert again.tokenizer.digest == codec.tokenizer.digest
    assert again.template.digest == codec.template.digest
    assert again.tokenizer.encode("The fox") == codec.tokenizer.encode("The fox")
    if kind != "bert":
        assert again.chat_ids(TALK) == codec.chat_ids(TALK)


def test_a_role_must_be_a_special_token() -> None:
    inner = tiny_base().codec.tokenizer._inner
    with pytest.raises(ArtifactError, match="no special token <nope>"):
        Tokenizer(inner, Roles(eos="<nope>"))
    digests = {Tokenizer(inner, r).digest for r in (Roles.own(), Roles(eos="<|eos|>"), Roles(bos="<|bos|>"))}
    assert len(digests) == 3
    assert (
        sha256_bytes(tiny_base().codec.tokenizer.as_json.encode()) in digests
    )  # of our own: as it always was
    assert ChatTemplate.none().source == ""
