"""Texts kept with their vectors: what is found, what is embedded again and what is not, and what a folder refuses."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from onebase.api.base import Base
from onebase.engine.text_index import Index, best
from onebase.errors import ArtifactError, UserError
from tests.helpers import tiny_base

TEXTS = ["The quick brown fox.", "def add(a, b):", "Is this a question?", "And this?", "The lazy dog."]


@pytest.fixture(scope="module")
def base() -> Base:
    return Base(tiny_base())


class Counted(Base):
    """A base that counts the texts it embeds."""

    read = 0

    def embed(self, texts: Sequence[str], **more: object) -> Tensor:  # type: ignore[override]
        self.read += len(texts)
        return super().embed(texts)


def test_what_is_found_is_what_the_vectors_say(base: Base) -> None:
    found = base.index(TEXTS).search("The quick dog.", top=None)
    v_ND = F.normalize(base.embed([*TEXTS, "The quick dog."]), dim=-1)
    wanted = {t: float(v_ND[i] @ v_ND[-1]) for i, t in enumerate(TEXTS)}
    assert [n.text for n in found] == sorted(TEXTS, key=lambda t: -wanted[t])
    for near in found:
        assert near.score == pytest.approx(wanted[near.text], abs=1e-5)


def test_rows_keep_their_columns_and_texts_are_embedded_once() -> None:
    base = Counted(tiny_base())
    index = base.index({"text": t, "id": i} for i, t in enumerate(TEXTS))
    assert base.read == 5 and len(index) == 5
    assert index.search(TEXTS[2], top=1)[0].row == {"id": 2}
    before = base.read
    assert index.add([{"text": TEXTS[0], "id": 0}, {"text": TEXTS[0], "id": 9}, "something else"]) == 2
    assert base.read == before + 1, "a text that is there is not read again"
    twins = [n.row for n in index.search(TEXTS[0], top=2)]
    assert twins == [{"id": 0}, {"id": 9}], "of equally near ones the first that was added"


def test_a_folder_brings_it_back(base: Base, tmp_path: Path) -> None:
    index = base.index({"text": t, "id": i} for i, t in enumerate(TEXTS))
    index.save(tmp_path / "index")
    back = base.index(path=tmp_path / "index")
    assert back.rows == index.rows and torch.equal(back.vectors_ND, index.vectors_ND)
    for a, b in zip(back.search("dog", top=3), index.search("dog", top=3), strict=True):
        assert (a.text, a.row) == (b.text, b.row)
        assert a.score == pytest.approx(
            b.score, abs=1e-6
        )  # a product sums in another order where it lies otherwise in memory
    with pytest.raises(ArtifactError, match="already exists"):
        index.save(tmp_path / "index")
    back.add(["one more"])
    back.save(tmp_path / "index", overwrite=True)
    assert len(base.index(path=tmp_path / "index")) == 6


def test_another_base_or_adapter_is_refused_naming_both(base: Base, tmp_path: Path) -> None:
    base.index(TEXTS).save(tmp_path / "index")
    other = Base(tiny_base(seed=1))
    with pytest.raises(UserError) as e:
        other.index(path=tmp_path / "index")
    assert base.fingerprint[:16] in e.value.cause and other.fingerprint[:16] in e.value.cause
    pairs = [{"anchor": a, "positive": b} for a, b in (("a", "b"), ("c", "d"), ("e", "f"), ("g", "h"))]
    on = base.with_adapter(base.adapt(pairs, task="embed", method="lora", rank=2, epochs=1, batch_size=2))
    with pytest.raises(UserError, match="with adapter ob1-"):
        on.index(path=tmp_path / "index")
    on.index(TEXTS).save(tmp_path / "adapted")
    assert len(on.index(path=tmp_path / "adapted")) == 5
    with pytest.raises(UserError, match="cannot be compared"):
        base.index(path=tmp_path / "adapted")


def test_a_damaged_folder_is_named(base: Base, tmp_path: Path) -> None:
    base.index(TEXTS).save(tmp_path / "index")
    rows = tmp_path / "index/rows.jsonl"
    rows.write_text(rows.read_text().replace("fox", "box"))
    with pytest.raises(ArtifactError, match=r"rows\.jsonl was changed"):
        base.index(path=tmp_path / "index")
    with pytest.raises(ArtifactError, match="there is no folder"):
        base.index(path=tmp_path / "gone")


def test_nearest_reads_the_same_texts_once() -> None:
    base = Counted(tiny_base())
    first = base.nearest("dog", TEXTS, top=2)
    assert base.read == 6 and base.nearest("dog", list(TEXTS), top=2) == first and base.read == 7
    base.nearest("fox", TEXTS)
    assert base.read == 8, "the query alone"
    base.nearest("fox", TEXTS[:4])
    assert base.read == 13, "other texts are read"
    with torch.no_grad():
        next(iter(base.loaded.model.sites().values())).weight.mul_(1.5)
    base.nearest("fox", TEXTS[:4])
    assert base.read == 18, "weights that changed make other vectors"


def test_what_cannot_be_indexed_or_looked_for(base: Base) -> None:
    with pytest.raises(UserError, match="row 2 has no text"):
        base.index([{"text": "a"}, {"body": "b"}])
    with pytest.raises(UserError, match="row 1 has no text"):
        base.index(["  "])
    with pytest.raises(UserError, match="the index is empty"):
        base.index().search("a")
    index = Index(base, base.embed, ["a"])
    for query, top in (("", 3), ("a", 0)):
        with pytest.raises(UserError):
            index.search(query, top)


def test_the_best_of_equal_scores_are_the_first() -> None:
    score_N = torch.tensor([0.5, 0.9, 0.5, 0.9, 0.1, 0.5])
    assert best(score_N, 3) == [1, 3, 0] and best(score_N, 9) == [1, 3, 0, 2, 5, 4]


def test_rows_are_plain_lines(base: Base, tmp_path: Path) -> None:
    base.index([{"text": "a \u2028 b", "id": 1}]).save(tmp_path / "index")
    assert json.loads((tmp_path / "index/rows.jsonl").read_text()) == {"text": "a \u2028 b", "id": 1}
