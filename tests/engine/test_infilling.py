"""What stands between two texts: the prompt is what objective infill teaches, in Python, by command and over HTTP; and who is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken, models, pre_tokenizers

from onebase.api.base import Base
from onebase.base.folder import LoadedBase, save_base
from onebase.draws import Draws
from onebase.engine.infilling import NAMES, infill_ids, marks_of
from onebase.errors import UserError
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.roles import Roles
from onebase.modality.text.sample import Tokens
from onebase.modality.text.tokenizer import Tokenizer
from onebase.objective.infill import infill
from onebase.serve.app import create_app
from tests.helpers import LINES, posted, serving, tiny_base
from tests.pretrained import onebase

TEXT = LINES[0].strip()


@pytest.fixture(scope="module")
def base() -> Base:
    return Base(tiny_base(endless=True))


def test_the_prompt_is_what_the_objective_teaches(base: Base) -> None:
    tok = base.tokenizer
    ids = np.array(tok.encode(TEXT, bos=True, eos=True), np.int32)
    piece = Tokens(ids, np.ones(len(ids), bool), "", "")
    marks = marks_of(tok)
    assert marks is not None
    seen = 0
    for seed in range(20):
        taught = infill(piece, marks, Draws(seed)).ids.tolist()
        at = {m: taught.index(m) for m in (marks.prefix, marks.suffix, marks.middle)}
        before = taught[at[marks.prefix] + 1 : at[marks.suffix]]
        after = taught[at[marks.suffix] + 1 : at[marks.middle]]
        prefix, suffix = tok.decode(before), tok.decode(after)
        if tok.encode(prefix) == before and tok.encode(suffix) == after:  # a cut that reading finds again
            assert infill_ids(base.loaded, prefix, suffix) == taught[: at[marks.middle] + 1]
            seen += 1
    assert seen >= 5


def test_the_suffix_changes_what_is_written(base: Base) -> None:
    said = {
        suffix: base.generate("The quick", suffix=suffix, max_tokens=12)
        for suffix in ("dog.", "return a + b", "")
    }
    assert len(set(said.values())) > 1 and said["dog."] != base.generate("The quick", max_tokens=12)
    assert "".join(base.stream("The quick", suffix="dog.", max_tokens=12)) == said["dog."]


def recorded(objective: object) -> Base:
    found = replace(tiny_base(), record=tiny_base().record)
    found.record.add("config.recipe", {"name": "x", "objective": objective}, "stated by the user")
    return Base(found)


def test_a_base_that_learnt_no_infill_is_refused() -> None:
    for objective in ({"kind": "next_token"}, "next_token"):
        with pytest.raises(UserError, match="not trained for infill") as e:
            recorded(objective).generate("a", suffix="b")
        assert "objective: infill" in e.value.remedy
    for objective in ({"kind": "infill", "rate": 0.5}, "infill"):
        assert infill_ids(recorded(objective).loaded, "a", "b")


def foreign(*names: str) -> LoadedBase:
    """A base whose tokenizer has these special tokens."""
    inner = tokenizers.Tokenizer(models.BPE({c: i for i, c in enumerate("abcdefgh")}, []))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.add_special_tokens([AddedToken(n, special=True) for n in ("<end>", *names)])
    tok = Tokenizer(inner, Roles(eos="<end>", stop=("<end>",), extra=names))
    made = tiny_base(vocab_size=tok.vocab_size)
    return replace(made, text_codec=TextCodec(tok, made.codec.template))


@pytest.mark.parametrize("names", NAMES)
def test_names_of_other_families(names: tuple[str, str, str]) -> None:
    found = foreign(*names)
    ids = infill_ids(found, "ab", "cd")
    shown = [found.codec.tokenizer.inner.id_to_token(i) for i in ids]
    assert shown == [names[0], "a", "b", names[2], "c", "d", names[1]]


def test_a_tokenizer_without_such_tokens_is_refused() -> None:
    with pytest.raises(UserError, match="has no tokens for infill"):
        infill_ids(foreign(), "ab", "cd")


def test_images_and_messages_have_no_suffix(base: Base) -> None:
    with pytest.raises(UserError, match="needs a text prompt, without images"):
        list(base.stream([{"role": "user", "content": "a"}], suffix="b"))


def test_by_command_and_over_http(base: Base, tmp_path: Path) -> None:
    save_base(tmp_path / "base", base.loaded)
    wanted = base.generate("The quick", suffix=" dog.", max_tokens=8)
    said = onebase("generate", tmp_path / "base", "The quick", "--suffix", " dog.", "--max-tokens", "8")
    assert said.status == 0 and said.out == wanted + "\n"
    asked = {"model": "base", "prompt": "The quick", "suffix": " dog.", "max_tokens": 8, "temperature": 0}
    with serving(create_app(base.loaded, "base")) as url:
        status, body = posted(url, "/v1/completions", asked)
        assert status == 200 and body["choices"][0]["text"] == wanted
        for more in ({"echo": True}, {"prompt": [5, 6]}):
            status, body = posted(url, "/v1/completions", asked | more)
            assert status == 400 and "'suffix' needs a text prompt" in body["error"]["message"]
    learnt = recorded({"kind": "next_token"})
    with serving(create_app(learnt.loaded, "base")) as url:
        status, body = posted(url, "/v1/completions", asked)
        assert status == 400 and "not trained for infill" in body["error"]["message"]
        assert posted(url, "/v1/completions", asked | {"suffix": ""})[0] == 200
