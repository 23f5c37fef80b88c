"""A base out of a GGUF file and back: codec, record, and what a user meets."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("gguf")

from onebase.api.base import Base
from onebase.base.folder import load_base, save_base
from onebase.errors import ArtifactError, ConfigError
from onebase.formats.gguf import is_gguf, open_base, write_base
from tests.helpers import tiny_base

SIZES = {"portable": True, "width": 32, "head_dim": 16}
TALK = [{"role": "user", "content": "Is this a question?"}]


def test_a_base_of_ours_answers_the_same_from_gguf(tmp_path: Path) -> None:
    base, path = tiny_base(**SIZES), tmp_path / "tiny.gguf"
    write_base(base, path, kind="F32", pre="llama-bpe")
    found = open_base(path, hashes=True)
    ids = base.codec.chat_ids(TALK)
    assert found.codec.chat_ids(TALK) == ids
    assert torch.equal(base.model.logits(torch.tensor([ids])), found.model.logits(torch.tensor([ids])))
    assert found.codec.tokenizer.closing == base.codec.tokenizer.closing
    assert Base(found).generate("The quick", max_tokens=8) == Base(base).generate("The quick", max_tokens=8)


def test_the_record_says_where_a_base_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_base(tiny_base(**SIZES), path, kind="Q8_0", pre="llama-bpe")
    record = open_base(path, hashes=True).record
    assert record.get("imported.format") == "gguf" and record.get("imported.architecture") == "llama"
    assert record.get("imported.types") == {"F32": 5, "Q8_0": 16}
    assert len(record.get("imported.files")["tiny.gguf"]["sha256"]) == 64
    assert record.get("data") is None


def test_a_base_from_gguf_is_saved_and_loaded_as_ours(tmp_path: Path) -> None:
    write_base(tiny_base(**SIZES), tmp_path / "a.gguf", pre="llama-bpe")
    found = open_base(tmp_path / "a.gguf")
    save_base(tmp_path / "ours", found)
    again = load_base(tmp_path / "ours")
    ids = torch.tensor([found.codec.chat_ids(TALK)])
    assert torch.equal(found.model.logits(ids), again.model.logits(ids))


def test_refusals_come_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no name"):  # GGUF cannot say how our own tokenizers split a text
        write_base(tiny_base(**SIZES), tmp_path / "a.gguf")
    with pytest.raises(ConfigError, match="cannot express"):
        write_base(tiny_base(), tmp_path / "a.gguf", pre="llama-bpe")
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.gguf").write_text("mine")
    with pytest.raises(ArtifactError, match="already exists"):
        write_base(tiny_base(**SIZES), tmp_path / "a.gguf", pre="llama-bpe")


def test_what_calls_itself_gguf(tmp_path: Path) -> None:
    (tmp_path / "a.GGUF").touch()
    (tmp_path / "b.gguf").mkdir()
    assert is_gguf(tmp_path / "a.GGUF")
    assert not is_gguf(tmp_path / "b.gguf") and not is_gguf(tmp_path / "c.gguf")
