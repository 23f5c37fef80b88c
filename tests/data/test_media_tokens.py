"""Documents with media as tokens: where the media stand, what may not be cut, and what is read again. The files are real."""

import io
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from onebase.data import Dataset, RowPlan, TokenSet, prepare
from onebase.data.packing import cut, cut_around
from onebase.data.sources import MARK, Document, MediaFile
from onebase.errors import ArtifactError, DataError
from onebase.modality.patches.config import ImagePatchesConfig, SoundPatchesConfig
from onebase.modality.patches.tokens import MEDIA_SPECIALS, MediaCodec
from onebase.modality.text.codec import TextCodec
from onebase.modality.text.sample import SPECIALS, Sample, Segment
from onebase.modality.text.tokenizer import Tokenizer

IMAGE = ImagePatchesConfig(kind="image_patches", channels=1, limit=16)
SOUND = SoundPatchesConfig(kind="sound_patches", limit=20)
PATCHES = {"image_patches": IMAGE, "sound_patches": SOUND}
TOKENIZER = Tokenizer.train(["a red square of 4x4 beside 2x3 others"] * 3, 300, (*SPECIALS, *MEDIA_SPECIALS))


def png(i: int, size: tuple[int, int] = (8, 8)) -> bytes:
    out = io.BytesIO()
    values = np.random.default_rng(i).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    Image.fromarray(values).save(out, "PNG")
    return out.getvalue()


def wav(samples: int) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(16000)
        f.writeframes((3000 * np.sin(np.arange(samples) / 20)).astype("<i2").tobytes())
    return out.getvalue()


def image(i: int) -> MediaFile:
    return MediaFile("image", png(i), f"{i}.png")


def documents() -> list[Document]:
    pairs = [Document(f"{MARK}picture {i}", "pairs", "", f"p{i}", media=(image(i),)) for i in range(8)]
    texts = [Document(f"plain text {i}", "texts", "", f"t{i}") for i in range(5)]
    sound = MediaFile("audio", wav(4000), "tone.wav")
    mixed = Document(f"see {MARK} and {MARK}hear {MARK}", "mixed", "", "m", media=(image(1), image(9), sound))
    return [*pairs, *texts, mixed]


def built(tmp_path: Path, given: list[Document] | None = None) -> tuple[Dataset, TokenSet]:
    dataset = prepare(given or documents(), tmp_path / "d", holdout=0.0)
    return dataset, TokenSet.build(dataset, "train", TOKENIZER, tmp_path / "tokens", PATCHES)


def test_a_document_has_its_media_in_their_places(tmp_path: Path) -> None:
    _, tokens = built(tmp_path)
    assert len(tokens) == 14
    for found in tokens:
        read = TOKENIZER.decode(list(found.ids.tolist()), skip_special=False)
        if found.source == "texts":
            assert not found.media and found.loss[1:].all()
            continue
        assert read.count("<|end_media|>") == len(found.media) == (3 if found.source == "mixed" else 1)
        for m in found.media:
            patch_NP, at_NK = m.content.load()
            assert (
                len(patch_NP) == len(at_NK) == len(m) and not found.loss[m.start - m.opening : m.stop].any()
            )
            assert found.loss[m.stop] and m.content.shown in ("image 8x8", "audio 0.28 s")
    only = next(t for t in tokens if t.source == "mixed")
    assert [m.kind for m in only.media] == ["image_patches", "image_patches", "sound_patches"]
    codec = MediaCodec(TextCodec(TOKENIZER), PATCHES)
    parts = [("text", "see "), ("image", png(1)), ("text", " and "), ("image", png(9)), ("text", "hear ")]
    segments = [Segment(k, v, loss=k == "text") for k, v in (*parts, ("audio", wav(4000)))]
    same = codec.tokens(Sample((*segments, Segment("end", None, loss=True))))
    assert only.ids.tolist() == same.ids.tolist() and only.loss.tolist() == same.loss.tolist()
    for a, b in zip(only.media, same.media, strict=True):
        assert np.array_equal(a.content.load()[0], b.content.load()[0])
        assert (a.start, a.opening, a.content.digest) == (b.start, b.opening, b.content.digest)


