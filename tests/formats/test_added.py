"""Tokens and roles that stand in other files than tokenizer.json: added, hidden and refused, as transformers' AutoTokenizer has them."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onebase
from onebase.engine.constrain import Constraint
from onebase.errors import ArtifactError, DataError
from onebase.formats.hf.added_tokens import ROLES
from onebase.formats.hf.tokenizer_files import read_codec
from onebase.modality.text import TextCodec
from tests.formats.parity import shaken
from tests.formats.words import CHATML, write_words

transformers = pytest.importorskip("transformers")
BYTES = ("qwen", "llama2", "unigram", "bert")


def put(folder: Path, name: str, **values: Any) -> None:
    file = folder / name
    tree = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(tree | values))


def theirs(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def token(name: str, **flags: Any) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return plain | {"content": name} | flags


def without(folder: Path, kind: str, *names: str) -> int:
    """A tokenizer whose tokenizer.json lacks the last of its added tokens; the id of the first of them."""
    write_words(folder, kind)
    file = folder / "tokenizer.json"
    tree = json.loads(file.read_text())
    first = min(t["id"] for t in tree["added_tokens"] if t["content"] in names)
    tree["added_tokens"] = [t for t in tree["added_tokens"] if t["content"] not in names]
    file.write_text(json.dumps(tree))
    return first


LOST = ("<|im_start|>", "<|im_end|>")
TALK = [{"role": "user", "content": "Is this a question?"}]


@pytest.mark.parametrize("where", ["added_tokens_decoder", "added_tokens.json"])
def test_special_tokens_of_another_file_are_added(where: str, tmp_path: Path) -> None:
    first = without(tmp_path, "qwen", *LOST)
    if where == "added_tokens.json":
        put(tmp_path, where, **{n: first + i for i, n in enumerate(LOST)})
        put(tmp_path, "tokenizer_config.json", additional_special_tokens=list(LOST))
    else:
        table = {str(first + i): token(n) for i, n in enumerate(LOST)}
        put(tmp_path, "tokenizer_config.json", added_tokens_decoder=table)
    codec, peer = read_codec(tmp_path, 1000), theirs(tmp_path)
    tok = codec.tokenizer
    assert tok.roles.eos == "<|im_end|>" and tok.eos == peer.eos_token_id == first + 1
    assert tok.stop_ids == {first + 1}
    assert codec.chat_ids(TALK) == peer.apply_chat_template(
        TALK, add_generation_prompt=True, return_dict=False
    )
    assert set(tok.specials) == set(peer.all_special_tokens) | set(LOST)
    assert tok.decode([first, *tok.encode("a"), first + 1]) == "a"
    assert first not in tok.encode("<|im_start|>")


@pytest.mark.parametrize("key", ROLES)
@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("form", ["text", "map"])
def test_a_role_that_is_no_token_is_refused(key: str, file: str, form: str, tmp_path: Path) -> None:
    write_words(tmp_path, "qwen")
    value: Any = "<none>" if form == "text" else {"content": "<none>", "lstrip": False}
    put(tmp_path, file, **{key: value})
    with pytest.raises(ArtifactError, match=f"'{key}' is '<none>', which is not in the vocabulary"):
        read_codec(tmp_path, 1000)


@pytest.mark.parametrize("empty", ["", None, {"content": ""}])
def test_a_role_without_letters_is_none(empty: Any, tmp_path: Path) -> None:
    """As the first LLaMA's folders have them."""
    write_words(tmp_path, "qwen")
    put(tmp_path, "tokenizer_config.json", pad_token=empty, unk_token=empty)
    roles = read_codec(tmp_path, 1000).tokenizer.roles
    assert (roles.pad, roles.unk) == (None, None)


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("kind", ["qwen", "llama2", "unigram"])
def test_what_either_file_calls_special_is_hidden(kind: str, flag: bool, tmp_path: Path) -> None:
    """transformers#48658."""
    inner = write_words(tmp_path, kind)
    name = "<tool>"
    size = inner.get_vocab_size()
    tree = json.loads((tmp_path / "tokenizer.json").read_text())
    tree["added_tokens"].append(token(name, special=not flag) | {"id": size})
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree))
    put(tmp_path, "tokenizer_config.json", added_tokens_decoder={str(size): token(name, special=flag)})
    tok = read_codec(tmp_path, 1000).tokenizer
    assert name in tok.specials and size not in tok.encode(name)
    assert tok.decode([*tok.encode("a"), size]) == tok.decode(tok.encode("a"))
    if flag:
        assert theirs(tmp_path).decode([size], skip_special_tokens=True) == ""


