"""Students: a smaller base of some layers of a base, and perhaps of some of its tokens; and how one that has learnt is shipped."""

from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers

import onebase
from onebase.api.base import Base
from onebase.base.folder import LoadedBase, base_tensors, save_base
from onebase.derive.students import head_of, spread, trimmed
from onebase.errors import ConfigError, UserError
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.pooling import EmbeddingConfig
from onebase.modality.text.roles import Roles
from onebase.modality.text.tokenizer import Tokenizer
from tests.helpers import tiny_base

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "mat",
    "far",
    "home",
    "it",
    "was",
    "they",
    "were",
    "to",
    "from",
    "by",
    "at",
    "in",
    "out",
]
TEXTS = [{"text": f"The quick - {i} dog"} for i in range(24)]


def bits(base: Base) -> dict[str, torch.Tensor]:
    return {k: t.clone() for k, t in base_tensors(base.loaded.model).items()}


def wordy(width: int = 32) -> LoadedBase:
    """A tiny base that reads by WordPiece: words, their letters, and some that no text uses."""
    # Unused ones stand first, as in BERT: trimming moves the ids of the special tokens too.
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    names = [*(f"unused{i}" for i in range(40)), *special, *WORDS]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.-"
    names = list(dict.fromkeys([*names, *letters, *(f"##{c}" for c in letters), "##ing", "é"]))
    inner = tokenizers.Tokenizer(models.WordPiece({t: i for i, t in enumerate(names)}, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    inner.add_special_tokens(special)
    roles = Roles(
        bos=None,
        eos=None,
        pad="[PAD]",
        unk="[UNK]",
        stop=(),
        before=("[CLS]",),
        after=("[SEP]",),
        chat_framed=False,
    )
    base = tiny_base(3, depth=4, width=width, vocab_size=len(names))
    base.text_codec, base.embedding = TextCodec(Tokenizer(inner, roles)), EmbeddingConfig()
    return base


def test_a_student_has_some_layers_and_some_tokens() -> None:
    assert [spread(6, n) for n in (1, 2, 3, 6)] == [(0,), (0, 5), (0, 2, 5), (0, 1, 2, 3, 4, 5)]
    base = Base(wordy())
    texts = [{"text": "the cat sat on the mat"}, {"text": "the dog ran home"}]
    student = base.student(2, tokens=100, data=texts)
    record, own, small = student.record, bits(base), bits(student)
    assert record.get("student.layers") == [0, 3]
    assert record.parents[0]["fingerprint"] == base.fingerprint
    assert record.get("student.parameters") == sum(t.numel() for t in small.values())
    assert record.get("student.parameters_before") == sum(t.numel() for t in own.values())
    for name in ("attn.q.weight", "ff.down.weight"):
        assert torch.equal(small[f"trunks.text.blocks.1.{name}"], own[f"trunks.text.blocks.3.{name}"])
    # Known words are the same tokens, with the same vectors; others are spelt out, and what has no letter is unknown.
    one, two = base.tokenizer, student.tokenizer
    for text in ("the cat sat", "the dog ran home."):
        ids, mine = one.encode(text), two.encode(text)
        assert len(ids) == len(mine)
        assert torch.equal(small["codecs.text.stem.weight"][mine], own["codecs.text.stem.weight"][ids])
    assert [two.specials[n] for n in ("[PAD]", "[CLS]")] != [one.specials[n] for n in ("[PAD]", "[CLS]")]
    for n, i in two.specials.items():
        assert torch.equal(
            small["codecs.text.stem.weight"][i], own["codecs.text.stem.weight"][one.specials[n]]
        ), n
    assert two.decode(two.encode("unused7")) == "unused7" and len(two.encode("unused7")) == 7
    assert two.encode("é") == [two.specials["[UNK]"]] and one.encode("é") != [one.specials["[UNK]"]]
    assert two.encode("it") != one.encode("it") and two.vocab_size < one.vocab_size


def test_a_whole_student_is_the_base_itself_and_is_saved(tmp_path: Path) -> None:
    """All layers: equal bit by bit. A student of a decoder with per-layer weights and a head is a base of its own on the disk."""
    base = Base(tiny_base(2, depth=3))
    ids = base.tokenizer.encode("The quick", bos=True)
    assert torch.equal(base.student(3).logits(ids), base.logits(ids))
    student = base.student(2)
    student.save(tmp_path / "s")
    again = onebase.load(tmp_path / "s")
    assert torch.equal(again.logits(ids), student.logits(ids))
    assert len(again.config.trunks["text"].blocks) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"layers": 0}, "0 layers of 4"),
        ({"layers": 5}, "5 layers of 4"),
        ({"layers": 2, "tokens": 100}, "give both"),
        ({"layers": 2, "tokens": 20, "data": TEXTS}, "at least"),
        ({"layers": 2, "tokens": 99, "data": []}, "no rows"),
    ],
)
def test_students_that_cannot_be_are_refused(words: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Base(wordy()).student(**words)


def test_only_wordpiece_is_trimmed() -> None:
    with pytest.raises(ConfigError, match="of kind BPE"):
        trimmed(tiny_base().codec.tokenizer, ["a text"], 290)


def test_a_distilled_student_is_merged_and_keeps_its_head(tmp_path: Path) -> None:
    """Teacher, student, distil, merge: the merged base and the head alone say what student and adapter say."""
    teacher = wordy()
    save_base(tmp_path / "teacher", teacher)
    rows = [
        {"text": f"{a} {b} {w}", "label": a} for a in ("cat", "dog") for b in WORDS[:9] for w in WORDS[9:12]
    ]
    base = onebase.load(tmp_path / "teacher")
    base.adapt(rows, task="classify", method="head").save(tmp_path / "sorts")
    student = base.student(2, tokens=110, data=rows)
    distil = {"teacher": str(tmp_path / "teacher"), "adapter": str(tmp_path / "sorts"), "hidden": 1.0}
    adapter = student.adapt(
        [{"text": r["text"]} for r in rows], task="distil", method="full", epochs=2, distil=distil
    )
    on = student.with_adapter(adapter)
    merged = on.merged()
    assert on.attached is not None
    head = head_of(on.attached, merged.loaded)
    merged.save(tmp_path / "small")
    head.save(tmp_path / "head")
    shipped = onebase.load(tmp_path / "small").with_adapter(tmp_path / "head")
    for a, b in zip(
        on.classify(["cat sat", "dog ran"]), shipped.classify(["cat sat", "dog ran"]), strict=True
    ):
        assert a.label == b.label and a.scores == pytest.approx(b.scores, abs=1e-5)
    with pytest.raises(UserError, match="hidden states of the student have width 48"):
        Base(wordy(48)).adapt(rows, task="distil", method="full", distil=distil)