def test_it_opens_again_alike_and_with_its_dataset_alone(tmp_path: Path) -> None:
    dataset, first = built(tmp_path)
    again = TokenSet.build(dataset, "train", TOKENIZER, tmp_path / "tokens", PATCHES)
    assert again.path == first.path and again.fingerprint == first.fingerprint
    other = TokenSet.build(
        dataset,
        "train",
        TOKENIZER,
        tmp_path / "tokens",
        {**PATCHES, "image_patches": ImagePatchesConfig(kind="image_patches", patch=2)},
    )
    assert other.fingerprint != first.fingerprint
    assert first.path is not None
    with pytest.raises(ArtifactError, match="has media of image_patches, sound_patches"):
        TokenSet.open(first.path)


def test_media_without_a_codec_are_refused(tmp_path: Path) -> None:
    dataset = prepare(documents(), tmp_path / "d", holdout=0.0)
    with pytest.raises(DataError, match="modalities"):
        TokenSet.build(dataset, "train", TOKENIZER, tmp_path / "tokens")


def test_media_that_do_not_fit_leave_their_document_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = Document(f"{MARK}long", "pairs", "", "long", media=(MediaFile("audio", wav(40_000), "long.wav"),))
    _, tokens = built(tmp_path, [*documents(), long])
    assert len(tokens) == 14 and "1 documents are left out" in caplog.text and "long (pairs)" in caplog.text
    with pytest.raises(DataError, match=r"long \(pairs\): .* 2.50 s"):
        built(tmp_path / "only", [long])


def test_pieces_hold_their_media_whole(tmp_path: Path) -> None:
    dataset, tokens = built(tmp_path)
    plan = RowPlan(tokens, 28, 2, epochs=1)
    seen: list[str] = []
    for row in (r for step in range(plan.steps) for r in plan.rows(step)):
        for piece in row:
            assert piece.ids[0] == TOKENIZER.id_of("<|bos|>")
            marks = (piece.ids == TOKENIZER.id_of("<|patches|>")).sum()
            assert marks == sum(len(m) + 1 for m in piece.media), "no patches without their picture"
            seen += [m.content.digest for m in piece.media]
            for m in piece.media:
                assert piece.ids[m.start - m.opening] in (
                    TOKENIZER.id_of("<|image|>"),
                    TOKENIZER.id_of("<|audio|>"),
                )
                assert piece.ids[m.stop] == TOKENIZER.id_of("<|end_media|>")
    assert len(seen) == 11
    with pytest.raises(
        DataError, match=r"an audio 0.28 s of 7 patches, a row has 10.*\n.*sequence_length to 1\d"
    ):
        RowPlan(tokens, 10, 2)
    assert (
        RowPlan(tokens, 28, 2).digest
        == RowPlan(TokenSet.build(dataset, "train", TOKENIZER, tmp_path / "again", PATCHES), 28, 2).digest
    )


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(2, 12)), max_size=6),
    st.integers(0, 20),
    st.integers(14, 40),
)
def test_cuts_go_around_groups(spans: list[tuple[int, int]], tail: int, limit: int) -> None:
    groups, at = [], 1
    for gap, size in spans:
        groups.append((at + gap, at + gap + size))
        at += gap + size
    length = at + tail
    begins = cut_around(length, limit, groups)
    assert begins is not None and begins[0] == 0 and begins == sorted(set(begins))
    stops = [*begins[1:], length]
    for n, (a, b) in enumerate(zip(begins, stops, strict=True)):
        assert 0 < b - a <= limit - (n > 0)
    assert all(not any(a < cut_ < b for cut_ in begins) for a, b in groups)
    if not groups:
        assert begins == cut(np.asarray([length]), limit)[1].tolist()


def test_a_group_larger_than_a_piece_cannot_be_cut() -> None:
    assert cut_around(50, 10, [(3, 20)]) is None and cut_around(50, 20, [(3, 20)]) is not None