@settings(deadline=None, max_examples=60)
@given(data=st.data(), kind=st.sampled_from(BYTES))
def test_flags_of_added_tokens_are_those_of_transformers(
    data: st.DataObject, kind: str, tmp_path_factory: Any
) -> None:
    """Tokens that are plain text: how they are found in a text, whichever file says it, and what ids new ones have."""
    folder = tmp_path_factory.mktemp("added")
    size = write_words(folder, kind).get_vocab_size()
    flags = st.fixed_dictionaries(
        {"special": st.just(False)},
        optional={k: st.booleans() for k in ("single_word", "lstrip", "rstrip", "normalized")},
    )
    names = data.draw(st.lists(st.sampled_from(["<new>", "Tool", "[x]"]), min_size=1, unique=True))
    tree = json.loads((folder / "tokenizer.json").read_text())
    inside = data.draw(st.integers(0, len(names)))
    for i, name in enumerate(names[:inside]):
        tree["added_tokens"].append(token(name, special=False) | data.draw(flags) | {"id": size + i})
    (folder / "tokenizer.json").write_text(json.dumps(tree))
    if data.draw(st.booleans()):
        listed = {str(size + i): {"content": n} | data.draw(flags) for i, n in enumerate(names)}
        put(folder, "tokenizer_config.json", added_tokens_decoder=listed)
    else:
        put(folder, "added_tokens.json", **{n: size + i for i, n in enumerate(names)})
    peer, tok = theirs(folder), read_codec(folder, 1000).tokenizer
    for text in ("a <new> b", "the Tool is aTool a tool", "x[x] [x]\n", "<new><new> Tool"):
        assert tok.encode(text) == peer(text, add_special_tokens=False)["input_ids"]


def test_tokens_that_are_only_named_get_the_next_ids(tmp_path: Path) -> None:
    size = write_words(tmp_path, "qwen").get_vocab_size()
    put(tmp_path, "tokenizer_config.json", additional_special_tokens=["<a>", "<b>"])
    put(tmp_path, "tokenizer_config.json", added_tokens_decoder={str(size): token("<first>")})
    peer, tok = theirs(tmp_path), read_codec(tmp_path, 1000).tokenizer
    for i, name in enumerate(("<first>", "<a>", "<b>")):
        assert tok.specials[name] == peer.convert_tokens_to_ids(name) == size + i


def test_tokens_of_a_model_s_own_are_special(tmp_path: Path) -> None:
    size = write_words(tmp_path, "qwen").get_vocab_size()
    put(tmp_path, "tokenizer_config.json", image_token="<image>", extra_special_tokens={"boi_token": "<boi>"})
    peer, tok = theirs(tmp_path), read_codec(tmp_path, 1000).tokenizer
    for name in ("<image>", "<boi>"):
        assert tok.specials[name] == peer.convert_tokens_to_ids(name) >= size


@pytest.mark.parametrize("listed", [True, False])
def test_which_file_says_the_roles_is_as_in_transformers(
    listed: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_words(tmp_path, "llama2")
    put(tmp_path, "special_tokens_map.json", eos_token="<unk>")
    if listed:
        put(tmp_path, "tokenizer_config.json", added_tokens_decoder={"2": token("</s>")})
    with caplog.at_level(logging.WARNING):
        assert read_codec(tmp_path, 1000).tokenizer.roles.eos == theirs(tmp_path).eos_token
    assert "eos_token is </s> in tokenizer_config.json and <unk> in special_tokens_map.json" in caplog.text


DAMAGED: dict[str, dict[str, Any]] = {
    "another's id": {"5": token("<new>")},
    "another id": {"900": token("<|im_end|>")},
    "an id with a hole before it": {"900": token("<new>")},
    "no token": {"900": 3},
    "no text": {"900": {"content": 3}},
    "no id": {"x": token("<new>")},
    "an id beyond reason": {str(2**40): token("<new>")},
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_added_tokens_that_do_not_fit_are_refused(kind: str, tmp_path: Path) -> None:
    write_words(tmp_path, "qwen")
    put(tmp_path, "tokenizer_config.json", added_tokens_decoder=DAMAGED[kind])
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        read_codec(tmp_path, 1000)


def test_a_file_with_a_hole_in_its_own_ids_is_refused(tmp_path: Path) -> None:
    """The library would give the token the next id, whatever the file says."""
    size = write_words(tmp_path, "qwen").get_vocab_size()
    tree = json.loads((tmp_path / "tokenizer.json").read_text())
    tree["added_tokens"].append(token("<far>") | {"id": size + 5})
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree))
    with pytest.raises(ArtifactError, match=f"'<far>' has id {size + 5}, not {size}"):
        read_codec(tmp_path, 1000)


