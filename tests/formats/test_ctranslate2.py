"""CTranslate2's files: what is written is read, Whispers say what transformers says, and nothing hostile gets further than an error."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import onebase
from onebase.errors import ArtifactError, ConfigError, UserError
from onebase.formats.ctranslate2.file import CT2File, read_contents
from onebase.formats.ctranslate2.whisper import open_ctranslate2
from onebase.formats.recognise import is_ctranslate2
from onebase.model.cross import Memory
from onebase.model.mask import Cols
from tests.formats.ct2_files import file, rounded, string, variable, whisper_arrays
from tests.formats.parity import close
from tests.formats.speech import speech_folder

transformers = pytest.importorskip("transformers")
SOME: dict[str, Any] = {
    "a/weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b/weight": np.array([[-127, 64], [1, 2]], np.int8),
    "b/weight_scale": np.array([12.7, 0.5], np.float32),
    "c/weight": np.array([[10, -20]], np.int16),
    "c/weight_scale": np.array(100.0, np.float32),
    "half": np.array([1.5, -2.25], np.float16),
    "flag": np.array(3, np.int8),
}
SECOND = [("d/weight", "b/weight")]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(file(SOME, SECOND))
    assert is_ctranslate2(tmp_path)
    found = CT2File(tmp_path / "model.bin")
    assert found.contents.spec == "WhisperSpec" and found.contents.revision == 3
    assert dict(found.shapes()) == {
        "a/weight": (3, 4),
        "b/weight": (2, 2),
        "c/weight": (1, 2),
        "d/weight": (2, 2),
        "half": (2,),
    }
    assert found.values == {"flag": 3}
    assert found.read("a/weight").equal(torch.arange(12.0).view(3, 4))
    torch.testing.assert_close(found.read("b/weight"), torch.tensor([[-10.0, 64 / 12.7], [2.0, 4.0]]))
    assert found.read("d/weight").equal(found.read("b/weight"))
    torch.testing.assert_close(found.read("c/weight"), torch.tensor([[0.1, -0.2]]))
    assert found.read("half").dtype == torch.float16
    assert found.kinds()["b/weight"] == "int8"


def whisper(path: Path, kind: str = "float32", **more: Any) -> Any:
    """A CTranslate2 folder of a tiny Whisper; returns the model of transformers that it should be."""
    theirs = speech_folder(path / "hf", **more)
    arrays, second = whisper_arrays(theirs, kind)
    (path / "model.bin").write_bytes(file(dict(sorted(arrays.items())), second))
    tree = {"suppress_ids": [5, 6], "suppress_ids_begin": [7], "lang_ids": [1], "alignment_heads": [[0, 0]]}
    (path / "config.json").write_text(json.dumps(tree))
    (path / "tokenizer.json").write_bytes((path / "hf/tokenizer.json").read_bytes())
    return rounded(theirs, kind)


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_whisper_says_what_transformers_says(kind: str, tied: bool, tmp_path: Path) -> None:
    theirs = whisper(tmp_path, kind, tie_word_embeddings=tied)
    found = open_ctranslate2(tmp_path)
    generator = torch.Generator().manual_seed(1)
    mel = torch.randn(2, 8, 20, generator=generator)
    ids = torch.randint(4, 60, (2, 9), generator=generator)
    model = found.model
    with torch.no_grad():
        states = model.states("audio", mel).hidden
        close(states, theirs.model.encoder(mel).last_hidden_state)
        logits = model.text.logits(model.hidden(ids, memory=Memory(states, Cols.simple(2, 10))).hidden)
        close(logits, theirs(input_features=mel, decoder_input_ids=ids).logits)
    stored = {p.dtype for p in model.parameters()}
    assert stored == {torch.float16 if kind == "float16" else torch.float32}


def test_int16_is_near(tmp_path: Path) -> None:
    """One scale a matrix, a fused one included: within half a step of what was written."""
    theirs = whisper(tmp_path, "int16")
    mine = open_ctranslate2(tmp_path).model.state_dict()["trunks.audio.blocks.0.attn.k.weight"]
    theirs = theirs.model.encoder.layers[0].self_attn.k_proj.weight.detach()
    assert float((mine - theirs).abs().max()) < 1e-3


def test_the_same_config_as_from_the_hugging_face_folder(tmp_path: Path) -> None:
    whisper(tmp_path, "float32", multilingual=False)
    a, b = onebase.load(tmp_path), onebase.load(tmp_path / "hf")
    assert a.config == b.config and a.fingerprint == b.fingerprint
    ours, theirs = a.loaded.speech, b.loaded.speech
    assert ours is not None and theirs is not None
    assert (ours.start, ours.end, ours.no_timestamps, ours.previous, ours.no_speech) == (
        theirs.start,
        theirs.end,
        theirs.no_timestamps,
        theirs.previous,
        theirs.no_speech,
    )
    assert set(ours.suppress) == set(theirs.suppress) and ours.suppress_first == (7,)
    assert a.tokenizer.eos == ours.end and a.tokenizer.stop_ids == {ours.end}


def test_the_record_says_what_the_source_was(tmp_path: Path) -> None:
    whisper(tmp_path, "int8")
    record = onebase.import_base(tmp_path, tmp_path / "base").record
    assert record.get("imported.format") == "ctranslate2"
    assert record.get("imported.model_type") == "whisper"
    assert record.get("imported.numbers") == ["float32", "int8"]
    assert set(record.get("imported.unread")) >= {"alignment_heads", "lang_ids"}
    assert len(record.get("imported.files")["model.bin"]["sha256"]) == 64
    assert record.get("data") is None


def changed(path: Path, **values: Any) -> None:
    theirs = speech_folder(path / "hf")
    arrays, second = whisper_arrays(theirs)
    for name, x in values.items():
        name = name.replace("__", "/")
        arrays.pop(name, None)
        if x is not None:
            arrays[name] = x
    (path / "model.bin").write_bytes(file(arrays, second))
    (path / "tokenizer.json").write_bytes((path / "hf/tokenizer.json").read_bytes())


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"decoder__alibi": np.array(1, np.int8)}, "alibi"),
        ({"decoder__activation": np.array(0, np.int8)}, "activation"),
        ({"decoder__pre_norm": np.array(0, np.int8)}, "pre_norm"),
        ({"encoder__num_heads": np.array(3, np.int16)}, "attention_heads"),
        ({"encoder__num_heads": None}, "num_heads"),
        ({"encoder__layer_norm__beta": None}, "encoder/layer_norm/beta"),
        ({"encoder__conv1__weight": None}, "conv1"),
        ({"encoder__conv1__weight": np.zeros((32, 8), np.float32)}, "conv1"),
        ({"encoder__more": np.zeros(3, np.float32)}, "encoder/more"),
        ({"encoder__conv2__bias": np.zeros(31, np.float32)}, "conv2/bias"),
        ({"encoder__conv2__bias": np.zeros(32, np.int32)}, "int32"),
        ({"encoder__layer_0__self_attention__linear_0__bias": np.ones(96, np.float32)}, "keys"),
    ],
)
def test_what_does_not_fit_is_named(values: dict[str, Any], says: str, tmp_path: Path) -> None:
    changed(tmp_path, **values)
    with pytest.raises((ArtifactError, ConfigError), match=says):
        open_ctranslate2(tmp_path)


def test_a_scale_of_zero_is_refused(tmp_path: Path) -> None:
    theirs = speech_folder(tmp_path / "hf")
    arrays, second = whisper_arrays(theirs, "int8")
    arrays["encoder/conv1/weight_scale"][3] = 0.0
    (tmp_path / "model.bin").write_bytes(file(arrays, second))
    (tmp_path / "tokenizer.json").write_bytes((tmp_path / "hf/tokenizer.json").read_bytes())
    with pytest.raises(ArtifactError, match="scale"):
        open_ctranslate2(tmp_path)


def test_another_spec_and_a_folder_without_tokenizer_are_refused(tmp_path: Path) -> None:
    whisper(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        onebase.load(tmp_path)
    (tmp_path / "model.bin").write_bytes(file(SOME, SECOND, spec=b"TransformerSpec"))
    with pytest.raises(ConfigError, match="TransformerSpec"):
        onebase.load(tmp_path)


def test_other_files_of_that_name_are_not_taken_for_one(tmp_path: Path) -> None:
    for raw in (b"", b"PK\3\4", b"\x80\x02" + bytes(300), struct.pack("<I", 6) + b"\xff\xff" + bytes(300)):
        (tmp_path / "model.bin").write_bytes(raw)
        assert not is_ctranslate2(tmp_path)
    assert not is_ctranslate2(tmp_path / "none")


HEAD = struct.pack("<I", 6) + string(b"WhisperSpec") + struct.pack("<I", 3)
NONE = struct.pack("<I", 0)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "version"),
        (struct.pack("<I", 5) + HEAD[4:], "version 5"),
        (HEAD + struct.pack("<I", 2**32 - 1), "4,294,967,295 variables"),
        (HEAD + struct.pack("<I", 60000) + bytes(100), "60,000 variables"),
        (HEAD + struct.pack("<I", 1) + struct.pack("<H", 0) + bytes(20), "0 bytes"),
        (HEAD + struct.pack("<I", 1) + struct.pack("<H", 65535) + bytes(20), "65,535 bytes"),
        (HEAD + struct.pack("<I", 1) + b"\3\0ab\0" + bytes(20), "cannot have 0 bytes|NUL"),
        (HEAD + struct.pack("<I", 1) + b"\3\0a\0b" + bytes(20), "NUL"),
        (HEAD + struct.pack("<I", 1) + b"\3\0\xff\xfe\0" + bytes(20), "UTF-8"),
        (HEAD + struct.pack("<I", 1) + string(b"a") + b"\xff" + bytes(20), "255 dimensions"),
        (
            HEAD + struct.pack("<I", 1) + string(b"a") + b"\4" + b"\xff" * 16 + b"\0" + bytes(20),
            "cannot have",
        ),
        (HEAD + struct.pack("<I", 1) + string(b"a") + struct.pack("<BIBI", 1, 2, 9, 8) + bytes(20), "type 9"),
        (
            HEAD + struct.pack("<I", 1) + string(b"a") + struct.pack("<BIBI", 1, 2, 0, 8) + bytes(7),
            "file ends",
        ),
        (HEAD + struct.pack("<I", 1) + string(b"a") + struct.pack("<BIBI", 1, 0, 0, 0) + NONE, "0 bytes"),
        (HEAD + struct.pack("<I", 2) + variable("a", np.ones(2, np.int8)) * 2 + NONE, "twice"),
        (file({"a": np.ones(2, np.int8)}, [("b", "c")]), "no such variable"),
        (file({"a": np.ones(2, np.int8)}, [("a", "a")]), "taken"),
        (file({"a": np.ones(2, np.int8)}, [("b", "a"), ("c", "b")]), "no such variable|taken"),
        (file({"a": np.ones(2, np.int8)}) + b"\0", "left over"),
    ],
)
def test_a_hostile_file_is_refused(raw: bytes, says: str) -> None:
    with pytest.raises(ArtifactError, match=says):
        read_contents(raw, "the file")


WHOLE = file(SOME, SECOND)


def test_every_cut_is_refused() -> None:
    for end in range(len(WHOLE)):
        with pytest.raises(ArtifactError):
            read_contents(WHOLE[:end], "the file")


@settings(max_examples=300)
@given(data=st.data())
def test_damage_gives_an_error_or_tensors_and_nothing_else(
    data: st.DataObject, tmp_path_factory: Any
) -> None:
    raw = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(raw) - 1))
        what = data.draw(st.sampled_from(["byte", "word", "cut", "insert"]))
        if what == "byte":
            raw[at] = data.draw(st.integers(0, 255))
        elif what == "word":
            raw[at : at + 4] = struct.pack("<I", data.draw(st.sampled_from([0, 1, 255, 2**31, 2**32 - 1])))
        elif what == "cut":
            del raw[at : at + data.draw(st.integers(1, 9))]
            raw = raw or bytearray(b"\0")
        else:
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=9))
    path = tmp_path_factory.mktemp("fuzz") / "model.bin"
    path.write_bytes(raw)
    try:
        found = CT2File(path)
        for name, shape in found.shapes().items():
            assert found.read(name).shape == shape
    except UserError:
        pass


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float32", "float16", "int8", "int16"])
def test_what_their_own_converter_writes(kind: str, tmp_path: Path) -> None:
    """ct2-transformers-converter on a tiny Whisper, read here, says what transformers says of the rounded weights."""
    converters = pytest.importorskip("ctranslate2.converters")
    theirs = speech_folder(tmp_path / "hf")
    converters.TransformersConverter(str(tmp_path / "hf")).convert(str(tmp_path / "ct2"), quantization=kind)
    (tmp_path / "ct2/tokenizer.json").write_bytes((tmp_path / "hf/tokenizer.json").read_bytes())
    model = open_ctranslate2(tmp_path / "ct2").model
    mel = torch.randn(1, 8, 20, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        states = model.states("audio", mel).hidden
        want = rounded(theirs, kind).model.encoder(mel).last_hidden_state
        if kind == "int16":
            torch.testing.assert_close(states, want, atol=0.02, rtol=0)
        else:
            close(states, want)