def test_a_list_that_no_longer_counts_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    size = write_words(tmp_path, "qwen").get_vocab_size()
    put(tmp_path, "tokenizer_config.json", added_tokens_decoder={})
    put(tmp_path, "added_tokens.json", **{"<old>": size})
    with caplog.at_level(logging.WARNING):
        tok = read_codec(tmp_path, 1000).tokenizer
    assert tok.vocab_size == size == len(theirs(tmp_path))
    assert "<old>" in caplog.text


def base_with_padding_beyond(
    folder: Path, special: bool, role: bool, template: str = CHATML
) -> tuple[int, Any]:
    """A tiny Llama with one row fewer than there are tokens: the last is `[PAD]`."""
    rows = write_words(folder, "qwen").get_vocab_size()
    put(folder, "added_tokens.json", **{"[PAD]": rows})
    put(folder, "tokenizer_config.json", chat_template=template)
    if special:
        put(folder, "tokenizer_config.json", added_tokens_decoder={str(rows): token("[PAD]")})
    if role:
        put(folder, "tokenizer_config.json", pad_token="[PAD]")
    cfg = transformers.LlamaConfig(
        vocab_size=rows, hidden_size=32, intermediate_size=40, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=128,
    )  # fmt: skip
    peer = shaken(transformers.LlamaForCausalLM(cfg))
    peer.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    put(folder, "config.json", bos_token_id=None, eos_token_id=None)
    return rows, peer


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("role", [True, False])
def test_a_token_beyond_the_matrix_is_never_made(special: bool, role: bool, tmp_path: Path) -> None:
    """CTranslate2#1618."""
    rows, _ = base_with_padding_beyond(tmp_path / "model", special, role)
    opened = [onebase.load(tmp_path / "model"), onebase.import_base(tmp_path / "model", tmp_path / "base")]
    for base in opened:
        assert (base.tokenizer.pad is None) == role  # else it is another token
        for text in ("[PAD]", " [PAD][PAD]", "The [PAD] fox"):
            for ids in (base.tokenizer.encode(text), *base.tokenizer.encode_batch([text, "a"])):
                assert ids and max(ids) < rows
            assert base.tokenizer.decode(base.tokenizer.encode(text)) == text
        assert isinstance(base.generate("The [PAD] fox", max_tokens=8), str)
        guided = base.generate("The", max_tokens=6, constraint=Constraint(regex="[a-z]{3}"))
        assert len(guided) == 3
        assert isinstance(base.chat([{"role": "user", "content": "[PAD]"}], max_tokens=8), str)
    opened[0].export(tmp_path / "back")
    again = onebase.load(tmp_path / "back")
    assert again.tokenizer.encode("[PAD]") == opened[0].tokenizer.encode("[PAD]")


def test_a_template_that_writes_a_token_beyond_the_matrix_is_refused(tmp_path: Path) -> None:
    base_with_padding_beyond(tmp_path / "model", True, False, CHATML + "{{ '[PAD]' }}")
    for base in (
        onebase.load(tmp_path / "model"),
        onebase.import_base(tmp_path / "model", tmp_path / "base"),
    ):
        with pytest.raises(DataError, match=r"special token '\[PAD\]' has id"):
            base.chat(TALK, max_tokens=4)


@pytest.mark.parametrize("key", ["eos_token", "bos_token", "unk_token"])
def test_another_role_beyond_the_matrix_is_refused(key: str, tmp_path: Path) -> None:
    rows, _ = base_with_padding_beyond(tmp_path, True, False)
    put(tmp_path, "tokenizer_config.json", **{key: "[PAD]"})
    with pytest.raises(ArtifactError, match=f"the model has embeddings for {rows}"):
        onebase.load(tmp_path)


def test_the_words_know_how_many_rows_there_are(tmp_path: Path) -> None:
    rows, _ = base_with_padding_beyond(tmp_path, True, True)
    codec = read_codec(tmp_path, rows)
    assert isinstance(codec, TextCodec) and codec.rows == rows
